//! The clients of the load: they send, try again when the outcome is unknown, and note what they are answered.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use oxcart_ledger::{CancelAnswer, Observation, SubmitAnswer};
use oxcart_proto::pb::submission::v1::{
    BatchSubmitTasksRequest, CancelOutcome, CancelTaskRequest, SubmitResult, SubmitTaskRequest,
    submission_service_client::SubmissionServiceClient,
};
use oxcart_types::{Clock as _, SystemClock, TaskId, Timestamp};
use rand::Rng as _;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::task::TaskTracker;
use tonic::{Code, Status, transport::Channel};

use super::{
    cluster::Cluster,
    load::{Call, Calls},
};
use crate::processes::Service;

/// Longest wait for one answer.
const TRY_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Calls in flight at once; the load leaves out what would be more.
const CALLS_IN_FLIGHT: usize = 4000;
/// Time that a cancelled handler is given.
const GRACE: prost_types::Duration = prost_types::Duration { seconds: 2, nanos: 0 };
/// Unexpected answers that are kept to be shown.
const KEPT_ANSWERS: usize = 20;

/// The clients of a load.
pub struct Clients {
    submissions: Vec<SubmissionServiceClient<Channel>>,
    seen: Mutex<Vec<(Timestamp, Observation)>>,
    answers: Mutex<Answers>,
    room: Semaphore,
    left_out: AtomicU64,
    tracker: TaskTracker,
}

/// Answers by their code, and those that no fault explains.
#[derive(Debug, Clone, Default)]
pub struct Answers {
    /// How often each code was heard.
    pub codes: BTreeMap<String, u64>,
    /// What a client cannot make anything of.
    pub unexpected: Vec<String>,
}

/// What a try means to the client.
enum Meaning {
    /// The outcome is unknown, or the service asks to come again.
    Again,
    /// No use in trying again.
    Final,
}

impl Clients {
    /// Clients that reach every submission service through its proxy.
    ///
    /// # Errors
    /// There is no submission service.
    pub fn new(cluster: &Cluster) -> Result<Arc<Self>> {
        let count = cluster.replicas(Service::Submission).len();
        let submissions = (0..count).map(|index| cluster.submission(index).map(SubmissionServiceClient::new));
        Ok(Arc::new(Self {
            submissions: submissions.collect::<Result<_>>()?,
            seen: Mutex::default(),
            answers: Mutex::default(),
            room: Semaphore::new(CALLS_IN_FLIGHT),
            left_out: AtomicU64::new(0),
            tracker: TaskTracker::new(),
        }))
    }

    /// Sends the calls of a load as they become due, for so long, whatever becomes of them; then waits for the last answers.
    /// What has none `patience` after the end stays unknown.
    pub async fn run(self: &Arc<Self>, calls: Calls, lasts: Duration, patience: Duration) {
        let started = Instant::now();
        let give_up = started + lasts + patience;
        for call in calls.take_while(|call| call.at < lasts) {
            sleep_until(started + call.at).await;
            let this = Arc::clone(self);
            self.tracker.spawn(async move {
                let Ok(_room) = this.room.try_acquire() else {
                    this.left_out.fetch_add(1, Ordering::Relaxed);
                    return;
                };
                this.submit(call, give_up).await;
            });
        }
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// What was seen so far, in the order in which it was heard.
    pub fn seen(&self) -> Vec<(Timestamp, Observation)> {
        locked(&self.seen).clone()
    }

    /// Answers so far.
    pub fn answers(&self) -> Answers {
        locked(&self.answers).clone()
    }

    /// Calls that were left out since too many were in flight.
    pub fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }

    async fn submit(self: &Arc<Self>, call: Call, give_up: Instant) {
        let mut pauses = Pauses::default();
        loop {
            let answer = self.send(&call).await;
            let at = SystemClock.now();
            let heard = self.hear("submit", answer.as_ref().err());
            for (index, task) in call.tasks.iter().enumerate() {
                let answer = match &answer {
                    Ok(results) => match results.get(index).and_then(|result| result.task_id.parse().ok()) {
                        Some(found) => SubmitAnswer::Acknowledged(found),
                        None => SubmitAnswer::Unknown,
                    },
                    Err(status) if writes_nothing(status.code()) => SubmitAnswer::Refused,
                    Err(_) => SubmitAnswer::Unknown,
                };
                if let (SubmitAnswer::Acknowledged(found), Some(after)) = (answer, task.cancel_after) {
                    self.cancel_later(found, after, give_up);
                }
                let key = Some(task.spec.idempotency_key.clone()).filter(|key| !key.is_empty());
                locked(&self.seen).push((at, Observation::Submitted { task: task.id, key, answer, at }));
            }
            match heard {
                Meaning::Again if Instant::now() < give_up => pauses.wait().await,
                Meaning::Again | Meaning::Final => return,
            }
        }
    }

    async fn send(&self, call: &Call) -> Result<Vec<SubmitResult>, Status> {
        let request_id = call.request_id.clone();
        let mut submission = self.any_submission();
        let sending = async {
            if let [task] = call.tasks.as_slice() {
                let request = SubmitTaskRequest { task: Some(task.spec.clone()), request_id, ..Default::default() };
                Ok(submission.submit_task(request).await?.into_inner().result.into_iter().collect())
            } else {
                let tasks = call.tasks.iter().map(|task| task.spec.clone()).collect();
                let request = BatchSubmitTasksRequest { tasks, request_id, ..Default::default() };
                Ok(submission.batch_submit_tasks(request).await?.into_inner().results)
            }
        };
        timeout(TRY_TIMEOUT, sending).await.unwrap_or_else(|_| Err(Status::deadline_exceeded("the client gave up")))
    }

    fn cancel_later(self: &Arc<Self>, task: TaskId, after: Duration, give_up: Instant) {
        let this = Arc::clone(self);
        self.tracker.spawn(async move {
            sleep(after).await;
            let mut pauses = Pauses::default();
            loop {
                let request = CancelTaskRequest {
                    task_id: task.to_string(),
                    reason: "chaos".to_owned(),
                    grace_period: Some(GRACE),
                    tree: false,
                };
                let mut submission = this.any_submission();
                let cancelling = async { submission.cancel_task(request).await.map(|answer| answer.into_inner().outcome()) };
                let answer = timeout(TRY_TIMEOUT, cancelling).await;
                let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("the client gave up")));
                let at = SystemClock.now();
                let heard = this.hear("cancel", answer.as_ref().err());
                let answer = match answer {
                    Ok(CancelOutcome::Acknowledged) => CancelAnswer::Acknowledged,
                    Ok(CancelOutcome::Requested) => CancelAnswer::Requested,
                    Ok(CancelOutcome::Unspecified) => CancelAnswer::Unknown,
                    Err(status) if status.code() == Code::FailedPrecondition => CancelAnswer::TooLate,
                    Err(_) => CancelAnswer::Unknown,
                };
                locked(&this.seen).push((at, Observation::CancelAnswered { task, answer, at }));
                match heard {
                    Meaning::Again if Instant::now() < give_up => pauses.wait().await,
                    Meaning::Again | Meaning::Final => return,
                }
            }
        });
    }

    /// Counts an answer and says what it means.
    fn hear(&self, what: &str, error: Option<&Status>) -> Meaning {
        let code = error.map_or(Code::Ok, Status::code);
        let mut answers = locked(&self.answers);
        *answers.codes.entry(format!("{what} {code:?}")).or_default() += 1;
        match code {
            Code::Ok => Meaning::Final,
            Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Cancelled => Meaning::Again,
            // Too late for a cancel; that is an answer.
            Code::FailedPrecondition if what == "cancel" => Meaning::Final,
            _ => {
                if let Some(status) = error.filter(|status| !is_of_transport(status))
                    && answers.unexpected.len() < KEPT_ANSWERS
                {
                    answers.unexpected.push(format!("{what}: {:?} {}", status.code(), status.message()));
                }
                Meaning::Again
            }
        }
    }

    fn any_submission(&self) -> SubmissionServiceClient<Channel> {
        self.submissions[rand::rng().random_range(0..self.submissions.len())].clone()
    }
}

/// A connection that broke, as the client's own library tells it.
fn is_of_transport(status: &Status) -> bool {
    matches!(status.code(), Code::Unknown | Code::Internal)
        && ["transport error", "h2 protocol error", "error reading a body"].iter().any(|text| status.message().contains(text))
}

/// Codes with which a service says that it wrote nothing.
const fn writes_nothing(code: Code) -> bool {
    matches!(code, Code::ResourceExhausted | Code::InvalidArgument | Code::AlreadyExists | Code::FailedPrecondition)
}

/// Growing pauses with full jitter.
#[derive(Debug, Default)]
struct Pauses(u32);

impl Pauses {
    async fn wait(&mut self) {
        self.0 += 1;
        let longest = Duration::from_millis(50).saturating_mul(2_u32.saturating_pow(self.0.min(10))).min(LONGEST_PAUSE);
        let share = rand::rng().random::<f64>();
        sleep(longest.mul_f64(share)).await;
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
