//! `DispatcherService`: entries and queues, for submission and monitor.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use oxcart_proto::{
    convert::scalar,
    pb::dispatcher::v1::{self as pb, dispatcher_service_server::DispatcherService},
};
use oxcart_queue::{
    Enqueue, EnqueueCause, EnqueueStatus, Inspected, Partition, PartitionStats, Place, Presence, Remove, RemoveStatus,
};
use oxcart_types::{Limits, QueueName, WorkerId};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{
    decode::{self, Group, Keyed},
    pages, settings,
};
use crate::{core::Core, error::DispatcherError, journal, session};

const MAX_INSPECTED: usize = 100;
const DEFAULT_PAGE: usize = 100;

/// Serves entries and queues.
#[derive(Clone)]
pub(crate) struct Service(pub(crate) Arc<Core>);

/// Makes one call per partition and puts the answers into the order of the request; `None` where a partition did not answer.
async fn per_partition<T, O, F>(len: usize, groups: Vec<Group<T>>, call: impl Fn(Partition, Vec<T>) -> F) -> Vec<Option<O>>
where
    F: Future<Output = Option<Vec<O>>>,
{
    let calls = groups.into_iter().map(|group| {
        let answers = call(group.partition, group.items);
        async move { (group.positions, answers.await) }
    });
    let mut answers: Vec<Option<O>> = std::iter::repeat_with(|| None).take(len).collect();
    for (positions, replies) in join_all(calls).await {
        for (position, reply) in positions.into_iter().zip(replies.into_iter().flatten()) {
            answers[position] = Some(reply);
        }
    }
    answers
}

fn plain(keys: Vec<pb::EntryKey>, max: usize) -> Result<Vec<Keyed>, DispatcherError> {
    decode::keys("keys", keys.into_iter().map(|key| (key, None)).collect(), max)
}

#[tonic::async_trait]
impl DispatcherService for Service {
    type StreamJournalStream = ReceiverStream<Result<pb::StreamJournalResponse, Status>>;

    async fn enqueue_tasks(&self, request: Request<pb::EnqueueTasksRequest>) -> Result<Response<pb::EnqueueTasksResponse>, Status> {
        let items = request.into_inner().items;
        let items = items.into_iter().map(|item| (item.key.unwrap_or_default(), item.delay)).collect();
        let items = decode::keys("items", items, Limits::BATCH_ITEMS)?;
        let len = items.len();
        let groups = decode::by_partition(items.into_iter().map(|item| {
            let Keyed { partition, key, run, delay } = item;
            (partition, Enqueue { key, run, delay, cause: EnqueueCause::Submitted, note: bytes::Bytes::new() })
        }));
        let statuses =
            per_partition(
                len,
                groups,
                |partition, items| async move { self.0.lane(&partition).ok()?.enqueue(&self.0, items).await },
            );
        let statuses = statuses.await.into_iter().map(|status| i32::from(enqueue_status(status))).collect();
        Ok(Response::new(pb::EnqueueTasksResponse { statuses }))
    }

    async fn remove_tasks(&self, request: Request<pb::RemoveTasksRequest>) -> Result<Response<pb::RemoveTasksResponse>, Status> {
        let request = request.into_inner();
        if request.reason.len() > Limits::REASON_BYTES {
            return Err(DispatcherError::invalid("reason", format!("has more than {} bytes", Limits::REASON_BYTES)).into());
        }
        if let Some(grace) = request.grace_period {
            scalar::duration_up_to(grace, Limits::GRACE)
                .map_err(|bad| DispatcherError::invalid("grace_period", bad.description))?;
        }
        let keys = plain(request.keys, Limits::BATCH_ITEMS)?;
        let runs: Vec<_> = keys.iter().map(|key| (key.key.task, key.run)).collect();
        let len = keys.len();
        let groups = decode::by_partition(
            keys.into_iter()
                .map(|key| (key.partition, Remove { key: key.key, up_to: key.run, take_lease: !request.notify_holder })),
        );
        let statuses =
            per_partition(len, groups, |partition, items| async move { self.0.lane(&partition).ok()?.remove(items).await });
        let statuses: Vec<Option<RemoveStatus>> = statuses.await;
        for ((task, run), status) in runs.into_iter().zip(&statuses) {
            if let (Some(RemoveStatus::Leased(token)), true) = (status, request.notify_holder) {
                // A holder elsewhere looks at SQL by itself.
                let (token, reason, grace) = (*token, request.reason.clone(), request.grace_period);
                session::cancel(&self.0, session::Cancel { task, run, token, reason, grace });
            }
        }
        let statuses = statuses.into_iter().map(|status| i32::from(remove_status(status))).collect();
        Ok(Response::new(pb::RemoveTasksResponse { statuses }))
    }

    async fn find_missing_tasks(
        &self,
        request: Request<pb::FindMissingTasksRequest>,
    ) -> Result<Response<pb::FindMissingTasksResponse>, Status> {
        let keys = plain(request.into_inner().keys, Limits::BATCH_ITEMS)?;
        let ids: Vec<_> = keys.iter().map(|key| key.key.task).collect();
        let groups = decode::by_partition(keys.into_iter().map(|key| (key.partition, (key.key, key.run))));
        let found = per_partition(ids.len(), groups, |partition, items| async move {
            let began = Instant::now();
            let result = self.0.engine.missing(&partition, &items).await;
            self.0.observe("missing", items.len(), began, &result);
            result.ok()
        });
        let mut response = pb::FindMissingTasksResponse::default();
        for (id, presence) in ids.into_iter().zip(found.await) {
            match presence {
                Some(Presence::Missing) => response.missing_task_ids.push(id.to_string()),
                Some(Presence::Quarantined) => response.quarantined_task_ids.push(id.to_string()),
                Some(Presence::Present) => {}
                None => response.unknown_task_ids.push(id.to_string()),
            }
        }
        Ok(Response::new(response))
    }

    async fn inspect_tasks(&self, request: Request<pb::InspectTasksRequest>) -> Result<Response<pb::InspectTasksResponse>, Status> {
        let asked = request.into_inner().keys;
        let keys = plain(asked.clone(), MAX_INSPECTED)?;
        let groups = decode::by_partition(keys.into_iter().map(|key| (key.partition, key.key)));
        let mut entries = Vec::new();
        for group in groups {
            let began = Instant::now();
            let result = self.0.engine.inspect(&group.partition, &group.items).await;
            self.0.observe("inspect", group.items.len(), began, &result);
            let found = result.map_err(DispatcherError::Engine)?;
            let pairs = group.positions.into_iter().zip(found);
            entries.extend(pairs.filter_map(|(position, found)| Some(entry(asked.get(position)?.clone(), &found?))));
        }
        Ok(Response::new(pb::InspectTasksResponse { entries }))
    }

    async fn list_entries(&self, request: Request<pb::ListEntriesRequest>) -> Result<Response<pb::ListEntriesResponse>, Status> {
        Ok(Response::new(pages::list(&self.0, request.into_inner()).await?))
    }

    async fn check_entries(&self, request: Request<pb::CheckEntriesRequest>) -> Result<Response<pb::CheckEntriesResponse>, Status> {
        Ok(Response::new(pages::check(&self.0, request.into_inner()).await?))
    }

    async fn get_queue_info(
        &self,
        request: Request<pb::GetQueueInfoRequest>,
    ) -> Result<Response<pb::GetQueueInfoResponse>, Status> {
        let wanted = request.into_inner().queues;
        let known = self.0.engine.partitions().await.map_err(DispatcherError::Engine)?;
        let mut partitions = Vec::new();
        for partition in known.into_iter().filter(|one| wanted.is_empty() || wanted.iter().any(|name| name == one.queue.as_str())) {
            let began = Instant::now();
            let result = self.0.engine.stats(&partition).await;
            self.0.observe("stats", 1, began, &result);
            let stats = result.map_err(DispatcherError::Engine)?;
            partitions.push(self.info(&partition, &stats));
        }
        let read_time = Some(scalar::to_timestamp(self.0.clock.now()));
        Ok(Response::new(pb::GetQueueInfoResponse { partitions, read_time }))
    }

    async fn configure_queues(
        &self,
        request: Request<pb::ConfigureQueuesRequest>,
    ) -> Result<Response<pb::ConfigureQueuesResponse>, Status> {
        settings::configure(&self.0, request.into_inner()).await?;
        Ok(Response::new(pb::ConfigureQueuesResponse {}))
    }

    async fn list_sessions(&self, request: Request<pb::ListSessionsRequest>) -> Result<Response<pb::ListSessionsResponse>, Status> {
        let request = request.into_inner();
        let size = match usize::try_from(request.page_size) {
            Ok(0) => DEFAULT_PAGE,
            Ok(size) => size.min(Limits::PAGE_ROWS),
            Err(_) => return Err(DispatcherError::invalid("page_size", "is negative").into()),
        };
        let after = match request.page_token.as_str() {
            "" => None,
            token => Some(decode::worker_id("page_token", token)?),
        };
        let open = self.0.sessions.all().into_iter().map(|session| {
            let counted_leases = scalar::to_count(session.state().counted());
            let profile = session.profile().clone();
            (session.worker, pb::SessionInfo { worker: Some(profile.info), load: profile.load, counted_leases })
        });
        let mut all: BTreeMap<WorkerId, pb::SessionInfo> = open.collect();
        // The stream of a worker that said goodbye may still be open.
        let stopped = |(worker, info)| (worker, pb::SessionInfo { worker: Some(info), ..pb::SessionInfo::default() });
        all.extend(self.0.sessions.gone().into_iter().map(stopped));
        let mut rest = all.into_iter().filter(|(worker, _)| after.is_none_or(|after| *worker > after)).peekable();
        let page: Vec<_> = rest.by_ref().take(size).collect();
        let next_page_token = page.last().filter(|_| rest.peek().is_some()).map(|(worker, _)| worker.to_string());
        let sessions = page.into_iter().map(|(_, session)| session).collect();
        Ok(Response::new(pb::ListSessionsResponse { sessions, next_page_token: next_page_token.unwrap_or_default() }))
    }

    async fn stream_journal(
        &self,
        request: Request<pb::StreamJournalRequest>,
    ) -> Result<Response<Self::StreamJournalStream>, Status> {
        let request = request.into_inner();
        let start = match (request.after_cursor, request.from_oldest) {
            (cursor, _) if !cursor.is_empty() => journal::Start::After(cursor),
            (_, true) => journal::Start::Oldest,
            (_, false) => journal::Start::Now,
        };
        let queues = request.queues.iter().map(|queue| queue.parse::<QueueName>());
        let queues = queues.collect::<Result<Vec<_>, _>>().map_err(|bad| DispatcherError::invalid("queues", bad.description))?;
        let receiver = journal::open(Arc::clone(&self.0), start, queues).await?;
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

impl Service {
    fn info(&self, partition: &Partition, stats: &PartitionStats) -> pb::PartitionInfo {
        let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let (sessions, free) = self.0.sessions.of_queue(&partition.queue);
        // Ids made by Oxcart carry the time of submission; others tell no age.
        let submitted = stats.next_ready.and_then(|task| task.as_uuid().get_timestamp()).map(|time| time.to_unix());
        let age = submitted.map(|(seconds, nanos)| {
            let now = self.0.clock.now();
            let now = Duration::new(u64::try_from(now.timestamp()).unwrap_or(0), now.timestamp_subsec_nanos());
            scalar::to_duration(now.saturating_sub(Duration::new(seconds, nanos)))
        });
        pb::PartitionInfo {
            queue: partition.queue.to_string(),
            partition: i32::from(partition.number),
            incarnation: format!("{:016x}", stats.incarnation),
            seq: count(stats.seq),
            settings_revision: count(stats.settings.revision),
            window: count(self.0.config.window),
            ready_count: count(stats.ready),
            delayed_count: count(stats.delayed),
            leased_count: count(stats.leased),
            quarantined_count: count(stats.quarantined),
            oldest_ready_age: age,
            session_count: i32::try_from(sessions).unwrap_or(i32::MAX),
            free_slots: scalar::to_count(free),
            paused: stats.settings.paused,
        }
    }
}

const fn enqueue_status(status: Option<EnqueueStatus>) -> pb::EnqueueStatus {
    match status {
        Some(EnqueueStatus::Created) => pb::EnqueueStatus::Created,
        Some(EnqueueStatus::Exists) => pb::EnqueueStatus::Exists,
        Some(EnqueueStatus::Older) => pb::EnqueueStatus::Older,
        Some(EnqueueStatus::Superseded) => pb::EnqueueStatus::Superseded,
        Some(EnqueueStatus::WindowFull) => pb::EnqueueStatus::WindowFull,
        None => pb::EnqueueStatus::TryAgain,
    }
}

const fn remove_status(status: Option<RemoveStatus>) -> pb::RemoveStatus {
    match status {
        Some(RemoveStatus::Removed) => pb::RemoveStatus::Removed,
        Some(RemoveStatus::Leased(_)) => pb::RemoveStatus::Leased,
        Some(RemoveStatus::Unknown) => pb::RemoveStatus::Unknown,
        Some(RemoveStatus::Newer) => pb::RemoveStatus::Newer,
        None => pb::RemoveStatus::TryAgain,
    }
}

pub(super) const fn place(place: Place) -> pb::EntryPlace {
    match place {
        Place::Ready => pb::EntryPlace::Ready,
        Place::Delayed => pb::EntryPlace::Delayed,
        Place::Leased => pb::EntryPlace::Leased,
        Place::Quarantined => pb::EntryPlace::Quarantined,
    }
}

fn entry(asked: pb::EntryKey, found: &Inspected) -> pb::Entry {
    pb::Entry {
        key: Some(pb::EntryKey { run: scalar::to_run(found.run), ..asked }),
        place: place(found.place).into(),
        deliveries: i32::from(found.deliveries),
        ahead_count: i64::try_from(found.ahead).unwrap_or(i64::MAX),
        remaining: found.remaining.map(scalar::to_duration),
        worker_id: String::new(),
    }
}
