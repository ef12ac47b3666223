//! The incarnation watch: a queue partition that is new, gone or behind where it was has lost entries, and all that waits is
//! offered again. Runs that are open then get the time to be adopted by their holders; those of holders that died are offered
//! after it, without waiting for the audit to come round.

use std::{collections::BTreeMap, sync::Arc};

use oxcart_proto::pb::dispatcher::v1::PartitionInfo;
use oxcart_service::reconcile::Progress;
use oxcart_types::TaskId;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{StateGuard, SweepError, audit::look, decide::waits, resync::offer_missing, settings, walk::Walk};
use crate::core::Core;

/// Where the partitions as last seen are kept.
const CURSOR: &str = "submission.partitions";

/// Open runs that a resync remembers; the audit finds the others.
const OPEN_RUNS: usize = 100_000;

/// A partition as last seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    incarnation: String,
    seq: i64,
}

/// Partitions by queue and number.
type Partitions = BTreeMap<String, Seen>;

/// What the watch remembers between passes.
#[derive(Debug, Default)]
pub(super) struct Watch {
    seen: Option<Partitions>,
    walk: Option<Resync>,
    recheck: Option<Recheck>,
}

/// Tasks whose runs were open when their entries were lost.
#[derive(Debug)]
struct Recheck {
    /// By then their holders have adopted them, or are dead.
    due: Instant,
    tasks: Vec<TaskId>,
}

/// A resync under way.
#[derive(Debug)]
struct Resync {
    walk: Walk,
    open_runs: Vec<TaskId>,
    /// Remembered when the walk is through: before that, a process that dies begins again.
    then: Partitions,
}

pub(super) async fn pass(core: Arc<Core>, mut state: StateGuard<Watch>) -> Result<Progress, SweepError> {
    if state.walk.is_some() {
        return step(&core, &mut state).await;
    }
    if state.recheck.as_ref().is_some_and(|recheck| recheck.due <= Instant::now()) {
        return recheck(&core, &mut state).await;
    }
    // What was seen stays until something newer was: a dispatcher that is away for a while may come back with less.
    let partitions = core.dispatcher.partitions(&[]).await?;
    let found: Partitions = partitions.iter().cloned().map(read).collect();
    let seen = match &mut state.seen {
        Some(seen) => &*seen,
        unknown => unknown.insert(stored(&core).await?),
    };
    if lost(seen, &found) {
        core.meters.resyncs.inc();
        tracing::warn!("a queue has lost entries; offering all that waits again");
        // First, so that a queue that is paused gives nothing out of what is offered now.
        settings::push(&core, core.store.queues().await?, &partitions).await?;
        let walk = Walk::begin(&core.store, core.clock.now()).await?;
        // What an earlier resync remembered is met again by this one.
        state.walk = Some(Resync { walk, open_runs: Vec::new(), then: found });
        return Ok(Progress::More);
    }
    // Numbers of writes change all the time: only what would be missed after a restart is worth a write.
    if found.iter().any(|(partition, now)| seen.get(partition).is_none_or(|before| before.incarnation != now.incarnation)) {
        remember(&core, &found).await?;
    }
    state.seen = Some(found);
    Ok(Progress::Idle)
}

async fn stored(core: &Core) -> Result<Partitions, SweepError> {
    Ok(core.store.cursor(CURSOR).await?.map_or(Ok(Partitions::new()), |text| serde_json::from_str(&text))?)
}

fn read(partition: PartitionInfo) -> (String, Seen) {
    (format!("{}:{}", partition.queue, partition.partition), Seen { incarnation: partition.incarnation, seq: partition.seq })
}

/// A partition that was never seen has lost nothing: what was before its first sight is the audit's.
fn lost(seen: &Partitions, found: &Partitions) -> bool {
    seen.iter().any(|(partition, before)| match found.get(partition) {
        None => true,
        Some(now) => now.incarnation != before.incarnation || now.seq < before.seq,
    })
}

async fn step(core: &Core, state: &mut Watch) -> Result<Progress, SweepError> {
    let Some(resync) = &mut state.walk else { return Ok(Progress::Idle) };
    let found = resync.walk.step(&core.store, core.clock.now(), core.config.sweep.rows()).await?;
    let (waiting, running): (Vec<_>, Vec<_>) = found.open.iter().partition(|task| waits(task));
    let room = OPEN_RUNS.saturating_sub(resync.open_runs.len());
    resync.open_runs.extend(running.iter().map(|task| task.entry.task).take(room));
    offer_missing(core, "resync", &waiting).await?;
    if !resync.walk.is_over() {
        return Ok(Progress::More);
    }
    remember(core, &resync.then).await?;
    if let Some(Resync { open_runs, then, .. }) = state.walk.take() {
        let due = Instant::now() + core.config.sweep.open_run_age;
        state.recheck = (!open_runs.is_empty()).then_some(Recheck { due, tasks: open_runs });
        state.seen = Some(then);
    }
    Ok(Progress::Idle)
}

/// Offers the runs that are still open and that the dispatcher does not know.
async fn recheck(core: &Core, state: &mut Watch) -> Result<Progress, SweepError> {
    let Some(recheck) = &mut state.recheck else { return Ok(Progress::Idle) };
    let rest = recheck.tasks.len().saturating_sub(core.config.sweep.rows());
    let tasks = core.store.open_tasks(&recheck.tasks[rest..]).await?;
    look(core, "resync", &tasks, core.clock.now()).await?;
    recheck.tasks.truncate(rest);
    if rest == 0 {
        state.recheck = None;
    }
    Ok(Progress::More)
}

async fn remember(core: &Core, partitions: &Partitions) -> Result<(), SweepError> {
    core.store.set_cursor(CURSOR, &serde_json::to_string(partitions)?).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partitions(of: &[(&str, &str, i64)]) -> Partitions {
        let seen = |(name, incarnation, seq): &(&str, &str, i64)| {
            ((*name).to_owned(), Seen { incarnation: (*incarnation).to_owned(), seq: *seq })
        };
        of.iter().map(seen).collect()
    }

    #[test]
    fn a_partition_that_is_new_behind_or_gone_has_lost_entries() {
        let seen = partitions(&[("default:0", "a", 7)]);
        assert!(!lost(&seen, &partitions(&[("default:0", "a", 7), ("other:0", "x", 1)])));
        assert!(lost(&seen, &partitions(&[("default:0", "b", 9)])));
        assert!(lost(&seen, &partitions(&[("default:0", "a", 6)])));
        assert!(lost(&seen, &partitions(&[])));
    }
}
