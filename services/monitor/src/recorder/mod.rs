//! The recorder: follows the journal of the dispatcher and writes what must be a fact.
//!
//! The cursor is durable and moves only past entries whose facts are written, so that a recorder that is killed goes on where
//! it was. A part of the journal that is gone is not looked for: the audit of submission finds what it would have told.

mod fact;
mod pending;
mod write;

use std::{sync::Arc, time::Duration};

use chrono::TimeDelta;
use oxcart_proto::{
    convert::scalar,
    pb::dispatcher::v1::{
        StreamJournalRequest, StreamJournalResponse, dispatcher_service_client::DispatcherServiceClient,
        stream_journal_response::Message,
    },
};
use oxcart_store::Store;
use oxcart_types::{Clock, IdSource};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tonic::{Code, transport::Channel};

use self::{
    fact::fact,
    pending::Pending,
    write::{Writer, Written},
};
use crate::{config::RecorderConfig, error::MonitorError, metrics::MonitorMetrics};

/// Name of the durable cursor.
const CURSOR: &str = "monitor.recorder";
/// How often facts that were too young are looked at again, and the cursor is written.
const TICK: Duration = Duration::from_secs(1);
/// Longest wait before the journal is opened again after an error.
const MAX_BACKOFF: Duration = Duration::from_secs(10);

/// Follows the journal until it is told to stop.
pub(crate) struct Recorder {
    pub(crate) store: Store,
    pub(crate) dispatcher: DispatcherServiceClient<Channel>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn IdSource>,
    pub(crate) metrics: MonitorMetrics,
    pub(crate) config: RecorderConfig,
}

/// Where a recorder stands in the journal.
#[derive(Default)]
struct Position {
    /// Everything before this has been looked at.
    read: String,
    /// Everything before this is done, and SQL knows.
    durable: String,
}

impl Recorder {
    /// Runs until `shutdown`.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut backoff = Duration::from_millis(100);
        loop {
            let opened_at = Instant::now();
            let Some(result) = shutdown.run_until_cancelled(self.follow(&shutdown)).await else { return };
            match result {
                Ok(()) if shutdown.is_cancelled() => return,
                Ok(()) => tracing::debug!("the journal stream ended; opening it again"),
                Err(error) => {
                    self.metrics.recorder_errors.inc();
                    tracing::warn!(error = %error, backoff_ms = backoff.as_millis(), "the recorder cannot follow the journal");
                }
            }
            if opened_at.elapsed() > MAX_BACKOFF {
                backoff = Duration::from_millis(100);
            }
            if shutdown.run_until_cancelled(tokio::time::sleep(backoff)).await.is_none() {
                return;
            }
            backoff = (backoff * 2).min(MAX_BACKOFF);
        }
    }

    /// Follows one stream of the journal to its end. What is pending is forgotten with it: the durable cursor lies before.
    async fn follow(&self, shutdown: &CancellationToken) -> Result<(), MonitorError> {
        let silence = TimeDelta::from_std(self.config.silence).unwrap_or(TimeDelta::MAX);
        let writer = Writer { store: self.store.clone(), dispatcher: self.dispatcher.clone(), silence };
        let durable = self.store.cursor(CURSOR).await?.unwrap_or_default();
        let mut position = Position { read: durable.clone(), durable };
        let request =
            StreamJournalRequest { after_cursor: position.read.clone(), from_oldest: position.read.is_empty(), queues: Vec::new() };
        let mut journal = match self.dispatcher.clone().stream_journal(request).await {
            Ok(response) => response.into_inner(),
            Err(status) if status.code() == Code::InvalidArgument && !position.read.is_empty() => {
                // The cursor is of another deployment, or of a version that wrote it differently: begin again.
                self.store.set_cursor(CURSOR, "").await?;
                return Err(MonitorError::Dispatcher(Box::new(status)));
            }
            Err(status) => return Err(MonitorError::Dispatcher(Box::new(status))),
        };
        let mut pending = Pending::new(self.config.retry_after, self.config.max_tries);
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                _ = tick.tick() => {
                    self.write_due(&writer, &mut pending).await?;
                    self.keep_cursor(&mut position, &pending).await?;
                }
                message = journal.message() => match message.map_err(|status| MonitorError::Dispatcher(Box::new(status)))? {
                    Some(message) => self.take(message, &mut position, &mut pending),
                    None => return Ok(()),
                },
            }
            if pending.has_new() {
                self.metrics.pending(pending.len());
                self.write_due(&writer, &mut pending).await?;
            }
            self.metrics.pending(pending.len());
        }
    }

    fn take(&self, response: StreamJournalResponse, position: &mut Position, pending: &mut Pending) {
        match response.message {
            Some(Message::Batch(batch)) => {
                self.metrics.journal_entries.inc_by(batch.entries.len() as u64);
                self.read_up_to(batch.entries.last().and_then(|entry| entry.transition_time));
                for entry in &batch.entries {
                    if let Some(fact) = fact(entry, || self.ids.lease_token())
                        && !pending.push(fact)
                    {
                        self.metrics.facts_dropped.inc();
                    }
                }
            }
            Some(Message::Gap(gap)) => {
                self.metrics.journal_gaps.inc();
                tracing::warn!(queue = gap.queue, reason = gap.reason, "a part of the journal is gone; the audit covers it");
            }
            Some(Message::Progress(progress)) => self.read_up_to(progress.watermark_time),
            None => {}
        }
        if !response.cursor.is_empty() {
            position.read = response.cursor;
        }
    }

    fn read_up_to(&self, at: Option<prost_types::Timestamp>) {
        self.metrics.read_up_to(at.and_then(|at| scalar::timestamp(at).ok()));
    }

    async fn write_due(&self, writer: &Writer, pending: &mut Pending) -> Result<(), MonitorError> {
        loop {
            let facts = pending.take_due(Instant::now());
            if facts.is_empty() {
                return Ok(());
            }
            let written = writer.write(&facts.iter().map(|(fact, _)| *fact).collect::<Vec<_>>(), self.clock.now()).await?;
            for ((fact, tries), written) in facts.into_iter().zip(written) {
                match written {
                    Written::Recorded(kind) => {
                        self.metrics.facts_recorded(kind);
                        tracing::info!(task_id = %fact.task, run = %fact.run, end = %kind, "recorded the end of a run");
                    }
                    Written::Known => {
                        self.metrics.facts_known.inc();
                    }
                    // Whoever is granted the task takes the run over, too: this is a help, not a duty.
                    Written::TooYoung => {
                        if !pending.push_again(fact, tries, Instant::now()) {
                            self.metrics.facts_dropped.inc();
                        }
                    }
                }
            }
        }
    }

    async fn keep_cursor(&self, position: &mut Position, pending: &Pending) -> Result<(), MonitorError> {
        if pending.is_empty() && position.read != position.durable {
            self.store.set_cursor(CURSOR, &position.read).await?;
            position.durable.clone_from(&position.read);
        }
        Ok(())
    }
}
