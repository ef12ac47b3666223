//! The audit: an endless walk over all that is open, at a bounded rate. It finds what no other sweeper knows of.

use std::sync::Arc;

use oxcart_service::reconcile::Progress;
use oxcart_store::{OpenTask, TakeOver};
use oxcart_types::{EndKind, Failure, FailureKind, Timestamp};
use tokio::time::Instant;

use super::{
    StateGuard, SweepError,
    agenda::close,
    decide::{Audited, audit, closing, waits},
    resync::offer_missing,
    walk::Walk,
};
use crate::{admission::before, core::Core};

/// What the audit remembers between steps.
#[derive(Debug, Default)]
pub(super) struct Audit {
    cycle: Option<Walk>,
    rest_until: Option<Instant>,
}

pub(super) async fn pass(core: Arc<Core>, mut state: StateGuard<Audit>) -> Result<Progress, SweepError> {
    if state.rest_until.is_some_and(|until| Instant::now() < until) {
        return Ok(Progress::Idle);
    }
    let now = core.clock.now();
    let mut cycle = match state.cycle.take() {
        Some(cycle) => cycle,
        None => Walk::begin(&core.store, now).await?,
    };
    let found = cycle.step(&core.store, before(now, core.config.sweep.audit_min_age), core.config.sweep.rows()).await?;
    expire(&core, &found.without_room, now).await?;
    look(&core, "audit", &found.open, now).await?;
    if cycle.is_over() {
        cycle.move_marks(&core.store).await?;
        state.rest_until = Some(Instant::now() + core.config.sweep.audit_rest);
    } else {
        state.cycle = Some(cycle);
    }
    // Idle: the period is the rate.
    Ok(Progress::Idle)
}

/// Closes those whose time is over: they are with no worker that could, and the feeder takes them by priority, not by time.
async fn expire(core: &Core, tasks: &[OpenTask], now: Timestamp) -> Result<(), SweepError> {
    for task in tasks {
        if let Some((kind, failure)) = closing(task, now) {
            close(core, task, kind, failure).await?;
            core.meters.swept("audit", "close", 1);
        }
    }
    Ok(())
}

/// Looks at open tasks that nobody keeps, at most 1000, for a sweeper.
pub(crate) async fn look(core: &Core, sweeper: &'static str, tasks: &[OpenTask], now: Timestamp) -> Result<(), SweepError> {
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
