//! Pages over the entries of one place. A cursor is the position of the last entry of the page before it, as text.

use oxcart_types::TaskId;

use super::{
    operations::inspected,
    state::{Entry, State},
};
use crate::{
    check,
    engine::{Listed, PageCursor, Place, QueueError},
};

/// Where the last entry of a page stands: two numbers that order the place, and its task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position(u8, u64, TaskId);

/// Reads a cursor of a place.
///
/// # Errors
/// [`QueueError::BadCall`]: no page of the place ended with it.
pub(super) fn position(place: Place, cursor: &PageCursor) -> Result<Position, QueueError> {
    let read = || {
        let mut parts = cursor.0.strip_prefix(name(place))?.split('.');
        let position = Position(parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        parts.next().is_none().then_some(position)
    };
    read().ok_or_else(|| check::bad_cursor(cursor))
}

/// A page of a place, with exactly `limit` entries while there are more.
pub(super) fn list(state: &State, place: Place, from: Option<Position>, limit: usize, now_ms: u64) -> Listed {
    let timed = from.map(|Position(_, ms, task)| (ms, task));
    match place {
        Place::Ready => {
            let after = from.map(|Position(band, pass, task)| (band, pass, task));
            let entries = state.ready_after(after).map(|((band, pass, task), entry)| (Position(band, pass, task), entry));
            page(entries, place, limit, now_ms)
        }
        Place::Delayed => page(state.delayed_after(timed).map(at), place, limit, now_ms),
        Place::Leased => page(state.leased_after(timed).map(at), place, limit, now_ms),
        Place::Quarantined => {
            let entries = state.quarantined_after(from.map(|Position(.., task)| task));
            page(entries.into_iter().map(|entry| at((0, entry))), place, limit, now_ms)
        }
    }
}

fn at((ms, entry): (u64, &Entry)) -> (Position, &Entry) {
    (Position(0, ms, entry.key.task), entry)
}

fn page<'a>(entries: impl Iterator<Item = (Position, &'a Entry)>, place: Place, limit: usize, now_ms: u64) -> Listed {
    let mut entries = entries.peekable();
    let page: Vec<_> = entries.by_ref().take(limit).collect();
    let last = page.last().filter(|_| entries.peek().is_some());
    let next = last.map(|(Position(band, number, task), _)| PageCursor(format!("{}{band}.{number}.{task}", name(place))));
    Listed { entries: page.into_iter().map(|(_, entry)| inspected(entry, 0, now_ms)).collect(), next }
}

const fn name(place: Place) -> &'static str {
    match place {
        Place::Ready => "r",
        Place::Delayed => "d",
        Place::Leased => "l",
        Place::Quarantined => "q",
    }
}
