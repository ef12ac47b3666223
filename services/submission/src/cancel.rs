//! Cancels, in batches: slots that are closed, and requests to runs that are open.

use std::{collections::HashMap, sync::Arc, time::Duration};

use oxcart_service::{
    coalesce::{Batcher, BatcherOptions, SubmitError},
    status,
};
use oxcart_store::{Cancel, CancelOutcome, CancelTask, Entry, Store, StoreError, TaskRecord};
use oxcart_types::{EndKind, Failure, FailureKind, LeaseToken, Run, TaskId, TaskState, Timestamp};

use crate::{core::Core, dispatcher::Dispatcher, error::Error, wait::Waiters};

/// Tasks of one batch: few enough that whoever waits for the writer of SQLite meanwhile does not wait for long.
pub(crate) const BATCH: usize = 200;

/// What a cancel came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cancelled {
    /// No run will start.
    Acknowledged,
    /// A run is open and is asked to stop.
    Requested,
}

/// What became of one task of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Done {
    /// By this cancel: no run will start.
    Cancelled,
    /// A run is open, and is asked to stop; no other one will start.
    Requested,
    /// It had ended, or a run that was open ended so before it could be stopped.
    Ended(EndKind),
    /// There is no such task.
    NoTask,
}

impl Done {
    const fn of(outcome: &CancelOutcome) -> Self {
        match outcome {
            CancelOutcome::Closed { .. } => Self::Cancelled,
            CancelOutcome::Requested(_) => Self::Requested,
            CancelOutcome::Ended(kind) => Self::Ended(*kind),
            CancelOutcome::NoTask => Self::NoTask,
        }
    }

    /// Of a task that this cancel had asked to stop a moment before: when it is cancelled now, it is so by this cancel.
    const fn of_stopped(outcome: &CancelOutcome) -> Self {
        match outcome {
            CancelOutcome::Ended(EndKind::Cancelled) => Self::Cancelled,
            outcome => Self::of(outcome),
        }
    }
}

/// Why and how tasks are cancelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reason {
    /// For people.
    pub(crate) reason: String,
    /// More for people: by what.
    pub(crate) detail: String,
    /// Time for running handlers to stop by themselves.
    pub(crate) grace: Duration,
    /// Closer token.
    pub(crate) by: LeaseToken,
}

impl Reason {
    /// The cancel of one task.
    pub(crate) fn task(&self, task: TaskId, now: Timestamp) -> CancelTask {
        let message = if self.reason.is_empty() { "cancelled" } else { &self.reason };
        CancelTask {
            task,
            by: self.by,
            cancel: Cancel { reason: self.reason.clone(), requested_at: now, grace: self.grace },
            failure: Failure::new(FailureKind::CANCELLED, message).with_detail(self.detail.clone()),
        }
    }
}

type Answer = Result<Done, Arc<StoreError>>;

/// Cancels tasks. Clones share the batches.
#[derive(Clone)]
pub(crate) struct Canceller {
    steps: Steps,
    single: Batcher<CancelTask, Answer>,
}

impl Canceller {
    /// `waiting` cancels of single tasks may wait at once.
    pub(crate) fn spawn(store: Store, dispatcher: Dispatcher, waiters: Waiters, waiting: usize) -> Self {
        // A second batch for a single writer would only wait there.
        let lanes = if store.has_one_writer() { 1 } else { 2 };
        let steps = Steps { store, dispatcher, waiters };
        let options = BatcherOptions { max_batch: BATCH, max_waiting: waiting.max(1), lanes };
        let single = {
            let steps = steps.clone();
            Batcher::spawn(options, move |tasks| steps.clone().all(tasks))
        };
        Self { steps, single }
    }

    /// Cancels up to [`BATCH`] tasks; the outcomes are in order.
    pub(crate) async fn cancel(&self, tasks: Vec<CancelTask>) -> Result<Vec<Done>, StoreError> {
        self.steps.cancel(tasks).await
    }

    async fn one(&self, task: CancelTask) -> Result<Done, Error> {
        match self.single.submit(task).await {
            Ok(outcome) => Ok(outcome?),
            Err(SubmitError::Busy) => Err(Error::Busy),
            Err(SubmitError::Unanswered) => Err(Error::Unanswered),
        }
    }
}

#[derive(Clone)]
struct Steps {
    store: Store,
    dispatcher: Dispatcher,
    waiters: Waiters,
}

impl Steps {
    async fn all(self, tasks: Vec<CancelTask>) -> Vec<Answer> {
        let count = tasks.len();
        match self.cancel(tasks).await {
            Ok(outcomes) => outcomes.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(Arc::new(error)); count],
        }
    }

    async fn cancel(&self, tasks: Vec<CancelTask>) -> Result<Vec<Done>, StoreError> {
        if tasks.is_empty() {
            return Ok(Vec::new());
        }
        let outcomes = self.store.cancel_tasks(&tasks).await?;
        self.tell(&tasks, &outcomes, true).await;
        let mut done: Vec<Done> = outcomes.iter().map(Done::of).collect();
        // A run that was open may have ended before it could know of its cancel: then the next slot is free, and is closed now.
        let open: Vec<usize> = (0..tasks.len()).filter(|i| done.get(*i) == Some(&Done::Requested)).collect();
        if !open.is_empty() {
            let again: Vec<CancelTask> = open.iter().filter_map(|i| tasks.get(*i).cloned()).collect();
            let outcomes = self.store.cancel_tasks(&again).await?;
            self.tell(&again, &outcomes, false).await;
            for (i, outcome) in open.into_iter().zip(&outcomes) {
                done[i] = Done::of_stopped(outcome);
            }
        }
        for task in &tasks {
            self.waiters.changed(task.task);
        }
        Ok(done)
    }

    /// Takes closed entries out of their queues, and tells the holders of open runs unless they were told before: best effort. An
    /// entry that stays costs a delivery that is dropped; a holder that is not told reads its cancel with its next heartbeat.
    async fn tell(&self, tasks: &[CancelTask], outcomes: &[CancelOutcome], holders: bool) {
        let mut closed: Vec<(Entry, Run)> = Vec::new();
        let mut open: HashMap<(&str, Duration), Vec<(Entry, Run)>> = HashMap::new();
        for (task, outcome) in tasks.iter().zip(outcomes) {
            match outcome {
                CancelOutcome::Closed { run, entry } => closed.push(((**entry).clone(), *run)),
                CancelOutcome::Requested(running) if holders => {
                    let entry = running.entry.clone();
                    let run = entry.run;
                    open.entry((&task.cancel.reason, task.cancel.grace)).or_default().push((entry, run));
                }
                CancelOutcome::Requested(_) | CancelOutcome::Ended(_) | CancelOutcome::NoTask => {}
            }
        }
        let notices = open.into_iter().map(|((reason, grace), entries)| (entries, Some((reason.to_owned(), grace))));
        for (entries, notify) in std::iter::once((closed, None)).chain(notices) {
            if entries.is_empty() {
                continue;
            }
            if let Err(error) = self.dispatcher.remove_all(&entries, notify).await {
                tracing::debug!(entries = entries.len(), error = status::chain(&error), "entries stay in their queues");
            }
        }
    }
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
            let reason = Reason { reason, detail: String::new(), grace, by: core.ids.lease_token() };
            let outcome = match core.canceller.one(reason.task(task, core.clock.now())).await? {
                Done::Cancelled | Done::Ended(EndKind::Cancelled) => Cancelled::Acknowledged,
                Done::Requested => Cancelled::Requested,
                Done::Ended(kind) => return Err(Error::Finished(task, kind)),
                Done::NoTask => return Err(Error::NoTask(task)),
            };
            let record = core.reader.basic(task).await?.ok_or(Error::NoTask(task))?;
            // A handler that stops at once has ended its run by now: the answer agrees with the task that it shows.
            let outcome = if record.state == TaskState::Cancelled { Cancelled::Acknowledged } else { outcome };
            Ok((outcome, record))
        })
        .await
    }
}
