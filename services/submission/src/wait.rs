//! Waiting for tasks: the journal says when to look, SQL says what is.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use oxcart_proto::pb::dispatcher::v1::{JournalEntry, Transition, stream_journal_response::Message};
use oxcart_service::status;
use oxcart_store::{TaskRecord, View};
use oxcart_types::TaskId;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{core::Core, dispatcher::Dispatcher, error::Error, metrics::Meters};

/// Between two tries to open the journal. Waiters read SQL all the same.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// What a caller waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Until {
    /// A terminal state.
    Done,
    /// Another etag.
    Changed(String),
}

impl Until {
    fn holds(&self, task: &TaskRecord) -> bool {
        match self {
            Self::Done => task.state.is_terminal(),
            Self::Changed(known) => task.etag() != *known,
        }
    }
}

struct Waited {
    /// Anything happened.
    changed: watch::Sender<()>,
    /// The task may have ended.
    ended: watch::Sender<()>,
    calls: usize,
}

/// The calls that wait, by task. Clones share them.
#[derive(Clone)]
pub(crate) struct Waiters(Arc<Inner>);

struct Inner {
    tasks: Mutex<Tasks>,
    max_calls: usize,
    meters: Meters,
}

#[derive(Default)]
struct Tasks {
    waited: HashMap<TaskId, Waited>,
    calls: usize,
}

/// A call that waits; leaves when it is dropped.
struct Waiting {
    waiters: Waiters,
    task: TaskId,
    signal: watch::Receiver<()>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.waiters.leave(self.task);
    }
}

impl Waiters {
    pub(crate) fn new(max_calls: usize, meters: Meters) -> Self {
        Self(Arc::new(Inner { tasks: Mutex::default(), max_calls, meters }))
    }

    fn enter(&self, task: TaskId, until: &Until) -> Result<Waiting, Error> {
        let mut tasks = self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if tasks.calls >= self.0.max_calls {
            return Err(Error::TooManyWaiters);
        }
        tasks.calls += 1;
        self.0.meters.waiters.inc();
        let waited = tasks.waited.entry(task).or_insert_with(|| Waited {
            changed: watch::Sender::new(()),
            ended: watch::Sender::new(()),
            calls: 0,
        });
        waited.calls += 1;
        let signal = match until {
            Until::Done => waited.ended.subscribe(),
            Until::Changed(_) => waited.changed.subscribe(),
        };
        Ok(Waiting { waiters: self.clone(), task, signal })
    }

    fn leave(&self, task: TaskId) {
        let mut tasks = self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.calls -= 1;
        self.0.meters.waiters.dec();
        if let Some(waited) = tasks.waited.get_mut(&task) {
            waited.calls -= 1;
            if waited.calls == 0 {
                tasks.waited.remove(&task);
            }
        }
    }

    /// This process changed a task.
    pub(crate) fn changed(&self, task: TaskId) {
        self.signal(task, true);
    }

    fn signal(&self, task: TaskId, ended: bool) {
        let tasks = self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waited) = tasks.waited.get(&task) {
            waited.changed.send_replace(());
            if ended {
                waited.ended.send_replace(());
            }
        }
    }

    fn heard(&self, entry: &JournalEntry) {
        if let Ok(task) = entry.task_id.parse() {
            self.signal(task, may_have_ended(entry.transition()));
        }
    }

    /// After a gap everybody looks.
    fn everybody(&self) {
        let tasks = self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        for waited in tasks.waited.values() {
            waited.changed.send_replace(());
            waited.ended.send_replace(());
        }
    }

    /// Follows the journal until `stopping`.
    pub(crate) async fn follow(&self, dispatcher: &Dispatcher, stopping: &CancellationToken) {
        let mut cursor = String::new();
        while !stopping.is_cancelled() {
            tokio::select! {
                () = self.read_journal(dispatcher, &mut cursor) => {}
                () = stopping.cancelled() => return,
            }
            tokio::select! {
                () = tokio::time::sleep(REOPEN_AFTER) => {}
                () = stopping.cancelled() => return,
            }
        }
    }

    async fn read_journal(&self, dispatcher: &Dispatcher, cursor: &mut String) {
        let mut stream = match dispatcher.journal(cursor.clone()).await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(error = status::chain(&error), "no journal; waiters read SQL");
                // A cursor that is refused would be refused for ever.
                cursor.clear();
                return;
            }
        };
        loop {
            match stream.message().await {
                Ok(Some(response)) => {
                    match response.message {
                        Some(Message::Batch(batch)) => batch.entries.iter().for_each(|entry| self.heard(entry)),
                        Some(Message::Gap(_)) => self.everybody(),
                        Some(Message::Progress(_)) | None => {}
                    }
                    *cursor = response.cursor;
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(error = status::chain(&error), "the journal broke off");
                    return;
                }
            }
        }
    }
}

/// Unknown transitions of a newer dispatcher count: a look too many does no harm.
fn may_have_ended(transition: Transition) -> bool {
    match transition {
        Transition::Done
        | Transition::Failed
        | Transition::Cancelled
        | Transition::Dropped
        | Transition::Quarantined
        | Transition::Removed
        | Transition::Unspecified => true,
        Transition::Enqueued
        | Transition::Granted
        | Transition::Started
        | Transition::Retried
        | Transition::Released
        | Transition::Reaped
        | Transition::Adopted => false,
    }
}

impl Core {
    /// Waits until `until` holds or `deadline` has passed; says which, and the task as it is then.
    pub(crate) async fn wait(
        &self,
        task: TaskId,
        until: &Until,
        view: View,
        deadline: Instant,
    ) -> Result<(TaskRecord, bool), Error> {
        let mut waiting = None::<Waiting>;
        loop {
            // Entered before the task is read: what happens in between is not missed.
            if let Some(waiting) = &mut waiting {
                waiting.signal.mark_unchanged();
            }
            let record = self.reader.read(task, view).await?.ok_or(Error::NoTask(task))?;
            if until.holds(&record) {
                return Ok((record, true));
            }
            if Instant::now() >= deadline || self.stopping.is_cancelled() {
                return Ok((record, false));
            }
            let Some(waiting) = &mut waiting else {
                waiting = Some(self.waiters.enter(task, until)?);
                continue;
            };
            let reread = Instant::now() + self.config.reread_period.mul_f64(1.0 + rand::random::<f64>() / 5.0);
            tokio::select! {
                _ = waiting.signal.changed() => {}
                () = tokio::time::sleep_until(reread.min(deadline)) => {}
                () = self.stopping.cancelled() => {}
            }
        }
    }
}
