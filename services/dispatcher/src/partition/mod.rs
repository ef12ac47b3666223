//! A queue partition as this replica keeps it moving: coalesced engine calls, the granter, the reconciler.

mod calls;
pub(crate) mod granter;
mod keeper;
mod spread;

use std::sync::Arc;

use oxcart_queue::{Complete, Enqueue, EnqueueStatus, Extend, ExtendCause, LeaseStatus, Partition, Release, Remove, RemoveStatus};
use tokio::sync::Notify;
use tracing::Instrument as _;

use self::calls::{Calls, calls};
use crate::core::Core;

/// One queue partition.
pub(crate) struct Lane {
    /// Which.
    pub(crate) partition: Partition,
    /// Wakes the granter.
    pub(crate) wake: Notify,
    /// Wakes the keeper.
    pub(crate) tick: Notify,
    enqueue: Calls<Enqueue, EnqueueStatus>,
    start: Calls<Extend, LeaseStatus>,
    heartbeat: Calls<Extend, LeaseStatus>,
    complete: Calls<Complete, LeaseStatus>,
    release: Calls<Release, LeaseStatus>,
    remove: Calls<Remove, RemoveStatus>,
}

impl Lane {
    /// Makes the lane and starts its loops, which end when the dispatcher drains.
    pub(crate) fn start(core: &Arc<Core>, partition: Partition) -> Arc<Self> {
        let extend = |cause: ExtendCause, name| {
            calls(
                core,
                &partition,
                name,
                |item: &Extend| item.key.task,
                move |core, partition, items| Box::pin(async move { core.engine.extend(&partition, cause, &items).await }),
            )
        };
        let lane = Arc::new(Self {
            wake: Notify::new(),
            tick: Notify::new(),
            enqueue: calls(
                core,
                &partition,
                "enqueue",
                |item: &Enqueue| item.key.task,
                |core, partition, items| Box::pin(async move { core.engine.enqueue(&partition, &items).await }),
            ),
            start: extend(ExtendCause::Started, "start"),
            heartbeat: extend(ExtendCause::Heartbeat, "heartbeat"),
            complete: calls(
                core,
                &partition,
                "complete",
                |item: &Complete| item.task,
                |core, partition, items| Box::pin(async move { core.engine.complete(&partition, &items).await }),
            ),
            release: calls(
                core,
                &partition,
                "release",
                |item: &Release| item.task,
                |core, partition, items| Box::pin(async move { core.engine.release(&partition, &items).await }),
            ),
            remove: calls(
                core,
                &partition,
                "remove",
                |item: &Remove| item.key.task,
                |core, partition, items| Box::pin(async move { core.engine.remove(&partition, &items).await }),
            ),
            partition,
        });
        let span = tracing::info_span!("partition", queue = %lane.partition.queue, partition = lane.partition.number);
        core.tasks.spawn(granter::run(Arc::clone(core), Arc::clone(&lane)).instrument(span.clone()));
        core.tasks.spawn(keeper::run(Arc::clone(core), Arc::clone(&lane)).instrument(span));
        lane
    }

    /// Puts entries in; `None` when the partition could not be reached.
    pub(crate) async fn enqueue(&self, core: &Core, items: Vec<Enqueue>) -> Option<Vec<EnqueueStatus>> {
        let delayed = items.iter().any(|item| !item.delay.is_zero());
        let statuses = self.enqueue.call(items).await?;
        core.metrics.enqueued(&statuses);
        self.wake.notify_one();
        if delayed {
            self.tick.notify_one();
        }
        Some(statuses)
    }

    /// Extends leases; `None` when the partition could not be reached.
    pub(crate) async fn extend(&self, core: &Core, cause: ExtendCause, items: Vec<Extend>) -> Option<Vec<LeaseStatus>> {
        let statuses = match cause {
            ExtendCause::Started => self.start.call(items).await?,
            ExtendCause::Heartbeat => self.heartbeat.call(items).await?,
        };
        core.metrics.reported(statuses.iter().copied());
        Some(statuses)
    }

    /// Ends leases; `None` when the partition could not be reached.
    pub(crate) async fn complete(&self, core: &Core, items: Vec<Complete>) -> Option<Vec<LeaseStatus>> {
        let statuses = self.complete.call(items).await?;
        core.metrics.reported(statuses.iter().copied());
        Some(statuses)
    }

    /// Gives leases back; `None` when the partition could not be reached.
    pub(crate) async fn release(&self, core: &Core, items: Vec<Release>) -> Option<Vec<LeaseStatus>> {
        let statuses = self.release.call(items).await?;
        core.metrics.reported(statuses.iter().copied());
        self.wake.notify_one();
        self.tick.notify_one();
        Some(statuses)
    }

    /// Takes entries out; `None` when the partition could not be reached.
    pub(crate) async fn remove(&self, items: Vec<Remove>) -> Option<Vec<RemoveStatus>> {
        self.remove.call(items).await
    }
}
