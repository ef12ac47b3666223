//! The audit: an endless walk over all that is open, at a bounded rate. It finds what no other sweeper knows of.

use std::{sync::Arc, time::Duration};

use oxcart_proto::convert::spec::CHOSEN_ID_MAX_AGE;
use oxcart_service::reconcile::Progress;
use oxcart_store::{OpenTask, Store, StoreError, TakeOver};
use oxcart_types::{EndKind, Failure, FailureKind, TaskId, Timestamp};
use tokio::time::Instant;

use super::{
    StateGuard, SweepError,
    agenda::close,
    decide::{Audited, audit, waits},
    resync::offer_missing,
};
use crate::{admission::before, core::Core};

/// Where the low-watermark is kept: no open task has a smaller id.
const CURSOR: &str = "submission.audit.low_watermark";
/// The mark trails behind the present by more than the age of any id that is still accepted, and the time that its commit may
/// take.
const LAG: Duration = Duration::from_secs(CHOSEN_ID_MAX_AGE.as_secs() + 300);

/// What the audit remembers between steps.
#[derive(Debug, Default)]
pub(super) struct Audit {
    cycle: Option<Cycle>,
    rest_until: Option<Instant>,
}

/// A walk under way.
#[derive(Debug)]
struct Cycle {
    after: Option<TaskId>,
    /// The first open task that this cycle met.
    first_open: Option<TaskId>,
    /// The mark when nothing is open.
    highest: TaskId,
}

pub(super) async fn pass(core: Arc<Core>, mut state: StateGuard<Audit>) -> Result<Progress, SweepError> {
    if state.rest_until.is_some_and(|until| Instant::now() < until) {
        return Ok(Progress::Idle);
    }
    let mut cycle = match state.cycle.take() {
        Some(cycle) => cycle,
        None => Cycle { after: low_watermark(&core.store).await?, first_open: None, highest: id_at(before(core.clock.now(), LAG)) },
    };
    let now = core.clock.now();
    let walk = core.store.walk_open(cycle.after, before(now, core.config.sweep.audit_min_age), core.config.sweep.rows()).await?;
    look(&core, "audit", &walk.open, now).await?;
    cycle.first_open = cycle.first_open.or(walk.first_open);
    if walk.next_after.is_some() {
        cycle.after = walk.next_after;
        state.cycle = Some(cycle);
    } else {
        let mark = cycle.first_open.map_or(cycle.highest, |open| predecessor(open).min(cycle.highest));
        core.store.set_cursor(CURSOR, &mark.to_string()).await?;
        state.rest_until = Some(Instant::now() + core.config.sweep.audit_rest);
    }
    // Idle: the period is the rate.
    Ok(Progress::Idle)
}

/// Where walks begin.
pub(super) async fn low_watermark(store: &Store) -> Result<Option<TaskId>, StoreError> {
    Ok(store.cursor(CURSOR).await?.and_then(|text| text.parse().ok()))
}

/// Looks at open tasks that nobody keeps, at most 1000, for a sweeper.
pub(super) async fn look(core: &Core, sweeper: &'static str, tasks: &[OpenTask], now: Timestamp) -> Result<(), SweepError> {
    let mut offered = Vec::new();
    for task in tasks {
        match audit(task, now, core.config.sweep.open_run_age) {
            Audited::Offer => offered.push(task),
            Audited::Close(kind, failure) => {
                close(core, task, kind, failure).await?;
                core.meters.swept(sweeper, "close", 1);
            }
            Audited::Leave => {}
        }
    }
    if offered.is_empty() {
        return Ok(());
    }
    let found = offer_missing(core, sweeper, &offered).await?;
    for task in offered.into_iter().filter(|task| found.quarantined.contains(&task.entry.task)) {
        poison(core, task, now).await?;
    }
    Ok(())
}

/// Ends a task that the dispatcher has in quarantine: a journal entry that was lost must not strand it. An open run is ended
/// first, as by a taker-over; while it shows life the task is left to the next cycle.
async fn poison(core: &Core, task: &OpenTask, now: Timestamp) -> Result<(), SweepError> {
    if !waits(task) {
        let silent_since = before(now, core.config.sweep.open_run_age);
        let run = TakeOver { task: task.entry.task, run: task.entry.run, by: core.ids.lease_token(), silent_since };
        core.store.take_over(&[run], now).await?;
    }
    let failure = Failure::new(FailureKind::POISON, "given out too often without a start").fatal();
    close(core, task, EndKind::Failed, failure).await?;
    core.meters.swept("audit", "poison", 1);
    Ok(())
}

/// The smallest UUIDv7 of a millisecond.
fn id_at(time: Timestamp) -> TaskId {
    let millis = u64::try_from(time.timestamp_millis()).unwrap_or_default();
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
    bytes[6] = 0x70;
    bytes[8] = 0x80;
    TaskId::from_bytes(bytes)
}

/// The id before, so that a walk that begins after it meets `id`.
fn predecessor(id: TaskId) -> TaskId {
    TaskId::from_bytes(u128::from_be_bytes(*id.as_bytes()).saturating_sub(1).max(1).to_be_bytes())
}

#[cfg(test)]
mod tests {
    use oxcart_types::{IdSource as _, SystemIds};

    use super::*;

    #[test]
    fn marks_lie_below_what_they_must_not_pass() {
        let id = SystemIds.task_id();
        assert!(predecessor(id) < id);
        let (seconds, _) = id.as_uuid().get_timestamp().expect("UUIDv7").to_unix();
        let made = Timestamp::from_timestamp(i64::try_from(seconds).expect("a time"), 0).expect("a time");
        assert!(id_at(made) <= id);
        assert!(id_at(made + chrono::TimeDelta::seconds(1)) > id);
    }
}
