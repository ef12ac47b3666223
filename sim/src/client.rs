//! The clients of a world: they submit, try again, cancel, change, wait and replay, and note every answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use oxcart_ledger::{CancelAnswer, Observation, SubmitAnswer};
use oxcart_proto::pb::{
    common::v1::{RetryPolicy, TaskSpec, task_spec::Start},
    submission::v1::{
        BatchSubmitTasksRequest, CancelOutcome, CancelTaskRequest, ReplayTaskRequest, UpdateTaskRequest, WaitTaskRequest,
        submission_service_client::SubmissionServiceClient,
    },
};
use oxcart_types::{Clock as _, IdSource as _, TaskId};
use tonic::{Code, Status, transport::Channel};

use crate::{
    handler,
    rng::Rng,
    shared::{Shared, pass},
    time::{Ids, ProcessClock, wall},
};

/// What clients do.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Tasks in all, about.
    pub tasks: u64,
    /// They are submitted within this time.
    pub within: Duration,
    /// Of a hundred tasks, so many are cancelled.
    pub cancelled: u32,
    /// Of a hundred tasks, so many are changed.
    pub changed: u32,
    /// Of a hundred tasks, so many are run again, if they have ended by then.
    pub replayed: u32,
    /// Queues.
    pub queues: &'static [&'static str],
    /// Tasks wait for their time, expire, have limits.
    pub limits: bool,
}

/// All clients of a world.
#[derive(Clone)]
pub struct Clients {
    shared: Arc<Shared>,
    service: SubmissionServiceClient<Channel>,
    clock: ProcessClock,
    ids: Arc<Ids>,
    /// Clients that are not done.
    busy: Arc<AtomicUsize>,
}

/// What became of a call, for the caller.
enum Answer<T> {
    Got(T),
    /// It had no effect.
    Refused,
    /// It may have had one.
    Unknown,
}

fn duration(time: Duration) -> prost_types::Duration {
    prost_types::Duration { seconds: i64::try_from(time.as_secs()).unwrap_or(i64::MAX), nanos: time.subsec_nanos().cast_signed() }
}

impl Clients {
    /// Of a process.
    #[must_use]
    pub fn new(shared: Arc<Shared>, channel: Channel, clock: ProcessClock, ids: Arc<Ids>) -> Self {
        let service = SubmissionServiceClient::new(channel);
        Self { shared, service, clock, ids, busy: Arc::default() }
    }

    /// How many are not done; shared by all clones.
    #[must_use]
    pub fn busy(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.busy)
    }

    /// Starts all of them on the current runtime.
    pub fn start(&self, load: Load, rng: &mut Rng) {
        let mut left = load.tasks;
        while left > 0 {
            let count = rng.range(1, left.min(8));
            left -= count;
            let (clients, mut rng) = (self.clone(), rng.split());
            self.busy.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                pass(rng.millis(0, u64::try_from(load.within.as_millis()).unwrap_or(0))).await;
                clients.clone().batch(load, count, rng).await;
                clients.busy.fetch_sub(1, Ordering::Relaxed);
            });
        }
    }

    async fn batch(self, load: Load, count: u64, mut rng: Rng) {
        let specs: Vec<TaskSpec> = (0..count).map(|_| self.spec(load, &mut rng)).collect();
        let asked: Vec<(TaskId, Option<String>)> = specs
            .iter()
            .filter_map(|spec| Some((spec.task_id.parse().ok()?, Some(spec.idempotency_key.clone()).filter(|key| !key.is_empty()))))
            .collect();
        let found = self.submit(specs, &asked, &mut rng).await;
        let mut later = Vec::new();
        for task in found {
            if rng.percent(load.cancelled) {
                later.push(tokio::spawn(self.clone().cancel(task, rng.split())));
            } else if rng.percent(load.changed) {
                later.push(tokio::spawn(self.clone().change(task, rng.split())));
            } else if rng.percent(10) {
                later.push(tokio::spawn(self.clone().wait(task, rng.split())));
            }
            if rng.percent(load.replayed) {
                later.push(tokio::spawn(self.clone().replay(task, rng.split())));
            }
        }
        for client in later {
            let _ = client.await;
        }
    }

    fn spec(&self, load: Load, rng: &mut Rng) -> TaskSpec {
        let mut spec =
            TaskSpec { task_id: self.ids.task_id().to_string(), task_name: handler::NAME.to_owned(), ..TaskSpec::default() };
        if rng.percent(8) {
            // One body per key, so that a repeat is one.
            spec.idempotency_key = format!("key-{}", rng.below(4));
            return spec;
        }
        spec.queue = (*rng.pick(load.queues)).to_owned();
        spec.priority = Some(i32::try_from(rng.range(2, 6)).unwrap_or(4));
        if rng.percent(20) {
            spec.fairness_key = format!("tenant-{}", rng.below(3));
        }
        spec.retry_policy = Some(RetryPolicy {
            max_attempts: i32::try_from(rng.range(1, 4)).unwrap_or(2),
            initial_backoff: Some(duration(rng.millis(100, 5000))),
            ..RetryPolicy::default()
        });
        if !load.limits {
            return spec;
        }
        if rng.percent(25) {
            // Beyond the horizon, too.
            spec.start = Some(Start::Delay(duration(rng.varied(0, &[1000, 30_000, 120_000]))));
        } else if rng.percent(15) {
            let at = self.clock.now() + chrono::TimeDelta::from_std(rng.millis(500, 90_000)).unwrap_or_default();
            spec.expires_at =
                Some(prost_types::Timestamp { seconds: at.timestamp(), nanos: at.timestamp_subsec_nanos().cast_signed() });
        }
        if rng.percent(10) {
            spec.timeout = Some(duration(rng.millis(1000, 60_000)));
        }
        if rng.percent(8) {
            spec.deadline = Some(duration(rng.millis(150_000, 300_000)));
        }
        spec
    }

    /// Submits a batch; the ids that were acknowledged.
    async fn submit(&self, specs: Vec<TaskSpec>, asked: &[(TaskId, Option<String>)], rng: &mut Rng) -> Vec<TaskId> {
        let request = BatchSubmitTasksRequest { tasks: specs, ..Default::default() };
        let answer = self
            .call(rng, |mut service| {
                let request = request.clone();
                async move { service.batch_submit_tasks(request).await }
            })
            .await;
        let at = wall(self.shared.now());
        let mut found = Vec::new();
        let note = |index: usize, answer| {
            if let Some((task, key)) = asked.get(index).cloned() {
                self.shared.see(Observation::Submitted { task, key, answer, at });
            }
        };
        match answer {
            Answer::Got(response) => {
                for (index, result) in response.results.into_iter().enumerate() {
                    if let Ok(task) = result.task_id.parse() {
                        note(index, SubmitAnswer::Acknowledged(task));
                        found.push(task);
                    }
                }
            }
            Answer::Refused => (0..asked.len()).for_each(|index| note(index, SubmitAnswer::Refused)),
            Answer::Unknown => (0..asked.len()).for_each(|index| note(index, SubmitAnswer::Unknown)),
        }
        found
    }

    async fn cancel(self, task: TaskId, mut rng: Rng) {
        pass(rng.varied(0, &[10, 1000, 10_000, 60_000])).await;
        let grace_period = rng.percent(50).then(|| duration(rng.millis(0, 5000)));
        let request = CancelTaskRequest { task_id: task.to_string(), reason: "told to".to_owned(), grace_period, tree: false };
        let answer = self
            .call(&mut rng, |mut service| {
                let request = request.clone();
                async move { service.cancel_task(request).await }
            })
            .await;
        let answer = match answer {
            Answer::Got(response) => match response.outcome() {
                CancelOutcome::Acknowledged => CancelAnswer::Acknowledged,
                CancelOutcome::Requested => CancelAnswer::Requested,
                CancelOutcome::Unspecified => CancelAnswer::Unknown,
            },
            Answer::Refused => CancelAnswer::TooLate,
            Answer::Unknown => CancelAnswer::Unknown,
        };
        self.shared.see(Observation::CancelAnswered { task, answer, at: wall(self.shared.now()) });
    }

    async fn change(self, task: TaskId, mut rng: Rng) {
        pass(rng.millis(0, 5000)).await;
        let spec = TaskSpec {
            priority: Some(i32::try_from(rng.range(0, 9)).unwrap_or(4)),
            start: Some(Start::Delay(duration(rng.millis(0, 20_000)))),
            ..TaskSpec::default()
        };
        let paths = if rng.percent(50) { vec!["priority"] } else { vec!["priority", "delay"] };
        let update_mask = Some(prost_types::FieldMask { paths: paths.into_iter().map(str::to_owned).collect() });
        let request = UpdateTaskRequest { task_id: task.to_string(), spec: Some(spec), update_mask, ..Default::default() };
        let _ = self
            .call(&mut rng, |mut service| {
                let request = request.clone();
                async move { service.update_task(request).await }
            })
            .await;
    }

    async fn replay(self, task: TaskId, mut rng: Rng) {
        // Later than clocks may disagree after any cancel that is meant to come before.
        pass(rng.varied(70_000, &[80_000, 120_000])).await;
        let request = ReplayTaskRequest {
            task_id: task.to_string(),
            allow_succeeded: rng.percent(50),
            request_id: self.ids.task_id().to_string(),
            ..Default::default()
        };
        let _ = self
            .call(&mut rng, |mut service| {
                let request = request.clone();
                async move { service.replay_task(request).await }
            })
            .await;
    }

    async fn wait(self, task: TaskId, mut rng: Rng) {
        let max_wait = Some(duration(rng.millis(1000, 30_000)));
        let request = WaitTaskRequest { task_id: task.to_string(), max_wait, ..Default::default() };
        // A connection that is cut off says nothing for a while.
        let _ = tokio::time::timeout(Duration::from_secs(60), self.service.clone().wait_task(request)).await;
    }

    /// Calls until there is an answer, a few times.
    async fn call<T, Fut>(&self, rng: &mut Rng, call: impl Fn(SubmissionServiceClient<Channel>) -> Fut) -> Answer<T>
    where
        Fut: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let mut effect = false;
        for _ in 0..rng.range(1, 6) {
            let status = match tokio::time::timeout(rng.millis(1000, 15_000), call(self.service.clone())).await {
                Ok(Ok(response)) => return Answer::Got(response.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded("the client does not wait longer"),
            };
            match status.code() {
                Code::InvalidArgument | Code::AlreadyExists | Code::FailedPrecondition | Code::NotFound => {
                    return if effect { Answer::Unknown } else { Answer::Refused };
                }
                // Nothing was done, but another try may do it.
                Code::ResourceExhausted => {}
                _ => effect = true,
            }
            pass(rng.millis(50, 3000)).await;
        }
        if effect { Answer::Unknown } else { Answer::Refused }
    }
}
