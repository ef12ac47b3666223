//! Updates of tasks that wait.

use std::sync::Arc;

use oxcart_store::{TaskRecord, UpdateOutcome};
use oxcart_types::{TaskChanges, TaskId, Violations};

use crate::{admission::add, core::Core, error::Error, handoff::Handoff};

impl Core {
    /// Changes a task of which no run is open. Goes on when the caller goes away.
    pub(crate) async fn update(
        self: &Arc<Self>,
        task: TaskId,
        changes: TaskChanges,
        etag: Option<String>,
    ) -> Result<TaskRecord, Error> {
        let core = Arc::clone(self);
        self.detached(async move {
            core.change(task, &changes, etag.as_deref()).await?;
            core.waiters.changed(task);
            core.reader.basic(task).await?.ok_or(Error::NoTask(task))
        })
        .await
    }

    async fn change(&self, task: TaskId, changes: &TaskChanges, etag: Option<&str>) -> Result<(), Error> {
        let now = self.clock.now();
        let (by, handoff) = (self.ids.lease_token(), self.ids.handoff_id());
        match self.store.update(task, changes, etag, by, handoff, now, add(now, self.config.horizon)).await? {
            UpdateOutcome::Updated { closed, before, after, handoff } => {
                // An entry that stays costs a delivery that is refused: the slot of its run is closed.
                self.remove(&before, closed, None).await;
                if let Some(id) = handoff {
                    self.handoffs.push(Handoff { id, entries: vec![*after] });
                }
                Ok(())
            }
            UpdateOutcome::Running => Err(Error::Running(task)),
            UpdateOutcome::Ended(kind) => Err(Error::Finished(task, kind)),
            UpdateOutcome::Changed => Err(Error::Changed(task)),
            UpdateOutcome::Invalid(part) => {
                let mut bad = Violations::new();
                bad.nest("spec", part);
                Err(bad.into())
            }
            UpdateOutcome::NoTask => Err(Error::NoTask(task)),
        }
    }
}
