//! The feeder: where a queue has room again, the best of what waits for it goes in.

use std::sync::Arc;

use oxcart_proto::pb::dispatcher::v1::PartitionInfo;
use oxcart_service::reconcile::Progress;
use oxcart_types::{Limits, QueueName};

use super::SweepError;
use crate::{core::Core, dispatcher::Offered};

pub(super) async fn pass(core: Arc<Core>) -> Result<Progress, SweepError> {
    let queues = core.store.queues_without_room().await?;
    if queues.is_empty() {
        return Ok(Progress::Idle);
    }
    let partitions = core.dispatcher.partitions(&queues).await?;
    let mut more = false;
    for queue in queues {
        let room = room(partitions.iter().filter(|partition| partition.queue == queue.as_str()));
        more |= room > 0 && feed(&core, &queue, room).await?;
    }
    Ok(if more { Progress::More } else { Progress::Idle })
}

/// Entries that a queue may be given: none before it is under half its window, so that each pass moves a good deal.
fn room<'a>(partitions: impl Iterator<Item = &'a PartitionInfo>) -> usize {
    let mut known = false;
    let mut free = 0_i64;
    for partition in partitions {
        known = true;
        let held = partition.ready_count + partition.delayed_count + partition.leased_count;
        if held < partition.window / 2 || held == 0 {
            free += partition.window - held;
        }
    }
    // A queue that the dispatcher does not know is empty.
    if known { usize::try_from(free).unwrap_or_default() } else { Limits::BATCH_ITEMS }
}

/// Moves one batch; true when there may be more.
async fn feed(core: &Core, queue: &QueueName, room: usize) -> Result<bool, SweepError> {
    let limit = room.min(Limits::BATCH_ITEMS);
    let best = core.store.best_without_room(queue, limit).await?;
    let full_batch = best.len() == limit && limit == Limits::BATCH_ITEMS;
    let (rows, entries): (Vec<_>, Vec<_>) = best.into_iter().unzip();
    if entries.is_empty() {
        return Ok(false);
    }
    let answers = core.dispatcher.enqueue(&entries, core.clock.now()).await?;
    let taken: Vec<_> =
        rows.into_iter().zip(answers).filter(|(_, offered)| *offered == Offered::Taken).map(|(row, _)| row).collect();
    core.store.clear_agenda(&taken).await?;
    core.meters.swept("feeder", "enqueue", taken.len());
    Ok(full_batch && taken.len() == limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(window: i64, ready_count: i64) -> PartitionInfo {
        PartitionInfo { window, ready_count, ..PartitionInfo::default() }
    }

    #[test]
    fn only_a_queue_under_half_its_window_is_fed() {
        assert_eq!(room([partition(10, 5)].iter()), 0);
        assert_eq!(room([partition(10, 4)].iter()), 6);
        assert_eq!(room([partition(1, 0)].iter()), 1, "a window of one is fed too");
        assert_eq!(room([].iter()), Limits::BATCH_ITEMS);
    }
}
