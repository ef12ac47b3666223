//! Runs that are open in SQL and that nobody runs: for a process that knows that it is the only one.

use oxcart_store::{OpenTask, Store, StoreError, TakeOver};
use oxcart_types::{IdSource, Limits, Timestamp, chain::LatestRun};

use super::walk::Walk;

/// Ends every open run that began before `now`, as lost or as what its task allows; how many there were.
///
/// Only the holder of an exclusive store may call this, before it runs anything: then whoever began those runs is gone, and
/// there is no need to wait until their leases would have run out. Where a run is still alive nothing breaks, but it is done
/// twice.
///
/// # Errors
/// SQL. What was ended until then stays ended.
pub async fn end_orphans(store: &Store, ids: &dyn IdSource, now: Timestamp) -> Result<usize, StoreError> {
    let mut walk = Walk::begin(store, now).await?;
    let mut ended = 0;
    while !walk.is_over() {
        let found = walk.step(store, now, Limits::BATCH_ITEMS).await?;
        let runs: Vec<_> = found.open.iter().filter_map(|task| orphan(task, ids, now)).collect();
        if !runs.is_empty() {
            ended += store.take_over(&runs, now).await?.len();
        }
    }
    if ended > 0 {
        tracing::info!(ended, "an earlier process left runs open; their tasks go on");
    }
    Ok(ended)
}

/// The open run of a task.
fn orphan(task: &OpenTask, ids: &dyn IdSource, now: Timestamp) -> Option<TakeOver> {
    let LatestRun { run, end: None, .. } = task.head.latest.as_ref()? else { return None };
    Some(TakeOver { task: task.entry.task, run: *run, by: ids.lease_token(), silent_since: now })
}
