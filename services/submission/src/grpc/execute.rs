//! ExecuteTask: submit and wait.

use std::{sync::Arc, time::Duration};

use oxcart_proto::{convert::task::to_task, pb::submission::v1 as pb};
use oxcart_service::telemetry::propagation::TraceContext;
use oxcart_store::View;
use oxcart_types::TaskId;
use tokio::{sync::oneshot, time::Instant};
use tonic::{Status, metadata::MetadataValue};

use super::trace;
use crate::{core::Core, error::Error, wait::Until};

/// Metadata of an answer: the task that goes on after its caller's deadline or a failed wait.
const TASK_ID: &str = "oxcart-task-id";
/// Left of the caller's time for the answer to get there.
const MARGIN: Duration = Duration::from_millis(200);
/// Longest wait for a caller that names no deadline.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// Time that a run gets when its caller is gone.
const GRACE: Duration = Duration::from_secs(30);

pub(super) async fn execute(
    core: &Arc<Core>,
    request: pb::ExecuteTaskRequest,
    timeout: Option<Duration>,
    trace: Option<TraceContext>,
) -> Result<pb::ExecuteTaskResponse, Status> {
    let deadline = Instant::now() + timeout.map_or(LONGEST, |timeout| timeout.saturating_sub(MARGIN.min(timeout / 10)));
    let mut unit = core.admit_one(request.task, &request.request_id).map_err(Error::Invalid)?;
    let _spans = trace::join(&mut unit, trace.as_ref());
    // In a task of its own, so that a caller who goes away during the commit leaves a task that is known, and can be cancelled.
    let (known, submitted) = oneshot::channel();
    let committing = {
        let core = Arc::clone(core);
        core.tracker.clone().spawn(async move {
            let outcome = core.submit(unit).await.map(|accepted| accepted.first().map(|task| task.id));
            let _ = known.send(outcome.as_ref().ok().copied().flatten());
            outcome
        })
    };
    let mut guard = Disconnected { core: Arc::clone(core), armed: request.cancel_on_disconnect, task: Some(submitted), id: None };
    let id = committing.await.map_err(Error::from)?.map_err(Error::of_one_task)?.ok_or(Error::Unanswered)?;
    guard.id = Some(id);
    let failed = match core.wait(id, &Until::Done, View::Full, deadline).await {
        Ok((record, true)) => {
            guard.armed = false;
            return Ok(pb::ExecuteTaskResponse { task: Some(to_task(record, View::Full)) });
        }
        Ok((_, false)) if core.stopping.is_cancelled() => Error::ShuttingDown,
        Ok((_, false)) => Error::Deadline,
        Err(error) => error,
    };
    // Only the caller's deadline counts as his leave. What fails here is no reason to cancel: he may ask for the task again, or
    // wait for it elsewhere.
    guard.armed &= matches!(failed, Error::Deadline);
    let mut status = Status::from(failed);
    if let Ok(id) = MetadataValue::try_from(id.to_string()) {
        status.metadata_mut().insert(TASK_ID, id);
    }
    Err(status)
}

/// Cancels the task when the call is dropped before its answer.
struct Disconnected {
    core: Arc<Core>,
    armed: bool,
    task: Option<oneshot::Receiver<Option<TaskId>>>,
    id: Option<TaskId>,
}

impl Drop for Disconnected {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let (core, task, id) = (Arc::clone(&self.core), self.task.take(), self.id);
        self.core.tracker.spawn(async move {
            let id = match (id, task) {
                (None, Some(task)) => task.await.ok().flatten(),
                (id, _) => id,
            };
            let Some(id) = id else { return };
            match core.cancel(id, "the caller went away".to_owned(), GRACE).await {
                Ok(_) | Err(Error::Finished(..)) => {}
                Err(error) => tracing::warn!(task = %id, %error, "a task goes on without its caller"),
            }
        });
    }
}
