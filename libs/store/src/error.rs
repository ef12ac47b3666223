//! What can go wrong with SQL.

/// Why a step could not be carried out. Every step may be repeated.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached, is read-only or shutting down: nothing is known about the effect of the step.
    #[error("the database is unavailable: {0}")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No connection became free in time: nothing was done.
    #[error("all database connections are in use")]
    Busy,
    /// The schema is older or newer than this program understands.
    #[error("{}", describe_schema(found, needed))]
    Schema {
        /// Version found; empty when there is none.
        found: String,
        /// Version needed.
        needed: String,
    },
    /// A row does not hold what this program writes.
    #[error("the database holds a bad row: {0}")]
    Corrupt(String),
    /// The database refused a statement: a defect of this program or of the schema.
    #[error("the database refused a statement: {0}")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The URL or an option cannot be used.
    #[error("bad database configuration: {0}")]
    Configuration(String),
}

impl StoreError {
    /// True when the same step would fail in the same way again: not the database is at fault, but what it was given or holds.
    #[must_use]
    pub const fn is_permanent(&self) -> bool {
        match self {
            Self::Corrupt(_) | Self::Refused(_) => true,
            Self::Unavailable(_) | Self::Busy | Self::Schema { .. } | Self::Configuration(_) => false,
        }
    }
}

fn describe_schema(found: &str, needed: &str) -> String {
    match found {
        "" => format!("the database has no schema, this program needs {needed}: run `oxcart migrate up`"),
        found => format!("the database schema is at {found}, this program needs {needed}: run `oxcart migrate up`"),
    }
}

/// No connection could be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to {place}: {reason}")]
pub(crate) struct Unreachable {
    /// Host and port, or a path: what may be shown of a URL.
    pub(crate) place: String,
    /// Why.
    pub(crate) reason: String,
}
