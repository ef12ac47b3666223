//! Live events: one watcher is one reader of the dispatcher's journal.
//!
//! The dispatcher bounds what it keeps for a reader and tells one that falls behind about the gap; so a watcher that does not
//! read costs a bounded amount here (one message) and there, and hears what it missed. Its cursor is the journal's own and
//! outlives every process on the way.

use std::time::Duration;

use oxcart_proto::{
    convert::scalar,
    pb::{
        common::v1::Event,
        dispatcher::v1::{
            StreamJournalRequest, StreamJournalResponse, dispatcher_service_client::DispatcherServiceClient,
            stream_journal_response::Message,
        },
        monitor::v1::{EventBatch, WatchEventsResponse, WatchGap, WatchProgress, watch_events_response::Kind},
    },
};
use oxcart_types::Timestamp;
use prometheus_client::metrics::counter::Counter;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming, transport::Channel};

use crate::{error::MonitorError, event_filter::EventFilter, events::event};

/// A watcher hears something at least this often.
const PROGRESS: Duration = Duration::from_secs(15);
/// Longest wait before a broken journal stream is opened again.
const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// Tries to open the journal again before the watcher is told.
const MAX_TRIES: u32 = 10;

/// What a watcher gets: the messages of its stream.
pub(crate) type Sender = mpsc::Sender<Result<WatchEventsResponse, Status>>;

/// One watcher.
pub(crate) struct Watcher {
    dispatcher: DispatcherServiceClient<Channel>,
    filter: EventFilter,
    cursor: String,
    journal: Streaming<StreamJournalResponse>,
    said_something_at: Instant,
    /// Counts the gaps that it is told of.
    gaps: Counter,
}

/// Why a watcher stops.
enum Stop {
    /// It went away.
    Gone,
    /// It is to be told this.
    Error(MonitorError),
}

impl Watcher {
    /// Opens the journal after `cursor`, or at its newest entry when it is empty.
    pub(crate) async fn open(
        dispatcher: DispatcherServiceClient<Channel>,
        filter: EventFilter,
        cursor: String,
        gaps: Counter,
    ) -> Result<Self, MonitorError> {
        let journal = open(&dispatcher, &filter, &cursor).await.map_err(|status| match status.code() {
            Code::InvalidArgument => MonitorError::Cursor,
            _ => MonitorError::Dispatcher(Box::new(status)),
        })?;
        Ok(Self { dispatcher, filter, cursor, journal, said_something_at: Instant::now(), gaps })
    }

    /// Sends events until the watcher goes away, the journal cannot be read any more, or `shutdown`.
    pub(crate) async fn run(mut self, out: Sender, now: impl Fn() -> Timestamp, shutdown: CancellationToken) {
        let stop = tokio::select! {
            () = shutdown.cancelled() => Stop::Error(MonitorError::ShuttingDown),
            () = out.closed() => Stop::Gone,
            stop = self.follow(&out, now) => stop,
        };
        if let Stop::Error(error) = stop {
            // A watcher that is slow even now misses the reason; the stream ends all the same.
            let _ = out.try_send(Err(error.into()));
        }
    }

    async fn follow(&mut self, out: &Sender, now: impl Fn() -> Timestamp) -> Stop {
        loop {
            let message = tokio::select! {
                message = self.journal.message() => message,
                () = tokio::time::sleep_until(self.said_something_at + PROGRESS) => {
                    let watermark_time = Some(scalar::to_timestamp(now()));
                    if self.send(out, Kind::Progress(WatchProgress { watermark_time })).await.is_err() {
                        return Stop::Gone;
                    }
                    continue;
                }
            };
            match message {
                Ok(Some(message)) => {
                    if let Some(kind) = self.read(message)
                        && self.send(out, kind).await.is_err()
                    {
                        return Stop::Gone;
                    }
                }
                Ok(None) | Err(_) => {
                    if let Err(error) = self.open_again().await {
                        return Stop::Error(error);
                    }
                }
            }
        }
    }

    /// What a message of the journal is to the watcher; `None` when it shows nothing.
    fn read(&mut self, response: StreamJournalResponse) -> Option<Kind> {
        if !response.cursor.is_empty() {
            self.cursor = response.cursor;
        }
        match response.message? {
            Message::Batch(batch) => {
                let events: Vec<Event> =
                    batch.entries.into_iter().filter_map(event).filter(|event| self.filter.matches(event)).collect();
                (!events.is_empty()).then_some(Kind::Events(EventBatch { events }))
            }
            Message::Progress(progress) => Some(Kind::Progress(WatchProgress { watermark_time: progress.watermark_time })),
            Message::Gap(gap) => {
                let reason = format!("queue {}: {}", gap.queue, gap.reason);
                let shown = self.filter.queue.as_ref().is_none_or(|queue| queue.as_str() == gap.queue);
                if shown {
                    self.gaps.inc();
                }
                shown.then_some(Kind::Gap(WatchGap { lost_count: gap.lost_count, reason }))
            }
        }
    }

    async fn send(&mut self, out: &Sender, kind: Kind) -> Result<(), ()> {
        self.said_something_at = Instant::now();
        let message = WatchEventsResponse { kind: Some(kind), cursor: self.cursor.clone() };
        out.send(Ok(message)).await.map_err(|_| ())
    }

    async fn open_again(&mut self) -> Result<(), MonitorError> {
        let mut backoff = Duration::from_millis(50);
        for tries in 1.. {
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(MAX_BACKOFF);
            match open(&self.dispatcher, &self.filter, &self.cursor).await {
                Ok(journal) => {
                    self.journal = journal;
                    break;
                }
                Err(status) if status.code() == Code::InvalidArgument => return Err(MonitorError::Cursor),
                Err(status) if tries >= MAX_TRIES => return Err(MonitorError::Dispatcher(Box::new(status))),
                Err(_) => {}
            }
        }
        Ok(())
    }
}

async fn open(
    dispatcher: &DispatcherServiceClient<Channel>,
    filter: &EventFilter,
    cursor: &str,
) -> Result<Streaming<StreamJournalResponse>, Status> {
    let request = StreamJournalRequest {
        after_cursor: cursor.to_owned(),
        from_oldest: false,
        queues: filter.queue.iter().map(ToString::to_string).collect(),
    };
    Ok(dispatcher.clone().stream_journal(request).await?.into_inner())
}
