//! Writes facts into SQL, by the same guarded steps as everybody else: a second time changes nothing.

use chrono::TimeDelta;
use oxcart_proto::{
    convert::scalar,
    pb::dispatcher::v1::{EntryKey, RemoveTasksRequest, dispatcher_service_client::DispatcherServiceClient},
};
use oxcart_store::{
    Store,
    model::{Close, CloseOutcome, TakeOver, TakeOverOutcome, View},
};
use oxcart_types::{EndKind, Failure, FailureKind, Run, Timestamp};
use tonic::transport::Channel;

use super::fact::{Fact, FactKind};
use crate::error::MonitorError;

/// What became of a fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// This call wrote it.
    Recorded(EndKind),
    /// SQL knew better: the run or the task was over, or never began.
    Known,
    /// The run shows life, or another one is open: look again later.
    TooYoung,
}

/// Writes facts.
pub(super) struct Writer {
    pub(super) store: Store,
    pub(super) dispatcher: DispatcherServiceClient<Channel>,
    /// A run whose start and last heartbeat are older than this is lost when its lease ran out.
    pub(super) silence: TimeDelta,
}

impl Writer {
    /// Writes facts, in order; the answers are in their order, too.
    pub(super) async fn write(&self, facts: &[Fact], now: Timestamp) -> Result<Vec<Written>, MonitorError> {
        let silent_since = now.checked_sub_signed(self.silence).unwrap_or(now);
        // Both kinds begin with the end of the run that the entry names: poison may have an open run, too.
        let runs: Vec<_> =
            facts.iter().map(|fact| TakeOver { task: fact.task, run: fact.run, by: fact.by, silent_since }).collect();
        let outcomes = self.store.take_over(&runs, now).await?;
        let mut written = Vec::with_capacity(facts.len());
        for (fact, outcome) in facts.iter().zip(outcomes) {
            written.push(match (fact.kind, outcome) {
                (_, TakeOverOutcome::TooYoung) => Written::TooYoung,
                (FactKind::Reaped, TakeOverOutcome::Ended(kind)) => Written::Recorded(kind),
                (FactKind::Reaped, TakeOverOutcome::Over(_) | TakeOverOutcome::NoRun) => Written::Known,
                // The task has ended by the very run that was quarantined. It may have been replayed since.
                (FactKind::Quarantined, TakeOverOutcome::Over(kind)) if kind.is_terminal() => {
                    self.remove(fact).await?;
                    Written::Known
                }
                (FactKind::Quarantined, TakeOverOutcome::Ended(_) | TakeOverOutcome::Over(_)) => {
                    self.close(fact, fact.run.next(), now).await?
                }
                (FactKind::Quarantined, TakeOverOutcome::NoRun) => self.close(fact, fact.run, now).await?,
            });
        }
        Ok(written)
    }

    /// Closes the slot of `run`: a fact that is told late must not close one that came after it.
    async fn close(&self, fact: &Fact, run: Run, now: Timestamp) -> Result<Written, MonitorError> {
        let message = format!("run {} was given out too often without a start; its entry was quarantined", fact.run);
        let failure = Failure::new(FailureKind::POISON, message).fatal();
        let close = Close { task: fact.task, run: Some(run), kind: EndKind::Failed, by: fact.by, failure, at: now };
        let written = match self.store.close(&close).await? {
            CloseOutcome::Closed(_) => Written::Recorded(EndKind::Failed),
            CloseOutcome::Running(_) => return Ok(Written::TooYoung),
            CloseOutcome::Ended(_) => Written::Known,
            CloseOutcome::Moved(_) | CloseOutcome::NoTask => return Ok(Written::Known),
        };
        self.remove(fact).await?;
        Ok(written)
    }

    /// Takes the entry out of quarantine: its task has ended.
    async fn remove(&self, fact: &Fact) -> Result<(), MonitorError> {
        let Some(task) = self.store.get(&[fact.task], View::Basic).await?.into_iter().flatten().next() else { return Ok(()) };
        let key = EntryKey {
            task_id: fact.task.to_string(),
            run: scalar::to_run(fact.run),
            queue: task.spec.queue.to_string(),
            priority: i32::from(task.spec.priority.get()),
            fairness_key: task.spec.fairness_key.map(|key| key.to_string()).unwrap_or_default(),
            ..EntryKey::default()
        };
        let request = RemoveTasksRequest { keys: vec![key], reason: "quarantined".to_owned(), ..Default::default() };
        self.dispatcher.clone().remove_tasks(request).await.map_err(|status| MonitorError::Dispatcher(Box::new(status)))?;
        Ok(())
    }
}
