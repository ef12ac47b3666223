//! A queue partition as this replica keeps it moving: coalesced engine calls, the granter, the reconciler.

mod calls;
mod deal;
pub(crate) mod granter;
mod keeper;

use std::sync::{Arc, Mutex, PoisonError};

use oxcart_queue::{
    Complete, Enqueue, EnqueueStatus, Extend, ExtendCause, LeaseStatus, Partition, Release, Remove, RemoveStatus, Settings,
};
use oxcart_service::reconcile::ReconcilerSpec;
use tokio::sync::Notify;

use self::{
    calls::{Calls, calls},
    granter::Granter,
};
use crate::core::Core;

/// Names of the reconcilers of a partition, in logs and metrics.
const GRANTER: &str = "granter";
const KEEPER: &str = "keeper";

/// One queue partition.
pub(crate) struct Lane {
    /// Which.
    pub(crate) partition: Partition,
    /// Wakes the granter.
    pub(crate) wake: Arc<Notify>,
    /// Wakes the keeper.
    pub(crate) tick: Arc<Notify>,
    /// The newest settings that this replica has heard of: they outlive a partition that is lost.
    settings: Mutex<Settings>,
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
            wake: Arc::default(),
            tick: Arc::default(),
            settings: Mutex::default(),
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
        lane.keep_moving(core);
        lane
    }

    fn keep_moving(self: &Arc<Self>, core: &Arc<Core>) {
        let span = tracing::info_span!("partition", queue = %self.partition.queue, partition = self.partition.number);
        let period = core.config.tick_period;
        let granter = Arc::new(Granter::new(Arc::clone(core), Arc::clone(self)));
        let grants = ReconcilerSpec { name: GRANTER, period: period.max(core.config.grant_poll), wake: Arc::clone(&self.wake) };
        core.reconcile(grants, &span, move || {
            let granter = Arc::clone(&granter);
            async move { granter.pass().await }
        });
        let (core_again, lane) = (Arc::clone(core), Arc::clone(self));
        let ticks = ReconcilerSpec { name: KEEPER, period, wake: Arc::clone(&self.tick) };
        core.reconcile(ticks, &span, move || {
            let (core, lane) = (Arc::clone(&core_again), Arc::clone(&lane));
            async move { keeper::pass(&core, &lane).await }
        });
    }

    /// The newest settings that this replica has heard of.
    pub(crate) fn settings(&self) -> Settings {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers settings, unless newer ones are known.
    pub(crate) fn learn(&self, heard: Settings) {
        let mut known = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.revision > known.revision {
            *known = heard;
        }
    }

    /// Puts entries in; `None` when the partition could not be reached.
    pub(crate) async fn enqueue(&self, core: &Core, items: Vec<Enqueue>) -> Option<Vec<EnqueueStatus>> {
        let delayed = items.iter().any(|item| !item.delay.is_zero());
        let statuses = self.enqueue.call(items).await?;
        // The engine announces what became ready, which wakes the granter.
        core.metrics.enqueued(&statuses);
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
        self.tick.notify_one();
        Some(statuses)
    }

    /// Takes entries out; `None` when the partition could not be reached.
    pub(crate) async fn remove(&self, items: Vec<Remove>) -> Option<Vec<RemoveStatus>> {
        self.remove.call(items).await
    }
}
