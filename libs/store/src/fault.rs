//! What goes wrong inside a step, before it is known what the caller should hear.

use diesel::result::{DatabaseErrorKind, Error as SqlError};

use crate::StoreError;

/// Result of a query function.
pub(crate) type Step<T> = Result<T, Fault>;

/// An error inside a transaction.
#[derive(Debug)]
pub(crate) enum Fault {
    /// From the database or on the way to it.
    Sql(SqlError),
    /// Found by the step itself.
    Store(StoreError),
}

impl From<SqlError> for Fault {
    fn from(error: SqlError) -> Self {
        Self::Sql(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What a step has read is no longer so: it begins again, in a new transaction.
pub(crate) fn start_over() -> Fault {
    let reason = "a slot was taken in the meantime".to_owned();
    Fault::Sql(SqlError::DatabaseError(DatabaseErrorKind::SerializationFailure, Box::new(reason)))
}

/// What can be done about an error of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Two transactions stood in each other's way: nothing was written, try again.
    Conflict,
    /// Another transaction took the key first: nothing was written, look again.
    Duplicate,
    /// The database is away, or will not write.
    Unavailable,
    /// Anything else: a defect.
    Defect,
}

/// The part of the classification that is the same for both databases; `None` when the message must be looked at.
pub(crate) fn classify(error: &SqlError) -> Option<Class> {
    match error {
        SqlError::DatabaseError(kind, _) => match kind {
            DatabaseErrorKind::UniqueViolation => Some(Class::Duplicate),
            DatabaseErrorKind::SerializationFailure => Some(Class::Conflict),
            DatabaseErrorKind::UnableToSendCommand
            | DatabaseErrorKind::ReadOnlyTransaction
            | DatabaseErrorKind::ClosedConnection => Some(Class::Unavailable),
            DatabaseErrorKind::ForeignKeyViolation
            | DatabaseErrorKind::RestrictViolation
            | DatabaseErrorKind::NotNullViolation
            | DatabaseErrorKind::CheckViolation
            | DatabaseErrorKind::ExclusionViolation => Some(Class::Defect),
            _ => None,
        },
        // The state of the connection is lost, and with it what became of the transaction.
        SqlError::RollbackErrorOnCommit { .. }
        | SqlError::RollbackTransaction
        | SqlError::AlreadyInTransaction
        | SqlError::NotInTransaction
        | SqlError::BrokenTransactionManager => Some(Class::Unavailable),
        _ => Some(Class::Defect),
    }
}

/// What the caller hears of an error of the database.
pub(crate) fn report(class: Class, error: SqlError) -> StoreError {
    match class {
        Class::Conflict | Class::Unavailable => StoreError::Unavailable(Box::new(error)),
        Class::Duplicate | Class::Defect => match error {
            SqlError::DeserializationError(error) => StoreError::Corrupt(error.to_string()),
            error => StoreError::Refused(Box::new(error)),
        },
    }
}

/// Tries of a step that runs into other transactions.
pub(crate) const TRIES: u32 = 4;

/// A short random pause before the next try, so that two transactions do not meet again.
pub(crate) async fn pause(tries: u32) {
    let most = 4 << tries.min(6);
    tokio::time::sleep(std::time::Duration::from_millis(rand::random_range(0..most))).await;
}
