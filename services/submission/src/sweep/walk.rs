//! Walks over all that is open: all tasks by id, and then replays by time, since a replayed task may lie below the mark where the
//! walk over tasks began.

use std::time::Duration;

use oxcart_proto::convert::spec::CHOSEN_ID_MAX_AGE;
use oxcart_store::{OpenTask, ReplayPosition, Store, StoreError};
use oxcart_types::{TaskId, Timestamp};

use crate::admission::before;

/// What a step found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Tasks that are open and that no agenda row hides.
    pub(crate) open: Vec<OpenTask>,
    /// Tasks with a limit of time that wait for room in their queues.
    pub(crate) without_room: Vec<OpenTask>,
}

/// Where the mark of the tasks is kept: no open task that was never replayed has a smaller id.
const TASKS: &str = "submission.audit.low_watermark";
/// Where the mark of the replays is kept: no task that was replayed before this time is open.
const REPLAYS: &str = "submission.audit.replays_low_watermark";
/// The marks trail behind the present by more than the age of any id that is still accepted, and the time that its commit may
/// take.
const LAG: Duration = Duration::from_secs(CHOSEN_ID_MAX_AGE.as_secs() + 300);
/// How replay times are written.
const TIME: &str = "%Y-%m-%dT%H:%M:%S%.6fZ";

/// A walk under way.
#[derive(Debug)]
pub(crate) struct Walk {
    position: Position,
    replays_from: Option<ReplayPosition>,
    first_open: Option<TaskId>,
    first_open_replay: Option<Timestamp>,
    /// Where the marks may go when nothing is open.
    lag: Timestamp,
}

#[derive(Debug, Clone, Copy)]
enum Position {
    Tasks(Option<TaskId>),
    Replays(Option<ReplayPosition>),
    End,
}

impl Walk {
    /// Begins where the marks are.
    pub(crate) async fn begin(store: &Store, now: Timestamp) -> Result<Self, StoreError> {
        let after: Option<TaskId> = store.cursor(TASKS).await?.and_then(|text| text.parse().ok());
        let replays_from = store.cursor(REPLAYS).await?.and_then(|text| read_time(&text));
        Ok(Self {
            position: Position::Tasks(after),
            replays_from: replays_from.map(|at| (at, LOWEST)),
            first_open: None,
            first_open_replay: None,
            lag: before(now, LAG),
        })
    }

    /// Begins at the first task and the first replay, whatever the marks say.
    pub(crate) fn whole(now: Timestamp) -> Self {
        Self {
            position: Position::Tasks(None),
            replays_from: None,
            first_open: None,
            first_open_replay: None,
            lag: before(now, LAG),
        }
    }

    /// Takes a step of at most `rows` tasks, of which those count that were submitted or replayed before `made_before`.
    pub(crate) async fn step(&mut self, store: &Store, made_before: Timestamp, rows: usize) -> Result<Found, StoreError> {
        match self.position {
            Position::Tasks(after) => {
                let walk = store.walk_open(after, made_before, rows).await?;
                self.first_open = self.first_open.or(walk.first_open);
                self.position = walk.next_after.map_or(Position::Replays(self.replays_from), |next| Position::Tasks(Some(next)));
                Ok(Found { open: walk.open, without_room: walk.without_room })
            }
            Position::Replays(after) => {
                let walk = store.walk_replays(after, made_before, rows).await?;
                self.first_open_replay = self.first_open_replay.or(walk.first_open);
                self.position = walk.next_after.map_or(Position::End, |next| Position::Replays(Some(next)));
                // The window does not limit what is replayed.
                Ok(Found { open: walk.open, without_room: Vec::new() })
            }
            Position::End => Ok(Found::default()),
        }
    }

    /// Everything was seen.
    pub(crate) const fn is_over(&self) -> bool {
        matches!(self.position, Position::End)
    }

    /// Moves the marks up to what was found open; for a walk that is over.
    pub(crate) async fn move_marks(&self, store: &Store) -> Result<(), StoreError> {
        let highest = TaskId::lowest_at(self.lag);
        let mark = self.first_open.map_or(highest, |open| predecessor(open).min(highest));
        store.set_cursor(TASKS, &mark.to_string()).await?;
        let mark = self.first_open_replay.map_or(self.lag, |open| open.min(self.lag));
        store.set_cursor(REPLAYS, &mark.format(TIME).to_string()).await
    }
}

/// Below every task.
const LOWEST: TaskId = TaskId::from_bytes([0; 16]);

fn read_time(text: &str) -> Option<Timestamp> {
    chrono::NaiveDateTime::parse_from_str(text, TIME).ok().map(|time| time.and_utc())
}

/// The id before, so that a walk that begins after it meets `id`.
fn predecessor(id: TaskId) -> TaskId {
    TaskId::from_bytes(u128::from_be_bytes(*id.as_bytes()).saturating_sub(1).max(1).to_be_bytes())
}

#[cfg(test)]
mod tests {
    use oxcart_types::{Clock as _, IdSource as _, SystemClock, SystemIds};

    use super::*;

    #[test]
    fn marks_lie_below_what_they_must_not_pass() {
        let id = SystemIds.task_id();
        assert!(predecessor(id) < id);
    }

    #[test]
    fn times_read_back_to_the_microsecond() {
        let now = SystemClock.now();
        assert_eq!(read_time(&now.format(TIME).to_string()), Some(now));
        assert_eq!(read_time("yesterday"), None);
    }
}
