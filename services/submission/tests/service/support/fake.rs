//! A dispatcher with no Redis: a map, and switches for what can go wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use oxcart_proto::pb::dispatcher::v1::{
    self as pb,
    dispatcher_service_server::{DispatcherService, DispatcherServiceServer},
};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

#[derive(Default)]
pub(crate) struct State {
    pub(crate) down: bool,
    pub(crate) window_full: bool,
    pub(crate) incarnation: u32,
    /// Writes that the queue counts.
    pub(crate) seq: i64,
    /// Looks at the queues, answered or not, since a test set it back.
    pub(crate) looks: usize,
    pub(crate) entries: BTreeMap<String, pb::EntryKey>,
    /// Times that each task was offered.
    pub(crate) offers: BTreeMap<String, usize>,
    /// Offers that were refused while it was down.
    pub(crate) refused: usize,
    /// Entries that are there and will not be granted.
    pub(crate) quarantined: BTreeSet<String>,
    /// Entries that are leased.
    pub(crate) leased: BTreeSet<String>,
    pub(crate) notified: Vec<String>,
    /// Settings of queues.
    pub(crate) settings: BTreeMap<String, pb::QueueConfig>,
    /// What was to be taken out, each up to this run: newer ones stay.
    pub(crate) removed: Vec<(String, i32)>,
}

#[derive(Clone, Default)]
pub(crate) struct FakeDispatcher(Arc<Mutex<State>>);

impl FakeDispatcher {
    pub(crate) fn service(&self) -> DispatcherServiceServer<Self> {
        DispatcherServiceServer::new(self.clone())
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn has(&self, task_id: &str) -> bool {
        self.state().entries.contains_key(task_id)
    }

    /// Loses everything, as Redis does when it is wiped.
    pub(crate) fn wipe(&self) {
        let mut state = self.state();
        state.entries.clear();
        state.settings.clear();
        state.incarnation += 1;
    }

    /// Takes in an entry that its holder names.
    pub(crate) fn adopt(&self, task_id: &str) {
        let key = pb::EntryKey { task_id: task_id.to_owned(), run: 1, ..pb::EntryKey::default() };
        self.state().entries.insert(task_id.to_owned(), key);
    }

    /// How often a task was offered.
    pub(crate) fn offered(&self, task_id: &str) -> usize {
        self.state().offers.get(task_id).copied().unwrap_or(0)
    }

    fn up(&self) -> Result<MutexGuard<'_, State>, Status> {
        let state = self.state();
        if state.down { Err(Status::unavailable("down")) } else { Ok(state) }
    }
}

type Journal = Pin<Box<dyn Stream<Item = Result<pb::StreamJournalResponse, Status>> + Send>>;

#[tonic::async_trait]
impl DispatcherService for FakeDispatcher {
    type StreamJournalStream = Journal;

    async fn enqueue_tasks(&self, request: Request<pb::EnqueueTasksRequest>) -> Result<Response<pb::EnqueueTasksResponse>, Status> {
        let mut state = self.up().inspect_err(|_| self.state().refused += 1)?;
        let mut statuses = Vec::new();
        for key in request.into_inner().items.into_iter().filter_map(|item| item.key) {
            *state.offers.entry(key.task_id.clone()).or_default() += 1;
            statuses.push(if state.window_full {
                pb::EnqueueStatus::WindowFull.into()
            } else {
                state.entries.insert(key.task_id.clone(), key);
                pb::EnqueueStatus::Created.into()
            });
        }
        Ok(Response::new(pb::EnqueueTasksResponse { statuses }))
    }

    async fn remove_tasks(&self, request: Request<pb::RemoveTasksRequest>) -> Result<Response<pb::RemoveTasksResponse>, Status> {
        let mut state = self.up()?;
        let request = request.into_inner();
        let mut statuses = Vec::new();
        for key in request.keys {
            if request.notify_holder {
                state.notified.push(key.task_id);
                statuses.push(pb::RemoveStatus::Leased.into());
                continue;
            }
            state.removed.push((key.task_id.clone(), key.run));
            let status = match state.entries.get(&key.task_id) {
                None => pb::RemoveStatus::Unknown,
                Some(entry) if entry.run > key.run => pb::RemoveStatus::Newer,
                Some(_) => {
                    state.entries.remove(&key.task_id);
                    pb::RemoveStatus::Removed
                }
            };
            statuses.push(status.into());
        }
        Ok(Response::new(pb::RemoveTasksResponse { statuses }))
    }

    async fn find_missing_tasks(
        &self,
        request: Request<pb::FindMissingTasksRequest>,
    ) -> Result<Response<pb::FindMissingTasksResponse>, Status> {
        let state = self.up()?;
        let mut found = pb::FindMissingTasksResponse::default();
        for id in request.into_inner().keys.into_iter().map(|key| key.task_id) {
            if state.quarantined.contains(&id) {
                found.quarantined_task_ids.push(id);
            } else if !state.entries.contains_key(&id) {
                found.missing_task_ids.push(id);
            }
        }
        Ok(Response::new(found))
    }

    async fn inspect_tasks(&self, _: Request<pb::InspectTasksRequest>) -> Result<Response<pb::InspectTasksResponse>, Status> {
        Ok(Response::new(pb::InspectTasksResponse::default()))
    }

    async fn list_entries(&self, request: Request<pb::ListEntriesRequest>) -> Result<Response<pb::ListEntriesResponse>, Status> {
        let state = self.up()?;
        let request = request.into_inner();
        let size = usize::try_from(request.page_size).unwrap_or_default();
        let place = |id: &String| match (state.leased.contains(id), state.quarantined.contains(id)) {
            (true, _) => pb::EntryPlace::Leased,
            (_, true) => pb::EntryPlace::Quarantined,
            (false, false) => pb::EntryPlace::Ready,
        };
        let rest = state.entries.iter().filter(|(id, key)| **id > request.page_token && key.queue == request.queue);
        let page =
            rest.take(size).map(|(id, key)| pb::Entry { key: Some(key.clone()), place: place(id).into(), ..pb::Entry::default() });
        let entries: Vec<_> = page.collect();
        let last = entries.last().filter(|_| entries.len() == size).and_then(|entry| entry.key.as_ref());
        let next_page_token = last.map(|key| key.task_id.clone()).unwrap_or_default();
        Ok(Response::new(pb::ListEntriesResponse { entries, next_page_token }))
    }

    async fn check_entries(&self, _: Request<pb::CheckEntriesRequest>) -> Result<Response<pb::CheckEntriesResponse>, Status> {
        drop(self.up()?);
        Ok(Response::new(pb::CheckEntriesResponse::default()))
    }

    async fn get_queue_info(&self, _: Request<pb::GetQueueInfoRequest>) -> Result<Response<pb::GetQueueInfoResponse>, Status> {
        self.state().looks += 1;
        let state = self.up()?;
        let held = if state.window_full { 10 } else { 0 };
        let partition = pb::PartitionInfo {
            queue: "default".to_owned(),
            incarnation: state.incarnation.to_string(),
            seq: state.seq,
            window: 10,
            ready_count: held,
            settings_revision: state.settings.get("default").map_or(0, |settings| settings.revision),
            ..pb::PartitionInfo::default()
        };
        Ok(Response::new(pb::GetQueueInfoResponse { partitions: vec![partition], read_time: None }))
    }

    async fn configure_queues(
        &self,
        request: Request<pb::ConfigureQueuesRequest>,
    ) -> Result<Response<pb::ConfigureQueuesResponse>, Status> {
        let mut state = self.up()?;
        for config in request.into_inner().queues {
            if state.settings.get(&config.queue).is_none_or(|known| known.revision < config.revision) {
                state.settings.insert(config.queue.clone(), config);
            }
        }
        Ok(Response::new(pb::ConfigureQueuesResponse {}))
    }

    async fn list_sessions(&self, _: Request<pb::ListSessionsRequest>) -> Result<Response<pb::ListSessionsResponse>, Status> {
        Ok(Response::new(pb::ListSessionsResponse::default()))
    }

    async fn stream_journal(&self, _: Request<pb::StreamJournalRequest>) -> Result<Response<Journal>, Status> {
        // Waits must do without.
        Err(Status::unavailable("no journal"))
    }
}
