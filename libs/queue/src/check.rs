//! What every engine refuses before it touches anything.

use std::collections::HashSet;

use oxcart_types::TaskId;

use crate::engine::{EntryKey, MAX_ITEMS, PageCursor, QueueError};

/// Bands 0 to 9; one more would be a tenth decimal priority that nobody can submit.
const HIGHEST_BAND: u8 = 9;

/// At most [`MAX_ITEMS`] items, each task once.
pub(crate) fn tasks(ids: impl ExactSizeIterator<Item = TaskId>) -> Result<(), QueueError> {
    let count = ids.len();
    at_most(count)?;
    let mut seen = HashSet::with_capacity(count);
    for id in ids {
        if !seen.insert(id) {
            return Err(QueueError::BadCall(format!("task {id} is named twice in one call")));
        }
    }
    Ok(())
}

/// Like [`tasks`], and each key is one that a task can have.
pub(crate) fn keys<'a>(keys: impl ExactSizeIterator<Item = &'a EntryKey> + Clone) -> Result<(), QueueError> {
    tasks(keys.clone().map(|key| key.task))?;
    match keys.into_iter().find(|key| key.band > HIGHEST_BAND) {
        Some(key) => Err(QueueError::BadCall(format!("task {} has band {}; {HIGHEST_BAND} is the last", key.task, key.band))),
        None => Ok(()),
    }
}

/// At most [`MAX_ITEMS`] of anything.
pub(crate) fn at_most(count: usize) -> Result<(), QueueError> {
    if count > MAX_ITEMS {
        return Err(QueueError::BadCall(format!("{count} items in one call; at most {MAX_ITEMS} are allowed")));
    }
    Ok(())
}

/// A cursor that no page ended with.
pub(crate) fn bad_cursor(cursor: &PageCursor) -> QueueError {
    QueueError::BadCall(format!("{:?} is no cursor of these pages", cursor.0))
}
