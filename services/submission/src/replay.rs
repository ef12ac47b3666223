//! Replays of finished tasks: what arrives while one batch is in flight is the next.

use std::sync::Arc;

use oxcart_service::coalesce::{Batcher, BatcherOptions, SubmitError};
use oxcart_store::{Entry, Replay, ReplayOutcome, Store, StoreError, TaskRecord};
use oxcart_types::{Clock, IdSource, Limits, ReplaySpec, RequestId, TaskId, Timestamp};

use crate::{
    core::Core,
    error::Error,
    handoff::{Handoff, Handoffs},
    metrics::Meters,
};

type Answer = Result<ReplayOutcome, Arc<StoreError>>;

/// What a batch of replays needs.
#[derive(Clone)]
pub(crate) struct ReplayDeps {
    pub(crate) store: Store,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn IdSource>,
    pub(crate) handoffs: Handoffs,
    pub(crate) meters: Meters,
}

/// Takes replays, and hands off what they open. Clones share the batches.
#[derive(Clone)]
pub(crate) struct Replayer(Batcher<Replay, Answer>);

impl Replayer {
    /// `waiting` replays may wait at once.
    pub(crate) fn spawn(waiting: usize, deps: ReplayDeps) -> Self {
        let options = BatcherOptions { max_batch: Limits::BATCH_ITEMS, max_waiting: waiting, lanes: 1 };
        Self(Batcher::spawn(options, move |replays| write(deps.clone(), replays)))
    }

    async fn replay(&self, replay: Replay) -> Result<ReplayOutcome, Error> {
        match self.0.submit(replay).await {
            Ok(answer) => Ok(answer?),
            Err(SubmitError::Busy) => Err(Error::Busy),
            Err(SubmitError::Unanswered) => Err(Error::Unanswered),
        }
    }
}

async fn write(deps: ReplayDeps, replays: Vec<Replay>) -> Vec<Answer> {
    let handoff = deps.ids.handoff_id();
    match deps.store.replay(&replays, handoff, deps.clock.now()).await {
        Ok(outcomes) => {
            let entries: Vec<Entry> = outcomes.iter().filter_map(opened).cloned().collect();
            deps.meters.replayed.inc_by(entries.len() as u64);
            if !entries.is_empty() {
                deps.handoffs.push(Handoff { id: handoff, entries });
            }
            outcomes.into_iter().map(Ok).collect()
        }
        Err(error) => {
            let error = Arc::new(error);
            replays.iter().map(|_| Err(Arc::clone(&error))).collect()
        }
    }
}

fn opened(outcome: &ReplayOutcome) -> Option<&Entry> {
    match outcome {
        ReplayOutcome::Replayed(entry) => Some(entry),
        ReplayOutcome::Known
        | ReplayOutcome::NotFinished
        | ReplayOutcome::Succeeded
        | ReplayOutcome::NoTask
        | ReplayOutcome::RequestReused(_) => None,
    }
}

impl Core {
    /// Replays a finished task; the task as it is then. Goes on when the caller goes away.
    pub(crate) async fn replay(
        self: &Arc<Self>,
        task: TaskId,
        spec: ReplaySpec,
        request: Option<(RequestId, Timestamp)>,
    ) -> Result<TaskRecord, Error> {
        if self.handoffs.unconfirmed() >= self.config.unconfirmed_tasks {
            return Err(Error::Unconfirmed);
        }
        let core = Arc::clone(self);
        self.detached(async move {
            let replay = Replay { task, by: core.ids.lease_token(), spec, request };
            match core.replayer.replay(replay).await? {
                ReplayOutcome::Replayed(_) => core.waiters.changed(task),
                ReplayOutcome::Known => {}
                ReplayOutcome::NotFinished => return Err(Error::NotFinished(task)),
                ReplayOutcome::Succeeded => return Err(Error::Succeeded(task)),
                ReplayOutcome::NoTask => return Err(Error::NoTask(task)),
                ReplayOutcome::RequestReused(request) => return Err(Error::RequestReused(request)),
            }
            core.reader.basic(task).await?.ok_or(Error::NoTask(task))
        })
        .await
    }
}
