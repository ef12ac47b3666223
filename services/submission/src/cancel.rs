//! Cancels: a slot that is closed, or a request to the run that is open.

use std::{sync::Arc, time::Duration};

use oxcart_store::{Cancel, Close, CloseOutcome, TaskRecord};
use oxcart_types::{EndKind, Failure, FailureKind, TaskId, TaskState};

use crate::{
    core::{Core, entry_of},
    error::Error,
};

/// A refused slot does not prove that a run is open: it may have ended meanwhile, and the next slot is free.
const TRIES: usize = 8;

/// What a cancel came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cancelled {
    /// No run will start.
    Acknowledged,
    /// A run is open and is asked to stop.
    Requested,
}

impl Core {
    /// Cancels a task. Goes on when the caller goes away.
    pub(crate) async fn cancel(
        self: &Arc<Self>,
        task: TaskId,
        reason: String,
        grace: Duration,
    ) -> Result<(Cancelled, TaskRecord), Error> {
        let core = Arc::clone(self);
        self.detached(async move {
            let outcome = core.close_or_request(task, &reason, grace).await?;
            core.waiters.changed(task);
            let record = core.reader.basic(task).await?.ok_or(Error::NoTask(task))?;
            // A handler that stops at once has ended its run by now: the answer agrees with the task that it shows.
            let outcome = if record.state == TaskState::Cancelled { Cancelled::Acknowledged } else { outcome };
            Ok((outcome, record))
        })
        .await
    }

    async fn close_or_request(&self, task: TaskId, reason: &str, grace: Duration) -> Result<Cancelled, Error> {
        let record = self.reader.basic(task).await?.ok_or(Error::NoTask(task))?;
        let entry = entry_of(&record);
        let now = self.clock.now();
        let failure = Failure::new(FailureKind::CANCELLED, if reason.is_empty() { "cancelled" } else { reason });
        let close = Close { task, run: None, kind: EndKind::Cancelled, by: self.ids.lease_token(), failure, at: now };
        let cancel = Cancel { reason: reason.to_owned(), requested_at: now, grace };
        for _ in 0..TRIES {
            match self.store.close(&close).await? {
                CloseOutcome::Closed(run) => {
                    self.remove(&entry, run, None).await;
                    return Ok(Cancelled::Acknowledged);
                }
                CloseOutcome::Ended(EndKind::Cancelled) => return Ok(Cancelled::Acknowledged),
                CloseOutcome::Ended(kind) => return Err(Error::Finished(task, kind)),
                CloseOutcome::Moved(_) | CloseOutcome::NoTask => return Err(Error::NoTask(task)),
                CloseOutcome::Running(open) => {
                    self.store.request_cancel(task, &cancel).await?;
                    self.remove(&open.entry, open.entry.run, Some((reason.to_owned(), grace))).await;
                    let now = self.reader.basic(task).await?.ok_or(Error::NoTask(task))?;
                    // A run of a replay that came in between is not what the request was written for.
                    if now.state == TaskState::Running && now.cancel.is_some() {
                        return Ok(Cancelled::Requested);
                    }
                }
            }
        }
        // Runs came and went all the time; the request is written, so that the next of them ends as CANCELLED.
        Ok(Cancelled::Requested)
    }
}
