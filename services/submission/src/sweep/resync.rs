//! Offering what the dispatcher does not have.

use oxcart_store::{Entry, OpenTask};

use super::SweepError;
use crate::{
    core::Core,
    dispatcher::{Missing, Offered},
    handoff::no_room,
};

/// Asks which of these tasks are missing, and offers them. At most 1000.
pub(super) async fn offer_missing(core: &Core, sweeper: &'static str, tasks: &[&OpenTask]) -> Result<Missing, SweepError> {
    let found = core.dispatcher.find_missing(tasks.iter().map(|task| &task.entry)).await?;
    let entries: Vec<Entry> =
        tasks.iter().filter(|task| found.missing.contains(&task.entry.task)).map(|task| task.entry.clone()).collect();
    if entries.is_empty() {
        return Ok(found);
    }
    let now = core.clock.now();
    let answers = core.dispatcher.enqueue(&entries, now).await?;
    let taken = answers.iter().filter(|&&offered| offered == Offered::Taken).count();
    core.meters.swept(sweeper, "enqueue", taken);
    let spilled: Vec<_> = entries
        .iter()
        .zip(&answers)
        .filter(|(_, offered)| **offered == Offered::NoRoom)
        .map(|(entry, _)| no_room(entry, now))
        .collect();
    if !spilled.is_empty() {
        core.store.set_agenda(&spilled).await?;
        core.meters.swept(sweeper, "spill", spilled.len());
    }
    Ok(found)
}
