//! What an error of MySQL means.

use diesel::result::Error as SqlError;

use crate::fault::{Class, classify as classify_common};

/// What can be done about an error.
///
/// diesel-async keeps the server's message and drops its number, so messages must be looked at; connections pin the language
/// of messages to English. Errors of the driver itself carry the name of their kind in front.
pub(crate) fn classify(error: &SqlError) -> Class {
    if let Some(class) = classify_common(error) {
        return class;
    }
    let SqlError::DatabaseError(_, info) = error else { return Class::Defect };
    let message = info.message();
    // 1213 and 1205: the transaction was, or will be, rolled back.
    const CONFLICT: [&str; 2] = ["Deadlock found when trying to get lock", "Lock wait timeout exceeded"];
    // 1290, 1836, 1053, 1927, 1317, 1040, 1203, 2006 and the like, then the driver's own.
    const UNAVAILABLE: [&str; 14] = [
        "read-only option",
        "read_only",
        "Running in read-only mode",
        "shutdown in progress",
        "Connection was killed",
        "Query execution was interrupted",
        "Too many connections",
        "max_user_connections",
        "gone away",
        "Lost connection",
        "is full",
        "Input/output error",
        "Driver error",
        "Other error",
    ];
    if CONFLICT.iter().any(|text| message.starts_with(text)) {
        Class::Conflict
    } else if UNAVAILABLE.iter().any(|text| message.contains(text)) {
        Class::Unavailable
    } else {
        Class::Defect
    }
}

#[cfg(test)]
mod tests {
    use diesel::result::DatabaseErrorKind;

    use super::*;

    fn message(text: &str) -> SqlError {
        SqlError::DatabaseError(DatabaseErrorKind::Unknown, Box::new(text.to_owned()))
    }

    #[test]
    fn conflicts_are_tried_again_and_absences_reported() {
        assert_eq!(classify(&message("Deadlock found when trying to get lock; try restarting transaction")), Class::Conflict);
        assert_eq!(classify(&message("Lock wait timeout exceeded; try restarting transaction")), Class::Conflict);
        let read_only = "The MariaDB server is running with the --read-only option so it cannot execute this statement";
        assert_eq!(classify(&message(read_only)), Class::Unavailable);
        assert_eq!(classify(&message("Input/output error: connection closed")), Class::Unavailable);
        assert_eq!(classify(&message("You have an error in your SQL syntax")), Class::Defect);
        assert_eq!(classify(&SqlError::BrokenTransactionManager), Class::Unavailable);
        let duplicate = SqlError::DatabaseError(DatabaseErrorKind::UniqueViolation, Box::new(String::new()));
        assert_eq!(classify(&duplicate), Class::Duplicate);
    }
}
