//! The reverse audit: an endless walk over what the queues have, at a bounded rate. It takes out entries that can lead to
//! nothing: their task has ended, is not known, or has moved elsewhere.
//!
//! An entry is listed before its task is read, and a task is committed before it is enqueued. So what SQL says is newer than the
//! entry, and a step that is taken after SQL was read makes a later run: it is kept, because what is taken out is bounded by the
//! run that SQL has closed.

use std::sync::Arc;

use oxcart_proto::{
    convert::scalar,
    pb::dispatcher::v1::{EntryKey, EntryPlace},
};
use oxcart_service::reconcile::Progress;
use oxcart_store::Standing;
use oxcart_types::{Limits, Run, Timestamp};
use tokio::time::Instant;

use super::{StateGuard, SweepError};
use crate::{
    admission::before,
    core::Core,
    dispatcher::{Found, Page},
};

/// What the reverse audit remembers between steps.
#[derive(Debug, Default)]
pub(super) struct ReverseAudit {
    walk: Option<Walk>,
    rest_until: Option<Instant>,
}

/// A walk under way.
#[derive(Debug)]
struct Walk {
    /// Queues still to be walked over, the one under way last.
    queues: Vec<String>,
    page_token: String,
}

pub(super) async fn pass(core: Arc<Core>, mut state: StateGuard<ReverseAudit>) -> Result<Progress, SweepError> {
    if state.rest_until.is_some_and(|until| Instant::now() < until) {
        return Ok(Progress::Idle);
    }
    if state.walk.is_none() {
        state.walk = Some(Walk { queues: queues(&core).await?, page_token: String::new() });
    }
    let Some(walk) = &mut state.walk else { return Ok(Progress::Idle) };
    let Some(queue) = walk.queues.last() else {
        state.walk = None;
        state.rest_until = Some(Instant::now() + core.config.sweep.reverse_audit_rest);
        return Ok(Progress::Idle);
    };
    let page = core.dispatcher.list_entries(queue, core.config.sweep.rows(), walk.page_token.clone()).await?;
    let empty = page.items.is_empty();
    look(&core, &page).await?;
    walk.page_token = page.next;
    if walk.page_token.is_empty() {
        walk.queues.pop();
    }
    // The period is the rate; pages of nothing cost next to nothing.
    Ok(if empty { Progress::More } else { Progress::Idle })
}

/// The queues that the dispatcher knows, each once.
async fn queues(core: &Core) -> Result<Vec<String>, SweepError> {
    let mut queues: Vec<_> = core.dispatcher.partitions(&[]).await?.into_iter().map(|partition| partition.queue).collect();
    queues.sort_unstable();
    queues.dedup();
    Ok(queues)
}

async fn look(core: &Core, page: &Page<Found>) -> Result<(), SweepError> {
    let ids: Vec<_> = page.items.iter().map(|found| found.task).collect();
    let standings = core.store.standings(&ids).await?;
    let ended_before = before(core.clock.now(), core.config.sweep.open_run_age);
    let strays = page.items.iter().filter_map(|found| {
        let up_to = stray(found, standings.get(&found.task), ended_before)?;
        Some(EntryKey { run: scalar::to_run(up_to), ..found.key.clone() })
    });
    let removed = take_out(core, strays.collect()).await?;
    core.meters.swept("reverse_audit", "remove", removed);
    Ok(())
}

/// Takes entries out, a task at most once a call; how many are gone.
async fn take_out(core: &Core, mut keys: Vec<EntryKey>) -> Result<usize, SweepError> {
    let mut gone = 0;
    keys.sort_by(|a, b| a.task_id.cmp(&b.task_id));
    keys.dedup_by(|a, b| a.task_id == b.task_id);
    for keys in keys.chunks(Limits::BATCH_ITEMS) {
        gone += core.dispatcher.take_out(keys.to_vec()).await?.into_iter().filter(|gone| *gone).count();
    }
    Ok(gone)
}

/// The run up to which an entry is to be taken out; `None` for one that is to stay. A lease stays while its holder may be about
/// to settle it: what ended it must lie before `ended_before`.
fn stray(found: &Found, standing: Option<&Standing>, ended_before: Timestamp) -> Option<Run> {
    // A task is in SQL before it is in a queue: it was deleted, or never was.
    let Some(standing) = standing else { return Some(found.run) };
    let leased = found.place == EntryPlace::Leased;
    if standing.terminal().is_some() {
        let settled = !leased || standing.ended_at.is_some_and(|at| at < ended_before);
        return standing.task.head.latest.map(|latest| latest.run).filter(|closed| settled && found.run <= *closed);
    }
    // Left behind by an update that moved the task: the slot of its run is closed. One that is behind in its right place stays:
    // whoever is granted it goes on with the next run.
    let behind = found.run < standing.task.entry.run;
    (behind && !leased && !found.is_at(&standing.task.entry)).then_some(found.run)
}

#[cfg(test)]
#[path = "reverse_tests.rs"]
mod tests;
