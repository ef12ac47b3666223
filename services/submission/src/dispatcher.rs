//! Calls to the dispatcher: bounded in size and time.

use std::{collections::HashSet, time::Duration};

use oxcart_proto::{
    convert::scalar,
    pb::dispatcher::v1::{
        CheckEntriesRequest, ConfigureQueuesRequest, DamagedEntry, EnqueueItem, EnqueueStatus, EnqueueTasksRequest,
        Entry as PbEntry, EntryKey, EntryPlace, FindMissingTasksRequest, GetQueueInfoRequest, ListEntriesRequest, PartitionInfo,
        QueueConfig, RemoveStatus, RemoveTasksRequest, StreamJournalRequest, StreamJournalResponse,
        dispatcher_service_client::DispatcherServiceClient,
    },
};
use oxcart_store::{Entry, QueueRow};
use oxcart_types::{FairnessKey, Limits, QueueName, Run, TaskId, Timestamp};
use tonic::{Code, Status, Streaming, transport::Channel};

/// Why the dispatcher gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DispatcherError {
    #[error("the dispatcher refused or could not be reached: {0}")]
    Status(#[from] Box<Status>),
    #[error("the dispatcher did not answer within {0:?}")]
    Timeout(Duration),
}

impl DispatcherError {
    /// Nobody answered, so nobody will answer the next call either.
    pub(crate) fn is_absence(&self) -> bool {
        match self {
            Self::Status(status) => status.code() == Code::Unavailable,
            Self::Timeout(_) => true,
        }
    }
}

/// What became of an entry that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offered {
    /// The dispatcher has this run or a newer one.
    Taken,
    /// The window of its queue is full.
    NoRoom,
    /// Not known: offer it again.
    TryAgain,
}

impl Offered {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Taken, Self::NoRoom, Self::TryAgain];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::NoRoom => "no_room",
            Self::TryAgain => "try_again",
        }
    }

    fn read(status: i32) -> Self {
        match EnqueueStatus::try_from(status) {
            Ok(EnqueueStatus::Created | EnqueueStatus::Exists | EnqueueStatus::Older | EnqueueStatus::Superseded) => Self::Taken,
            Ok(EnqueueStatus::WindowFull) => Self::NoRoom,
            Ok(EnqueueStatus::TryAgain | EnqueueStatus::Unspecified) | Err(_) => Self::TryAgain,
        }
    }
}

/// What the dispatcher has of some tasks.
#[derive(Debug, Default)]
pub(crate) struct Missing {
    /// Not there.
    pub(crate) missing: HashSet<TaskId>,
    /// There, but never granted again.
    pub(crate) quarantined: HashSet<TaskId>,
}

/// An entry as the dispatcher tells of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found {
    pub(crate) task: TaskId,
    pub(crate) run: Run,
    pub(crate) place: EntryPlace,
    /// Until it is due, or its lease ends.
    pub(crate) remaining: Option<Duration>,
    /// What takes it out.
    pub(crate) key: EntryKey,
}

impl Found {
    /// `None` for what no dispatcher of this system tells.
    fn read(entry: PbEntry) -> Option<Self> {
        let place = entry.place();
        let remaining = entry.remaining.map(|left| scalar::duration_or_zero(Some(left)));
        let key = entry.key?;
        Some(Self { task: key.task_id.parse().ok()?, run: scalar::run(key.run).ok()?, place, remaining, key })
    }

    /// It is where its task belongs.
    pub(crate) fn is_at(&self, home: &Entry) -> bool {
        let fairness = home.fairness_key.as_ref().map_or(0, FairnessKey::id);
        self.key.queue == home.queue.as_str()
            && self.key.priority == i32::from(home.priority.get())
            && self.key.fairness_id == fairness
    }
}

/// A page of what a queue has.
#[derive(Debug, Default)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    /// Empty at the end.
    pub(crate) next: String,
}

/// The dispatcher, as this service uses it.
#[derive(Clone)]
pub(crate) struct Dispatcher {
    client: DispatcherServiceClient<Channel>,
    timeout: Duration,
}

impl Dispatcher {
    pub(crate) fn new(channel: Channel, timeout: Duration) -> Self {
        let client = DispatcherServiceClient::new(channel).max_decoding_message_size(4 * Limits::MESSAGE_BYTES);
        Self { client, timeout }
    }

    /// Offers entries; the answers are in order. At most 1000.
    pub(crate) async fn enqueue(&self, entries: &[Entry], now: Timestamp) -> Result<Vec<Offered>, DispatcherError> {
        let items = entries.iter().map(|entry| item(entry, now)).collect();
        let mut client = self.client.clone();
        let answer = self.within(client.enqueue_tasks(EnqueueTasksRequest { items })).await?;
        let mut offered: Vec<_> = answer.statuses.into_iter().map(Offered::read).collect();
        // An answer that is short says nothing about the rest.
        offered.resize(entries.len(), Offered::TryAgain);
        Ok(offered)
    }

    /// Takes an entry out; `notify` leaves a lease and tells its holder instead.
    pub(crate) async fn remove(&self, entry: &Entry, run: Run, notify: Option<(String, Duration)>) -> Result<(), DispatcherError> {
        self.remove_all(&[(entry.clone(), run)], notify).await
    }

    /// As [`Self::remove`], for at most 1000 entries.
    pub(crate) async fn remove_all(
        &self,
        entries: &[(Entry, Run)],
        notify: Option<(String, Duration)>,
    ) -> Result<(), DispatcherError> {
        let keys = entries.iter().map(|(entry, run)| EntryKey { run: scalar::to_run(*run), ..key(entry) }).collect();
        let notify_holder = notify.is_some();
        let (reason, grace) = notify.unwrap_or_default();
        let request = RemoveTasksRequest { keys, notify_holder, reason, grace_period: Some(scalar::to_duration(grace)) };
        let mut client = self.client.clone();
        self.within(client.remove_tasks(request)).await.map(drop)
    }

    /// Takes at most 1000 entries out, their leases included; one of a later run than its key names stays. Says of each whether
    /// it is not there any more.
    pub(crate) async fn take_out(&self, keys: Vec<EntryKey>) -> Result<Vec<bool>, DispatcherError> {
        let count = keys.len();
        if count == 0 {
            return Ok(Vec::new());
        }
        let request = RemoveTasksRequest { keys, ..RemoveTasksRequest::default() };
        let mut client = self.client.clone();
        let answer = self.within(client.remove_tasks(request)).await?;
        let gone = |status: &i32| match RemoveStatus::try_from(*status) {
            Ok(RemoveStatus::Removed | RemoveStatus::Leased | RemoveStatus::Unknown) => true,
            Ok(RemoveStatus::Newer | RemoveStatus::TryAgain | RemoveStatus::Unspecified) | Err(_) => false,
        };
        let mut gone: Vec<_> = answer.statuses.iter().map(gone).collect();
        gone.resize(count, false);
        Ok(gone)
    }

    /// Lists about `rows` entries of a queue.
    pub(crate) async fn list_entries(&self, queue: &str, rows: usize, page_token: String) -> Result<Page<Found>, DispatcherError> {
        let page_size = i32::try_from(rows).unwrap_or(i32::MAX);
        let request = ListEntriesRequest { queue: queue.to_owned(), page_size, page_token, ..ListEntriesRequest::default() };
        let mut client = self.client.clone();
        let answer = self.within(client.list_entries(request)).await?;
        Ok(Page { items: answer.entries.into_iter().filter_map(Found::read).collect(), next: answer.next_page_token })
    }

    /// Lists entries of a queue whose parts do not fit together, looking at about `rows`.
    pub(crate) async fn check_entries(
        &self,
        queue: &str,
        rows: usize,
        page_token: String,
    ) -> Result<Page<DamagedEntry>, DispatcherError> {
        let page_size = i32::try_from(rows).unwrap_or(i32::MAX);
        let request = CheckEntriesRequest { queue: queue.to_owned(), page_size, page_token };
        let mut client = self.client.clone();
        let answer = self.within(client.check_entries(request)).await?;
        Ok(Page { items: answer.damaged, next: answer.next_page_token })
    }

    /// Says which of at most 1000 entries are not there.
    pub(crate) async fn find_missing<'a>(&self, entries: impl Iterator<Item = &'a Entry>) -> Result<Missing, DispatcherError> {
        let keys: Vec<_> = entries.map(key).collect();
        if keys.is_empty() {
            return Ok(Missing::default());
        }
        let mut client = self.client.clone();
        let answer = self.within(client.find_missing_tasks(FindMissingTasksRequest { keys })).await?;
        // Of the rest it has some, and knows nothing of others: they are asked about again.
        Ok(Missing { missing: ids(&answer.missing_task_ids), quarantined: ids(&answer.quarantined_task_ids) })
    }

    /// Reads the partitions of some queues; of all when none is named.
    pub(crate) async fn partitions(&self, queues: &[QueueName]) -> Result<Vec<PartitionInfo>, DispatcherError> {
        let queues = queues.iter().map(|queue| queue.as_str().to_owned()).collect();
        let mut client = self.client.clone();
        Ok(self.within(client.get_queue_info(GetQueueInfoRequest { queues })).await?.partitions)
    }

    /// Applies settings of at most 1000 queues.
    pub(crate) async fn configure(&self, queues: &[QueueRow]) -> Result<(), DispatcherError> {
        let config = |row: &QueueRow| QueueConfig {
            queue: row.queue.as_str().to_owned(),
            revision: i64::try_from(row.revision).unwrap_or(i64::MAX),
            paused: row.pause.is_some(),
        };
        let queues = queues.iter().map(config).collect();
        let mut client = self.client.clone();
        self.within(client.configure_queues(ConfigureQueuesRequest { queues })).await.map(drop)
    }

    /// Opens the journal.
    pub(crate) async fn journal(&self, after_cursor: String) -> Result<Streaming<StreamJournalResponse>, DispatcherError> {
        let request = StreamJournalRequest { after_cursor, from_oldest: false, queues: Vec::new() };
        let mut client = self.client.clone();
        self.within(client.stream_journal(request)).await
    }

    async fn within<T>(&self, call: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Result<T, DispatcherError> {
        match tokio::time::timeout(self.timeout, call).await {
            Ok(answer) => Ok(answer.map_err(Box::new)?.into_inner()),
            Err(_) => Err(DispatcherError::Timeout(self.timeout)),
        }
    }
}

fn key(entry: &Entry) -> EntryKey {
    EntryKey {
        task_id: entry.task.to_string(),
        run: scalar::to_run(entry.run),
        queue: entry.queue.as_str().to_owned(),
        priority: i32::from(entry.priority.get()),
        fairness_key: entry.fairness_key.as_ref().map(|key| key.as_str().to_owned()).unwrap_or_default(),
        fairness_id: 0,
    }
}

fn item(entry: &Entry, now: Timestamp) -> EnqueueItem {
    let delay = entry.due_at.and_then(|due| due.signed_duration_since(now).to_std().ok()).filter(|delay| !delay.is_zero());
    EnqueueItem { key: Some(key(entry)), delay: delay.map(scalar::to_duration) }
}

fn ids(texts: &[String]) -> HashSet<TaskId> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}
