//! The load: tasks and cancels over time, as they follow from a seed. Nothing here waits or sends.

use std::time::Duration;

use oxcart_proto::pb::common::v1::{Payload, RetryPolicy, TaskSpec, payload::Content, task_spec::Start};
use oxcart_types::{TaskId, Timestamp};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use uuid::Uuid;

use super::work::{Poison, TASK_NAME, Work};

/// Queues of the load, and what of a hundred tasks goes into each.
pub const QUEUES: [(&str, u32); 3] = [("default", 60), ("bulk", 30), ("mail", 10)];

/// What the tasks of a load are like. Shares are of a hundred tasks.
#[derive(Debug, Clone, Copy)]
pub struct Mix {
    /// Wait before they may start, from the first to the second.
    pub delayed: (u32, Duration, Duration),
    /// Take long, from the first to the second; the others take milliseconds.
    pub long: (u32, Duration, Duration),
    /// Fail once to three times before they succeed; once only where they take long.
    pub failing: u32,
    /// Are given back once or twice.
    pub released: u32,
    /// May be started once only: what is lost then is lost for good, and must be told.
    pub single_attempt: u32,
    /// Must start within two seconds, or expire.
    pub expiring: u32,
    /// Have an idempotency key, which in half of the cases another call uses too.
    pub keyed: u32,
    /// Are cancelled, at some time up to the one given.
    pub cancelled: (u32, Duration),
    /// Do not listen when they are asked to stop.
    pub deaf: u32,
    /// Harm the process that they run in.
    pub poison: u32,
    /// Counted starts of a task at most.
    pub max_attempts: i32,
}

impl Mix {
    /// A bit of everything that a healthy system meets.
    pub const USUAL: Self = Self {
        delayed: (15, Duration::from_millis(100), Duration::from_millis(6000)),
        long: (3, Duration::from_millis(500), Duration::from_millis(4000)),
        failing: 8,
        released: 3,
        single_attempt: 3,
        expiring: 2,
        keyed: 10,
        cancelled: (4, Duration::from_millis(3000)),
        deaf: 2,
        poison: 0,
        max_attempts: 50,
    };
    /// Many tasks that run for long, so that whoever dies holds some.
    pub const LONG: Self = Self { long: (25, Duration::from_millis(1000), Duration::from_millis(8000)), ..Self::USUAL };
    /// Each task is cancelled at some moment: before, while and after it runs.
    pub const CANCELS: Self = Self {
        cancelled: (100, Duration::from_millis(4000)),
        long: (20, Duration::from_millis(200), Duration::from_millis(2000)),
        delayed: (30, Duration::from_millis(100), Duration::from_millis(6000)),
        ..Self::USUAL
    };
    /// Some tasks harm the process that they run in, each time.
    pub const POISON: Self = Self { poison: 1, max_attempts: 3, single_attempt: 0, ..Self::USUAL };
    /// Tasks that take no time and that nobody disturbs.
    pub const PLAIN: Self = Self {
        delayed: (0, Duration::ZERO, Duration::ZERO),
        long: (0, Duration::ZERO, Duration::ZERO),
        failing: 0,
        released: 0,
        single_attempt: 0,
        expiring: 0,
        keyed: 0,
        cancelled: (0, Duration::ZERO),
        deaf: 0,
        poison: 0,
        max_attempts: 50,
    };
}

/// A call of a client.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// When it is due, from the start of the load.
    pub at: Duration,
    /// The client's name for the call; empty for none. The call is repeated under it when its outcome is unknown.
    pub request_id: String,
    /// The tasks; one goes as a single submission.
    pub tasks: Vec<Task>,
}

/// A task of a call.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// The id that the client chose.
    pub id: TaskId,
    /// What is sent.
    pub spec: TaskSpec,
    /// When to cancel it, from its acknowledgement.
    pub cancel_after: Option<Duration>,
}

/// Makes the calls of a load, in their order, without end.
#[derive(Debug)]
pub struct Calls {
    rng: StdRng,
    mix: Mix,
    /// Mean pause between two tasks.
    pause: Duration,
    /// Ids carry the time of the load's start: they must not lie far in the past.
    started: Timestamp,
    at: Duration,
    n: u64,
    /// A call that uses the key of the one before, due next.
    twin: Option<Call>,
}

impl Calls {
    /// `per_second` tasks a second on average.
    #[must_use]
    pub fn new(seed: u64, mix: Mix, per_second: u32, started: Timestamp) -> Self {
        let pause = Duration::from_secs(1) / per_second.max(1);
        Self { rng: StdRng::seed_from_u64(seed), mix, pause, started, at: Duration::ZERO, n: 0, twin: None }
    }

    /// Mostly single submissions, and batches that hold most of the tasks.
    fn size(&mut self) -> usize {
        if self.rng.random_ratio(1, 3) { self.rng.random_range(2..=40) } else { 1 }
    }

    fn of_hundred(&mut self, share: u32) -> bool {
        self.rng.random_ratio(share.min(100), 100)
    }

    fn between(&mut self, from: Duration, to: Duration) -> Duration {
        Duration::from_millis(self.rng.random_range(from.as_millis() as u64..=to.as_millis() as u64))
    }

    fn id(&mut self, at: Duration) -> TaskId {
        let millis = self.started.timestamp_millis().unsigned_abs() + at.as_millis() as u64;
        TaskId::from_uuid(uuid::Builder::from_unix_timestamp_millis(millis, &self.rng.random()).into_uuid())
    }

    fn work(&mut self) -> Work {
        let (long, from, to) = self.mix.long;
        let ms = if self.of_hundred(long) { self.between(from, to).as_millis() as u64 } else { self.rng.random_range(0..=20) };
        // What takes long fails at most once: nothing else should be waited for at the end.
        let most = if ms > 500 { 1 } else { 3 };
        let fails = if self.of_hundred(self.mix.failing) { self.rng.random_range(1..=most) } else { 0 };
        let releases = if self.of_hundred(self.mix.released) { self.rng.random_range(1..=2) } else { 0 };
        let deaf = self.of_hundred(self.mix.deaf);
        let poisons = [Poison::Abort, Poison::Overflow, Poison::Panic, Poison::Block];
        let poison = if self.of_hundred(self.mix.poison) { poisons.choose(&mut self.rng).copied() } else { None };
        self.n += 1;
        Work { n: self.n, ms, fails, releases, deaf, poison }
    }

    fn spec(&mut self, id: TaskId, work: Work) -> TaskSpec {
        let json = serde_json::to_string(&work).expect("plain data");
        let single = self.of_hundred(self.mix.single_attempt);
        let retry_policy = RetryPolicy {
            max_attempts: if single { 1 } else { self.mix.max_attempts },
            initial_backoff: Some(to_proto(Duration::from_millis(50))),
            max_backoff: Some(to_proto(Duration::from_secs(1))),
            ..Default::default()
        };
        let (delayed, from, to) = self.mix.delayed;
        let start = self.of_hundred(delayed).then(|| Start::Delay(to_proto(self.between(from, to))));
        // A deadline counts for what has not started; a delay of its own would only make it miss it.
        let expiring = start.is_none() && self.of_hundred(self.mix.expiring);
        let fairness_key = if self.of_hundred(20) { format!("tenant-{}", self.rng.random_range(0..5)) } else { String::new() };
        TaskSpec {
            task_id: id.to_string(),
            task_name: TASK_NAME.to_owned(),
            queue: self.queue().to_owned(),
            payload: Some(Payload { content: Some(Content::Json(json)), ..Default::default() }),
            priority: Some(self.rng.random_range(0..=9)),
            retry_policy: Some(retry_policy),
            start,
            deadline: expiring.then(|| to_proto(Duration::from_secs(2))),
            fairness_key,
            ..Default::default()
        }
    }

    fn queue(&mut self) -> &'static str {
        let mut left = self.rng.random_range(0..QUEUES.iter().map(|(_, share)| share).sum());
        for (queue, share) in QUEUES {
            if left < share {
                return queue;
            }
            left -= share;
        }
        QUEUES[0].0
    }

    fn task(&mut self) -> Task {
        let (id, work) = (self.id(self.at), self.work());
        let spec = self.spec(id, work);
        let (cancelled, to) = self.mix.cancelled;
        let cancel_after = self.of_hundred(cancelled).then(|| self.between(Duration::ZERO, to));
        Task { id, spec, cancel_after }
    }

    /// A single submission with a key, and perhaps another client's with the same.
    fn keyed(&mut self) -> Call {
        let mut task = self.task();
        task.spec.idempotency_key = format!("key-{}", self.n);
        let call = Call { at: self.at, request_id: String::new(), tasks: vec![task.clone()] };
        if self.of_hundred(50) {
            let id = self.id(self.at);
            let twin = Task { id, spec: TaskSpec { task_id: id.to_string(), ..task.spec }, cancel_after: None };
            self.twin = Some(Call { tasks: vec![twin], ..call.clone() });
        }
        call
    }
}

impl Iterator for Calls {
    type Item = Call;

    fn next(&mut self) -> Option<Call> {
        if let Some(twin) = self.twin.take() {
            return Some(twin);
        }
        let size = self.size();
        let call = if size == 1 && self.of_hundred(self.mix.keyed) {
            self.keyed()
        } else {
            let tasks: Vec<Task> = (0..size).map(|_| self.task()).collect();
            // Half of the calls rely on the ids of their tasks alone.
            let named = self.of_hundred(50);
            let request_id = if named { Uuid::from_bytes(self.rng.random()).to_string() } else { String::new() };
            Call { at: self.at, request_id, tasks }
        };
        let pause = self.pause * u32::try_from(call.tasks.len()).unwrap_or(u32::MAX);
        self.at += pause.mul_f64(self.rng.random_range(0.0..2.0));
        Some(call)
    }
}

fn to_proto(duration: Duration) -> prost_types::Duration {
    duration.try_into().expect("a short time")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use oxcart_types::{Clock as _, SystemClock};

    use super::*;

    fn calls(seed: u64, started: Timestamp) -> Vec<Call> {
        Calls::new(seed, Mix::USUAL, 100, started).take(500).collect()
    }

    #[test]
    fn the_same_seed_makes_the_same_load() {
        let started = SystemClock.now();
        assert_eq!(calls(1, started), calls(1, started));
        assert_ne!(calls(1, started), calls(2, started));
    }

    #[test]
    fn ids_are_unique_times_go_forward_and_the_rate_is_kept() {
        let calls = calls(3, SystemClock.now());
        let tasks: Vec<&Task> = calls.iter().flat_map(|call| &call.tasks).collect();
        assert_eq!(tasks.iter().map(|task| task.id).collect::<HashSet<_>>().len(), tasks.len());
        assert!(calls.is_sorted_by_key(|call| call.at));
        let rate = tasks.len() as f64 / calls.last().unwrap().at.as_secs_f64();
        assert!((80.0..125.0).contains(&rate), "{rate}");
    }

    #[test]
    fn a_mix_has_a_bit_of_everything() {
        let calls = calls(4, SystemClock.now());
        let tasks: Vec<&Task> = calls.iter().flat_map(|call| &call.tasks).collect();
        let any = |of: &dyn Fn(&TaskSpec) -> bool| tasks.iter().any(|task| of(&task.spec));
        assert!(any(&|spec| spec.start.is_some()) && any(&|spec| spec.start.is_none()));
        assert!(any(&|spec| spec.deadline.is_some()) && any(&|spec| !spec.idempotency_key.is_empty()));
        assert!(QUEUES.iter().all(|(queue, _)| any(&|spec| spec.queue == *queue)));
        assert!(tasks.iter().any(|task| task.cancel_after.is_some()));
        let keys: Vec<&str> = tasks.iter().map(|task| task.spec.idempotency_key.as_str()).filter(|key| !key.is_empty()).collect();
        assert!(keys.iter().collect::<HashSet<_>>().len() < keys.len(), "no key is used twice");
    }
}
