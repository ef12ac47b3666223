//! The agenda loop: rows that are due are visited.

use std::{sync::Arc, time::Duration};

use oxcart_service::reconcile::Progress;
use oxcart_store::{AgendaRow, Close, Entry, OpenTask};
use oxcart_types::{EndKind, Failure};

use super::{
    SweepError,
    decide::{Action, visit, watch_time},
};
use crate::{admission::add, core::Core, dispatcher::Offered, handoff::no_room};

/// Rows of one pass.
const ROWS: usize = 500;
/// A claimed row comes back after this, when its visitor vanished.
const CLAIM: Duration = Duration::from_secs(30);
/// A row whose entry the dispatcher did not take comes back after this: a short outage must not cost a task a whole claim.
const AGAIN: Duration = Duration::from_secs(1);

pub(super) async fn pass(core: Arc<Core>) -> Result<Progress, SweepError> {
    let now = core.clock.now();
    let visits = core.store.claim_agenda(now, add(now, CLAIM), ROWS).await?;
    let count = visits.len();
    let (mut clear, mut set, mut offers) = (Vec::new(), Vec::new(), Vec::new());
    for claimed in visits {
        let row = claimed.row;
        let action = visit(&row, claimed.task.as_ref(), now, core.config.horizon);
        core.meters.swept("agenda", action.as_str(), 1);
        match (action, claimed.task) {
            (Action::Enqueue, Some(task)) => offers.push((row, task)),
            (Action::Close(kind, failure), Some(task)) => {
                close(&core, &task, kind, failure).await?;
                clear.push(row);
            }
            (Action::Remind, Some(task)) => {
                remind(&core, &task).await;
                clear.push(row);
            }
            (Action::Rearm(at, why), _) => set.push(AgendaRow { at, why, ..row }),
            (Action::Delete | Action::Enqueue | Action::Close(..) | Action::Remind, _) => clear.push(row),
        }
    }
    // What was decided is written before a dispatcher that is down ends the pass.
    write(&core, &clear, &set).await?;
    offer(&core, offers).await?;
    Ok(if count == ROWS { Progress::More } else { Progress::Idle })
}

/// Offers tasks; their rows go, wait for the end of their time, or become the feeder's. Those that were not taken come back soon.
async fn offer(core: &Core, offers: Vec<(AgendaRow, OpenTask)>) -> Result<(), SweepError> {
    if offers.is_empty() {
        return Ok(());
    }
    let now = core.clock.now();
    let entries: Vec<Entry> = offers.iter().map(|(_, task)| task.entry.clone()).collect();
    let (answers, failed) = match core.dispatcher.enqueue(&entries, now).await {
        Ok(answers) => (answers, None),
        Err(error) => (vec![Offered::TryAgain; offers.len()], Some(error)),
    };
    let again = add(core.clock.now(), AGAIN);
    let (mut clear, mut set) = (Vec::new(), Vec::new());
    for ((row, task), offered) in offers.into_iter().zip(answers) {
        match offered {
            Offered::Taken => match watch_time(&row, &task) {
                Some(watched) => set.push(watched),
                None => clear.push(row),
            },
            Offered::NoRoom => set.push(no_room(&task.entry, now)),
            Offered::TryAgain => set.push(AgendaRow { at: again, ..row }),
        }
    }
    write(core, &clear, &set).await?;
    failed.map_or(Ok(()), |error| Err(error.into()))
}

async fn write(core: &Core, clear: &[AgendaRow], set: &[AgendaRow]) -> Result<(), SweepError> {
    if !set.is_empty() {
        core.store.set_agenda(set).await?;
    }
    if !clear.is_empty() {
        core.store.clear_agenda(clear).await?;
    }
    Ok(())
}

/// Closes the slot that is next as far as the look at `task` tells. Refused means that the task has moved on meanwhile: a run
/// began, or it ended, or it was replayed. Nothing to do then.
pub(super) async fn close(core: &Core, task: &OpenTask, kind: EndKind, failure: Failure) -> Result<(), SweepError> {
    let id = task.entry.task;
    let run = if task.head.has_open_run() { task.entry.run.next() } else { task.entry.run };
    let close = Close { task: id, run: Some(run), kind, by: core.ids.lease_token(), failure, at: core.clock.now() };
    if let oxcart_store::CloseOutcome::Closed(run) = core.store.close(&close).await? {
        core.remove(&task.entry, run, None).await;
        core.waiters.changed(id);
    }
    Ok(())
}

async fn remind(core: &Core, task: &OpenTask) {
    let reason = task.cancel.as_ref().map(|cancel| cancel.reason.clone()).unwrap_or_default();
    core.remove(&task.entry, task.entry.run, Some((reason, Duration::ZERO))).await;
}
