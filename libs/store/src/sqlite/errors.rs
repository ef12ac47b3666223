//! What an error of SQLite means.

use diesel::result::Error as SqlError;

use crate::fault::{Class, classify as classify_common};

/// What can be done about an error. diesel keeps SQLite's message and drops its number; the messages are fixed texts.
pub(crate) fn classify(error: &SqlError) -> Class {
    if let Some(class) = classify_common(error) {
        return class;
    }
    let SqlError::DatabaseError(_, info) = error else { return Class::Defect };
    let message = info.message();
    const CONFLICT: [&str; 2] = ["is locked", "database schema has changed"];
    const UNAVAILABLE: [&str; 7] = [
        "readonly database",
        "disk I/O error",
        "unable to open database file",
        "is full",
        "malformed",
        "is not a database",
        "interrupted",
    ];
    if CONFLICT.iter().any(|text| message.contains(text)) {
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

    #[test]
    fn conflicts_are_tried_again_and_absences_reported() {
        let message = |text: &str| SqlError::DatabaseError(DatabaseErrorKind::Unknown, Box::new(text.to_owned()));
        assert_eq!(classify(&message("database is locked")), Class::Conflict);
        assert_eq!(classify(&message("attempt to write a readonly database")), Class::Unavailable);
        assert_eq!(classify(&message("no such table: tasks")), Class::Defect);
    }
}
