//! What is wrong with an input, all of it at once.

use std::fmt;

/// One thing wrong with one field of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field as the caller wrote it, for example `tasks[3].queue`.
    pub field: String,
    /// Machine-readable reason in capitals, for example `FIELD_REQUIRED`; see the `reason` module.
    pub reason: &'static str,
    /// Sentence for people that names the value and the limit.
    pub description: String,
}

/// Reasons of violations, as they go out in `google.rpc.ErrorInfo`.
pub mod reason {
    /// A required field is empty or unset.
    pub const FIELD_REQUIRED: &str = "FIELD_REQUIRED";
    /// A field has a value that is not allowed.
    pub const FIELD_INVALID: &str = "FIELD_INVALID";
    /// Two fields exclude each other.
    pub const FIELD_CONFLICT: &str = "FIELD_CONFLICT";
    /// A payload said to be JSON is not.
    pub const PAYLOAD_INVALID_JSON: &str = "PAYLOAD_INVALID_JSON";
    /// A payload is over its limit.
    pub const PAYLOAD_TOO_LARGE: &str = "PAYLOAD_TOO_LARGE";
    /// An update mask names a field that is unknown or cannot be changed.
    pub const UPDATE_MASK_INVALID: &str = "UPDATE_MASK_INVALID";
    /// A page token is malformed or belongs to another query.
    pub const PAGE_TOKEN_INVALID: &str = "PAGE_TOKEN_INVALID";
    /// A filter cannot be parsed.
    pub const FILTER_SYNTAX: &str = "FILTER_SYNTAX";
    /// A filter names an unknown field.
    pub const FILTER_FIELD_UNKNOWN: &str = "FILTER_FIELD_UNKNOWN";
}

/// Collects violations while an input is read, so that the caller hears of all of them in one answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Violations(Vec<Violation>);

impl Violations {
    /// Nothing wrong so far.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Notes a violation.
    pub fn add(&mut self, field: impl Into<String>, reason: &'static str, description: impl Into<String>) {
        self.0.push(Violation { field: field.into(), reason, description: description.into() });
    }

    /// Keeps the value of a good result; notes the error of a bad one under `field`.
    pub fn take<T>(&mut self, field: &str, result: Result<T, Invalid>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(invalid) => {
                self.add(field, invalid.reason, invalid.description);
                None
            }
        }
    }

    /// Takes over the violations of a part, with `prefix` before each of its field paths.
    pub fn nest(&mut self, prefix: &str, part: Self) {
        self.0.extend(part.0.into_iter().map(|mut v| {
            v.field = format!("{prefix}.{}", v.field);
            v
        }));
    }

    /// True while nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The violations in the order they were found.
    #[must_use]
    pub fn as_slice(&self) -> &[Violation] {
        &self.0
    }

    /// `Ok` when nothing is wrong.
    ///
    /// # Errors
    /// The violations themselves, when there is at least one.
    pub fn check(self) -> Result<(), Self> {
        if self.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, v) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { "; " };
            write!(f, "{separator}{}: {}", v.field, v.description)?;
        }
        Ok(())
    }
}

impl std::error::Error for Violations {}

/// Why a single value was refused; the caller knows which field it came from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{description}")]
pub struct Invalid {
    /// See [`reason`].
    pub reason: &'static str,
    /// Sentence for people that names the value and the limit.
    pub description: String,
}

impl Invalid {
    /// A value that is not allowed.
    pub fn value(description: impl Into<String>) -> Self {
        Self { reason: reason::FIELD_INVALID, description: description.into() }
    }

    /// A value that is missing.
    #[must_use]
    pub fn required() -> Self {
        Self { reason: reason::FIELD_REQUIRED, description: "is required".to_owned() }
    }

    /// A value refused for a reason of its own.
    pub fn because(reason: &'static str, description: impl Into<String>) -> Self {
        Self { reason, description: description.into() }
    }
}
