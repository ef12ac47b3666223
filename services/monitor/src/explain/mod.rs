//! Explain: what keeps a task from running or ending.
//!
//! * `facts`: what is known, gathered here at a bounded cost: six reads at once, however long the queue is.
//! * `blockers`: from facts to blockers; pure.

mod blockers;
mod facts;

use std::time::Duration;

use oxcart_proto::{
    convert::scalar,
    pb::dispatcher::v1::{EntryKey, GetQueueInfoRequest, InspectTasksRequest},
};
use oxcart_store::{TaskRecord, View};
use oxcart_types::{Run, TaskId};

use self::facts::{EntryFacts, QueueFacts};
pub(crate) use self::{
    blockers::{Blocker, Code, explain},
    facts::Facts,
};
use crate::{error::MonitorError, registry, service::Core};

/// The dispatcher is asked for so long; an answer without it says so.
const PATIENCE: Duration = Duration::from_secs(2);
/// Rows that are counted to tell a position; one that is farther back is told as this.
const COUNTED_ROWS: u64 = 100_000;
/// Workers looked at.
const MAX_WORKERS: usize = 10_000;

/// Gathers what is known of a task.
///
/// # Errors
/// There is no such task, or SQL does not answer. A dispatcher that does not is a fact.
pub(crate) async fn gather(core: &Core, id: TaskId) -> Result<Facts, MonitorError> {
    let task = core.store.get(&[id], View::Basic).await?.into_iter().flatten().next().ok_or(MonitorError::NoTask(id))?;
    let now = core.clock.now();
    let ids = [id];
    let seen_from = registry::earlier(now, core.config.registry.forget_after);
    let (waiting, setting, rows, standings, queue) = tokio::join!(
        core.store.waiting_in_sql(id, COUNTED_ROWS),
        core.store.queue(&task.spec.queue),
        core.store.workers(None, seen_from, MAX_WORKERS),
        core.store.standings(&ids),
        ask(core, &task),
    );
    let lost_after = core.config.registry.lost_after;
    let workers = rows?.iter().map(|row| registry::worker(row, now, lost_after)).collect::<Result<_, _>>()?;
    Ok(Facts {
        now,
        heartbeat_at: standings?.get(&id).and_then(|standing| standing.heartbeat_at),
        waiting: waiting?,
        pause: setting?.and_then(|row| row.pause),
        queue,
        workers,
        task,
    })
}

/// Asks the dispatcher; what keeps it from answering, in words.
async fn ask(core: &Core, task: &TaskRecord) -> Result<QueueFacts, String> {
    let queue = task.spec.queue.to_string();
    let run = task.head.next_run().or_else(|| task.head.latest.map(|latest| latest.run)).unwrap_or(Run::FIRST);
    let key = EntryKey {
        task_id: task.spec.id.to_string(),
        run: scalar::to_run(run),
        queue: queue.clone(),
        priority: i32::from(task.spec.priority.get()),
        fairness_key: task.spec.fairness_key.as_ref().map(ToString::to_string).unwrap_or_default(),
        ..EntryKey::default()
    };
    let (mut inspecting, mut informing) = (core.dispatcher.clone(), core.dispatcher.clone());
    let asked = async {
        tokio::try_join!(
            inspecting.inspect_tasks(InspectTasksRequest { keys: vec![key] }),
            informing.get_queue_info(GetQueueInfoRequest { queues: vec![queue] }),
        )
    };
    let (inspected, info) = match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(answers)) => answers,
        Ok(Err(status)) => return Err(format!("it answered {:?}: {}", status.code(), status.message())),
        Err(_) => return Err(format!("it did not answer within {PATIENCE:?}")),
    };
    let entry = inspected.into_inner().entries.into_iter().next().map(|entry| EntryFacts {
        place: entry.place(),
        deliveries: entry.deliveries,
        ahead: entry.ahead_count,
        remaining: entry.remaining.map(|left| scalar::duration_or_zero(Some(left))),
    });
    let mut facts = QueueFacts { entry, ..QueueFacts::default() };
    for partition in info.into_inner().partitions {
        facts.ready += partition.ready_count;
        facts.held += partition.ready_count + partition.delayed_count + partition.leased_count + partition.quarantined_count;
        facts.window += partition.window;
    }
    Ok(facts)
}
