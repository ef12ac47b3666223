//! The filter language of lists and watches: comparisons joined by AND, a subset of AIP-160.
//!
//! This module reads the text; [`task`] says which fields tasks have and what their comparisons mean. All of it is pure, and every
//! refusal names the position.

mod scan;
pub mod task;

use std::fmt;

use self::scan::Scanner;
use crate::{
    TaskId,
    violation::{Violations, reason},
};

pub use self::task::{Submitted, TaskFilter, TaskQuery};

/// Bytes of a filter at most.
pub const MAX_BYTES: usize = 4096;
/// Comparisons of a filter at most.
pub const MAX_COMPARISONS: usize = 20;

/// How a field is compared with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `:`, has
    Has,
}

impl Operator {
    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Has => ":",
        }
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One comparison, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// Field.
    pub field: String,
    /// Operator.
    pub operator: Operator,
    /// Value, quotes taken off.
    pub value: String,
    /// Where the field begins, in characters from 1.
    pub field_at: usize,
    /// Where the value begins, in characters from 1.
    pub value_at: usize,
}

/// Why a filter is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// The text is not of the language, or a comparison is not one that its field has.
    #[error("at character {at}: {description}")]
    Syntax {
        /// Position, in characters from 1.
        at: usize,
        /// What is wrong.
        description: String,
    },
    /// There is no such field.
    #[error("at character {at}: there is no field {field:?}; fields are {known}")]
    UnknownField {
        /// Position, in characters from 1.
        at: usize,
        /// The field.
        field: String,
        /// Those that there are.
        known: &'static str,
    },
}

impl FilterError {
    /// A mistake at a position.
    #[must_use]
    pub fn syntax(at: usize, description: impl Into<String>) -> Self {
        Self::Syntax { at, description: description.into() }
    }

    /// The error as a violation of the request's field `filter`.
    #[must_use]
    pub fn into_violations(self) -> Violations {
        let reason = match &self {
            Self::Syntax { .. } => reason::FILTER_SYNTAX,
            Self::UnknownField { .. } => reason::FILTER_FIELD_UNKNOWN,
        };
        let mut violations = Violations::new();
        violations.add("filter", reason, self.to_string());
        violations
    }
}

/// Reads a filter. A bare UUID means `task_id = …`.
///
/// # Errors
/// The text is too long, is not of the language, or uses OR, NOT or parentheses, which the language does not have yet.
pub fn parse(text: &str) -> Result<Vec<Comparison>, FilterError> {
    if text.len() > MAX_BYTES {
        return Err(FilterError::syntax(1, format!("has {} bytes; at most {MAX_BYTES} are allowed", text.len())));
    }
    let mut scanner = Scanner::new(text);
    let mut comparisons = Vec::new();
    if scanner.at_end() {
        return Ok(comparisons);
    }
    loop {
        if comparisons.len() == MAX_COMPARISONS {
            return Err(FilterError::syntax(scanner.position(), format!("more than {MAX_COMPARISONS} comparisons")));
        }
        comparisons.push(comparison(&mut scanner)?);
        if scanner.at_end() {
            return Ok(comparisons);
        }
        let at = scanner.position();
        match scanner.word() {
            "AND" => {}
            "OR" => return Err(FilterError::syntax(at, "OR is not supported yet: send one query for each alternative")),
            _ => return Err(FilterError::syntax(at, "expected AND between comparisons")),
        }
    }
}

fn comparison(scanner: &mut Scanner<'_>) -> Result<Comparison, FilterError> {
    let field_at = scanner.position();
    if scanner.eat('(') {
        return Err(FilterError::syntax(field_at, "parentheses are not supported yet: comparisons are joined by AND only"));
    }
    if scanner.eat('-') {
        return Err(FilterError::syntax(field_at, "NOT is not supported yet; state has !="));
    }
    let field = scanner.word();
    match field {
        "" => return Err(FilterError::syntax(field_at, "expected a comparison like queue = \"mail\"")),
        "NOT" => return Err(FilterError::syntax(field_at, "NOT is not supported yet; state has !=")),
        "AND" | "OR" => return Err(FilterError::syntax(field_at, format!("expected a comparison before {field}"))),
        _ => {}
    }
    let operator_at = scanner.position();
    let Some(operator) = scanner.operator() else {
        if field.parse::<TaskId>().is_ok() {
            let (field, value) = ("task_id".to_owned(), field.to_owned());
            return Ok(Comparison { field, operator: Operator::Equal, value, field_at, value_at: field_at });
        }
        return Err(FilterError::syntax(operator_at, "expected one of = != < <= > >= : after the name of a field"));
    };
    let value_at = scanner.position();
    let value = scanner.value().map_err(|description| FilterError::syntax(value_at, description))?;
    Ok(Comparison { field: field.to_owned(), operator, value, field_at, value_at })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let comparisons = parse(text).expect("a filter");
        comparisons.into_iter().map(|c| format!("{} {} {}", c.field, c.operator, c.value)).collect()
    }

    #[test]
    fn comparisons_are_read() {
        let id = "0190f3c5-7b1e-7cc3-98c4-dc0c0c07398f";
        let table: [(&str, &[&str]); 7] = [
            ("", &[]),
            ("  ", &[]),
            ("state=failed", &["state = failed"]),
            (r#"state = FAILED AND queue = "mail" AND tags:vip"#, &["state = FAILED", "queue = mail", "tags : vip"]),
            (
                "create_time>=2026-11-21T05:00:00+01:00 AND create_time < now-1h",
                &["create_time >= 2026-11-21T05:00:00+01:00", "create_time < now-1h"],
            ),
            (r#"tags:"a \"b\" \\ c""#, &[r#"tags : a "b" \ c"#]),
            (id, &["task_id = 0190f3c5-7b1e-7cc3-98c4-dc0c0c07398f"]),
        ];
        for (text, expected) in table {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn refusals_name_the_position() {
        let table = [
            ("state", 6, "expected one of"),
            ("state =", 8, "expected a value"),
            ("state = a queue = b", 11, "expected AND"),
            ("state = a OR state = b", 11, "OR is not supported"),
            ("NOT state = a", 1, "NOT is not supported"),
            ("-state = a", 1, "NOT is not supported"),
            ("(state = a)", 1, "parentheses"),
            ("ä = a AND (", 11, "parentheses"),
            ("state = a AND", 14, "expected a comparison"),
            ("AND state = a", 1, "expected a comparison before AND"),
            (r#"queue = "mail"#, 9, "no closing quote"),
            ("= a", 1, "expected a comparison"),
        ];
        for (text, position, part) in table {
            let Err(FilterError::Syntax { at, description }) = parse(text) else { panic!("{text} must be refused") };
            assert_eq!(at, position, "{text}: {description}");
            assert!(description.contains(part), "{text}: {description}");
        }
    }

    #[test]
    fn size_is_bounded() {
        assert!(parse(&"x".repeat(MAX_BYTES + 1)).is_err());
        let many = vec!["tags:a"; MAX_COMPARISONS].join(" AND ");
        assert_eq!(parse(&many).expect("just enough").len(), MAX_COMPARISONS);
        assert!(parse(&format!("{many} AND tags:b")).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = parse(&text);
        }

        #[test]
        fn texts_near_the_language_do_not_panic(text in "(state|queue|tags|AND|OR|=|!|<|:|\"|\\\\|[ (-]|ä|now-1h){0,12}") {
            let _ = parse(&text);
        }

        #[test]
        fn a_quoted_value_reads_back(value in "\\PC{0,40}") {
            let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
            let read = parse(&format!("tags:\"{quoted}\""));
            prop_assert_eq!(read.expect("a filter").remove(0).value, value);
        }
    }
}
