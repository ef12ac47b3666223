//! The settings sweep: what the dispatcher missed of the settings of queues, or lost with Redis, it hears again.

use std::{collections::HashMap, sync::Arc};

use oxcart_proto::pb::dispatcher::v1::PartitionInfo;
use oxcart_service::reconcile::Progress;
use oxcart_store::QueueRow;
use oxcart_types::Limits;

use super::SweepError;
use crate::core::Core;

pub(super) async fn pass(core: Arc<Core>) -> Result<Progress, SweepError> {
    let rows = core.store.queues().await?;
    if !rows.is_empty() {
        let partitions = core.dispatcher.partitions(&[]).await?;
        push(&core, rows, &partitions).await?;
    }
    Ok(Progress::Idle)
}

/// Brings the partitions to the settings that SQL has, given how they stand.
pub(super) async fn push(core: &Core, rows: Vec<QueueRow>, partitions: &[PartitionInfo]) -> Result<(), SweepError> {
    let mut applied: HashMap<&str, Revisions> = HashMap::new();
    for partition in partitions {
        let revision = u64::try_from(partition.settings_revision).unwrap_or_default();
        let seen = applied.entry(&partition.queue).or_insert(Revisions { lowest: revision, highest: revision });
        *seen = Revisions { lowest: seen.lowest.min(revision), highest: seen.highest.max(revision) };
    }
    let mut behind = Vec::new();
    for row in rows {
        match standing(&row, applied.get(row.queue.as_str()).copied()) {
            Standing::Applied => {}
            Standing::Behind => behind.push(row),
            Standing::Ahead(revision) => behind.extend(core.store.lift_queue(&row.queue, revision, core.clock.now()).await?),
        }
    }
    for rows in behind.chunks(Limits::BATCH_ITEMS) {
        core.dispatcher.configure(rows).await?;
    }
    Ok(())
}

/// Revisions that the partitions of a queue have.
#[derive(Debug, Clone, Copy)]
struct Revisions {
    lowest: u64,
    highest: u64,
}

/// How the dispatcher stands to a row.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    Applied,
    Behind,
    /// It has this later revision: SQL, which owns the settings, was set back.
    Ahead(u64),
}

fn standing(row: &QueueRow, applied: Option<Revisions>) -> Standing {
    match applied {
        // Of a queue that was never used only a pause is worth telling.
        None if row.pause.is_some() => Standing::Behind,
        None => Standing::Applied,
        Some(seen) if seen.highest > row.revision => Standing::Ahead(seen.highest),
        Some(seen) if seen.lowest < row.revision => Standing::Behind,
        Some(_) => Standing::Applied,
    }
}

#[cfg(test)]
mod tests {
    use oxcart_store::Pause;
    use oxcart_types::{Clock as _, SystemClock};

    use super::*;

    #[test]
    fn partitions_are_told_what_they_do_not_have() {
        let now = SystemClock.now();
        let row = |paused: bool| QueueRow {
            queue: "mail".parse().expect("a name"),
            revision: 5,
            pause: paused.then(|| Pause { since: now, by: String::new(), reason: String::new() }),
            created_at: now,
            updated_at: now,
        };
        let seen = |lowest, highest| Some(Revisions { lowest, highest });
        assert_eq!(standing(&row(true), None), Standing::Behind);
        assert_eq!(standing(&row(false), None), Standing::Applied);
        assert_eq!(standing(&row(false), seen(5, 5)), Standing::Applied);
        assert_eq!(standing(&row(false), seen(0, 5)), Standing::Behind);
        assert_eq!(standing(&row(true), seen(4, 4)), Standing::Behind);
        assert_eq!(standing(&row(true), seen(0, 6)), Standing::Ahead(6));
    }
}
