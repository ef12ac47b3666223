//! One reader of the journal: it follows the engine's own journal at its own pace.
//!
//! Nothing is buffered here beyond one message, so that a reader that is slow holds nobody up: it reads on later, and what the
//! engine no longer keeps by then is a gap message.

use std::{collections::BTreeSet, sync::Arc};

use oxcart_proto::{convert::scalar, pb::dispatcher::v1 as pb};
use oxcart_queue::{JournalFrom, JournalId, Partition, Wakeup};
use oxcart_types::QueueName;
use pb::stream_journal_response::Message;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{
    broadcast::{
        self,
        error::{RecvError, TryRecvError},
    },
    mpsc,
};
use tokio::time::Instant;
use tonic::Status;

use super::{cursor::Cursor, encode};
use crate::{core::Core, error::DispatcherError};

/// Script calls of one read: a message stays far below the limit.
const CALLS_PER_READ: usize = 32;
/// Entries of one message.
const ENTRIES_PER_MESSAGE: usize = 500;

/// Where to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Start {
    /// With what happens from now on.
    Now,
    /// With the oldest entry that is kept.
    Oldest,
    /// After a cursor, as a text.
    After(String),
}

/// What a reader receives.
pub(crate) type Item = Result<pb::StreamJournalResponse, Status>;

/// Counts an open reader as long as it lives.
struct Slot(Gauge);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Opens a reader. It ends when the receiver is dropped, when the engine fails, or when the dispatcher drains.
pub(crate) async fn open(core: Arc<Core>, start: Start, queues: Vec<QueueName>) -> Result<mpsc::Receiver<Item>, DispatcherError> {
    let gauge = core.metrics.journal_readers.clone();
    let slot = Slot(gauge);
    if slot.0.inc() >= i64::try_from(core.config.max_journal_readers).unwrap_or(i64::MAX) {
        return Err(DispatcherError::TooManyReaders(core.config.max_journal_readers));
    }
    let (cursor, unknown) = match start {
        Start::After(text) => {
            let cursor = Cursor::decode(&text, &core.config.deployment);
            (cursor.map_err(|invalid| DispatcherError::invalid("after_cursor", invalid.description))?, JournalFrom::Oldest)
        }
        Start::Oldest => (Cursor::default(), JournalFrom::Oldest),
        Start::Now => (Cursor::default(), JournalFrom::Newest),
    };
    // Before the first look, so that nothing between the two is missed.
    let wakeups = core.engine.wakeups();
    let (sender, receiver) = mpsc::channel(1);
    let mut reader = Reader { core: Arc::clone(&core), cursor, queues: queues.into_iter().collect(), sender };
    reader.discover(unknown).await?;
    core.tasks.spawn(async move {
        let _slot = slot;
        reader.run(wakeups).await;
    });
    Ok(receiver)
}

struct Reader {
    core: Arc<Core>,
    cursor: Cursor,
    queues: BTreeSet<QueueName>,
    sender: mpsc::Sender<Item>,
}

/// What came of one look into a partition.
struct Looked {
    sent: bool,
    more: bool,
}

/// The partitions of an announcement and of those that wait behind it; `None`, for all, when some were lost.
fn waiting(first: Wakeup, wakeups: &mut broadcast::Receiver<Wakeup>) -> Option<BTreeSet<Partition>> {
    let mut due = BTreeSet::from([first.partition]);
    loop {
        match wakeups.try_recv() {
            Ok(next) => due.insert(next.partition),
            Err(TryRecvError::Lagged(_)) => return None,
            Err(TryRecvError::Empty | TryRecvError::Closed) => return Some(due),
        };
    }
}

/// The reader is gone, or the stream has ended with an error.
struct Over;

impl Reader {
    async fn run(mut self, mut wakeups: broadcast::Receiver<Wakeup>) {
        let mut poll = tokio::time::interval(self.core.config.journal_poll);
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // At once, so that the reader knows where it stands and misses nothing should the stream break before the first entry.
        if self.progress().await.is_err() {
            return;
        }
        let (mut said, mut listening) = (Instant::now(), true);
        loop {
            // A partition that joins later is read from its beginning. What was announced while others were read is one look.
            let due: Option<BTreeSet<Partition>> = tokio::select! {
                () = self.core.draining.cancelled() => {
                    let _ = self.sender.send(Err(DispatcherError::ShuttingDown.into())).await;
                    return;
                }
                () = self.sender.closed() => return,
                _ = poll.tick() => None,
                woken = wakeups.recv(), if listening => match woken {
                    Ok(first) => waiting(first, &mut wakeups),
                    Err(RecvError::Lagged(_)) => None,
                    Err(RecvError::Closed) => {
                        listening = false;
                        continue;
                    }
                },
            };
            let Ok(sent) = self.pass(due).await else { return };
            if sent {
                said = Instant::now();
            } else if said.elapsed() >= self.core.config.journal_progress {
                said = Instant::now();
                if self.progress().await.is_err() {
                    return;
                }
            }
        }
    }

    /// Says that there is nothing new, and where the reader stands.
    async fn progress(&self) -> Result<(), Over> {
        let watermark_time = Some(scalar::to_timestamp(self.core.clock.now()));
        self.send(Message::Progress(pb::JournalProgress { watermark_time })).await
    }

    /// Reads some partitions, or all of them; says whether anything was sent.
    async fn pass(&mut self, due: Option<BTreeSet<Partition>>) -> Result<bool, Over> {
        let partitions: Vec<Partition> = match due {
            Some(due) => {
                let wanted: Vec<_> = due.into_iter().filter(|partition| self.wants(partition)).collect();
                for partition in &wanted {
                    self.cursor.0.entry(partition.clone()).or_default();
                }
                wanted
            }
            None => {
                if let Err(error) = self.discover(JournalFrom::Oldest).await {
                    let _ = self.sender.send(Err(error.into())).await;
                    return Err(Over);
                }
                self.cursor.0.keys().filter(|partition| self.wants(partition)).cloned().collect()
            }
        };
        let mut sent = false;
        for partition in partitions {
            loop {
                let read = self.read(&partition).await?;
                sent |= read.sent;
                if !read.more {
                    break;
                }
            }
        }
        Ok(sent)
    }

    fn wants(&self, partition: &Partition) -> bool {
        self.queues.is_empty() || self.queues.contains(&partition.queue)
    }

    /// Takes in partitions that are not known yet.
    async fn discover(&mut self, from: JournalFrom) -> Result<(), DispatcherError> {
        let partitions = self.core.engine.partitions().await.map_err(DispatcherError::Engine)?;
        for partition in partitions {
            if self.cursor.0.contains_key(&partition) || !self.wants(&partition) {
                continue;
            }
            let at = match from {
                JournalFrom::Newest => {
                    self.core.engine.journal(&partition, JournalFrom::Newest, 1).await.map_err(DispatcherError::Engine)?.last
                }
                JournalFrom::Oldest | JournalFrom::After(_) => JournalId::default(),
            };
            self.cursor.0.insert(partition, at);
        }
        Ok(())
    }

    /// Reads once and sends what came.
    async fn read(&mut self, partition: &Partition) -> Result<Looked, Over> {
        let at = self.cursor.0.get(partition).copied().unwrap_or_default();
        // A position of its own only exists once something was read.
        let from = if at == JournalId::default() { JournalFrom::Oldest } else { JournalFrom::After(at) };
        let began = Instant::now();
        let result = self.core.engine.journal(partition, from, CALLS_PER_READ).await;
        self.core.observe("journal", CALLS_PER_READ, began, &result);
        let read = match result {
            Ok(read) => read,
            Err(error) => {
                let _ = self.sender.send(Err(DispatcherError::Engine(error).into())).await;
                return Err(Over);
            }
        };
        if read.gap {
            self.core.metrics.journal_gaps.inc();
            let gap = pb::JournalGap {
                queue: partition.queue.to_string(),
                partition: i32::from(partition.number),
                lost_count: 0,
                reason: "the journal does not reach back to the cursor".to_owned(),
            };
            // The position moves only with what was read, so that a break right here repeats the gap.
            self.send(Message::Gap(gap)).await?;
        }
        let looked = Looked { sent: !read.entries.is_empty(), more: read.more };
        let mut entries = read.entries.into_iter().map(|entry| encode::entry(partition, entry)).peekable();
        while entries.peek().is_some() {
            let batch: Vec<_> = entries.by_ref().take(ENTRIES_PER_MESSAGE).collect();
            if entries.peek().is_none() {
                self.cursor.0.insert(partition.clone(), read.last);
            }
            self.send(Message::Batch(pb::JournalBatch { entries: batch })).await?;
        }
        self.cursor.0.insert(partition.clone(), read.last);
        Ok(looked)
    }

    async fn send(&self, message: Message) -> Result<(), Over> {
        let cursor = self.cursor.encode(&self.core.config.deployment);
        self.sender.send(Ok(pb::StreamJournalResponse { message: Some(message), cursor })).await.map_err(|_| Over)
    }
}
