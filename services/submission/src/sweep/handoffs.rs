//! The hand-off sweep: outbox rows that nobody confirmed are offered again.

use std::sync::Arc;

use futures_util::future::join_all;
use oxcart_service::reconcile::Progress;

use super::SweepError;
use crate::{admission::before, core::Core, handoff::Handoff};

/// Outbox rows of one pass.
const ROWS: usize = 64;

pub(super) async fn pass(core: Arc<Core>) -> Result<Progress, SweepError> {
    count(&core).await?;
    let made_before = before(core.clock.now(), core.config.sweep.handoff_age);
    let stale = core.store.stale_handoffs(made_before, ROWS).await?;
    if stale.is_empty() {
        return Ok(Progress::Idle);
    }
    let rows = stale.len();
    let tasks = stale.iter().map(|handoff| handoff.entries.len()).sum();
    let offers = stale.into_iter().map(|stale| core.handoffs.offer(Handoff { id: stale.id, entries: stale.entries }));
    let left = join_all(offers).await.into_iter().filter(|confirmed| !confirmed).count();
    if left > 0 {
        return Err(SweepError::NotTaken(left));
    }
    core.meters.swept("handoffs", "enqueue", tasks);
    if rows == ROWS {
        return Ok(Progress::More);
    }
    count(&core).await?;
    Ok(Progress::Idle)
}

/// Counts what the outbox holds, whoever put it there: submits are refused beyond a bound. A row has a task at least, so that
/// as many rows as tasks are allowed tell enough.
async fn count(core: &Core) -> Result<(), SweepError> {
    core.handoffs.counted(core.store.count_unconfirmed(core.config.unconfirmed_tasks).await?);
    Ok(())
}
