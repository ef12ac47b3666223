//! What all parts of the service share.

use std::sync::Arc;

use oxcart_store::{Accepted, Entry, Store, SubmitUnit, TaskRecord};
use oxcart_types::{Clock, IdSource, Limits, Run};
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    backlog::{self, Backlogs},
    cancel::Canceller,
    commit::Committer,
    config::Config,
    dispatcher::Dispatcher,
    error::Error,
    handoff::Handoffs,
    metrics::Meters,
    reader::Reader,
    replay::Replayer,
    wait::Waiters,
};

/// What all parts of the service share.
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) limits: Limits,
    pub(crate) store: Store,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn IdSource>,
    pub(crate) meters: Meters,
    pub(crate) backlogs: Backlogs,
    pub(crate) committer: Committer,
    pub(crate) handoffs: Handoffs,
    pub(crate) reader: Reader,
    pub(crate) replayer: Replayer,
    pub(crate) waiters: Waiters,
    pub(crate) canceller: Canceller,
    /// Ends the sleep of the sweeper of operations.
    pub(crate) operations_wake: Arc<Notify>,
    /// Steps that outlive the call that began them.
    pub(crate) tracker: TaskTracker,
    /// Held by the verification that is under way.
    pub(crate) verifying: Arc<tokio::sync::Mutex<()>>,
    /// Cancelled when the service goes down: streams and waits end.
    pub(crate) stopping: CancellationToken,
}

impl Core {
    /// Commits a unit. What a `Replace` key cancelled is taken out of its queue.
    pub(crate) async fn submit(self: &Arc<Self>, unit: SubmitUnit) -> Result<Vec<Accepted>, Error> {
        self.backlogs.check(&unit)?;
        let queues: Vec<_> = backlog::by_queue(&unit).into_iter().map(|(queue, tasks)| (queue.clone(), tasks)).collect();
        let accepted = self.committer.commit(unit).await?;
        self.backlogs.add(queues);
        for (task, run) in accepted.iter().filter_map(|accepted| accepted.replaced) {
            let core = Arc::clone(self);
            self.tracker.spawn(async move {
                // Best effort: an entry that stays costs a delivery that is dropped.
                if let Ok(Some(record)) = core.reader.basic(task).await {
                    core.remove(&entry_of(&record), run, None).await;
                    core.waiters.changed(task);
                }
            });
        }
        Ok(accepted)
    }

    /// Runs a step in a task of its own, so that a call that is dropped does not leave it half done.
    pub(crate) async fn detached<T: Send + 'static>(
        &self,
        step: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        self.tracker.spawn(step).await?
    }

    /// Takes an entry out of its queue; best effort.
    pub(crate) async fn remove(&self, entry: &Entry, run: Run, notify: Option<(String, std::time::Duration)>) {
        if let Err(error) = self.dispatcher.remove(entry, run, notify).await {
            tracing::debug!(task = %entry.task, error = oxcart_service::status::chain(&error), "an entry stays in its queue");
        }
    }
}

/// What the dispatcher needs to know of a task that was read: its newest run, or the first.
pub(crate) fn entry_of(record: &TaskRecord) -> Entry {
    Entry {
        task: record.spec.id,
        run: record.head.latest.map_or(Run::FIRST, |latest| latest.run),
        queue: record.spec.queue.clone(),
        priority: record.spec.priority,
        fairness_key: record.spec.fairness_key.clone(),
        due_at: None,
    }
}
