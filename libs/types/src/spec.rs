//! What a client asks to run.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    clock::Timestamp,
    digest::Parts,
    id::TaskId,
    name::{FairnessKey, QueueName, Tag, TaskName},
    payload::Payload,
    retry::RetryPolicy,
    violation::{Invalid, Violations, reason},
};

/// Priority of a task within its queue: 0 to 9, 9 first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(u8);

impl Priority {
    /// The highest.
    pub const MAX: Self = Self(9);
    /// The lowest.
    pub const MIN: Self = Self(0);

    /// The number, 0 to 9.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The band of the queue engine: 0 is served first, 9 last.
    #[must_use]
    pub const fn band(self) -> u8 {
        9 - self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self(4)
    }
}

impl TryFrom<i64> for Priority {
    type Error = Invalid;

    fn try_from(number: i64) -> Result<Self, Invalid> {
        match u8::try_from(number) {
            Ok(n @ 0..=9) => Ok(Self(n)),
            _ => Err(Invalid::value(format!("is {number}; 0 to 9 are allowed"))),
        }
    }
}

/// A task as asked for: checked, with defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskSpec {
    /// Id.
    pub id: TaskId,
    /// Handler.
    pub name: TaskName,
    /// Queue.
    pub queue: QueueName,
    /// Priority.
    pub priority: Priority,
    /// Input of the handler.
    pub payload: Payload,
    /// Tags, sorted, each once.
    pub tags: Vec<Tag>,
    /// Handed to the handler; W3C trace context included.
    pub metadata: BTreeMap<String, String>,
    /// Not started before; at once when `None`.
    pub run_at: Option<Timestamp>,
    /// Not started by then: EXPIRED.
    pub expires_at: Option<Timestamp>,
    /// Limit of one attempt.
    pub timeout: Option<Duration>,
    /// Limit from submission to a terminal state, all attempts and backoffs included.
    pub deadline: Option<Duration>,
    /// Retry policy.
    pub retry: RetryPolicy,
    /// One task per key while the key lives.
    pub idempotency: Option<Idempotency>,
    /// Tenant or the like.
    pub fairness_key: Option<FairnessKey>,
}

/// An idempotency key and what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// The key, unique over the deployment.
    pub key: String,
    /// What to do when it is taken.
    pub policy: IdempotencyPolicy,
    /// Life of the key from submission; it outlives the end of its task.
    pub ttl: Duration,
}

impl Idempotency {
    /// Life of a key that names none.
    pub const DEFAULT_TTL: Duration = Duration::from_secs(24 * 3600);
}

/// What to do when an idempotency key is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IdempotencyPolicy {
    /// Answer with the holder, whatever its state; refuse when the body differs.
    ReturnExisting,
    /// Refuse.
    Reject,
    /// Cancel the holder and accept the new task while the holder has not started; else refuse.
    Replace,
}

impl TaskSpec {
    /// Digest of what the client asked for, without its id and without the trace context, which changes with every try.
    /// Equal digests mean the same request.
    #[must_use]
    pub fn digest(&self) -> [u8; 16] {
        let mut parts = Parts::default();
        parts.add(self.name.as_str().as_bytes());
        parts.add(self.queue.as_str().as_bytes());
        parts.add(&[self.priority.get()]);
        parts.add(self.payload.content_type().as_bytes());
        parts.add(self.payload.as_bytes());
        parts.add(&(self.tags.len() as u64).to_le_bytes());
        for tag in &self.tags {
            parts.add(tag.as_str().as_bytes());
        }
        for (key, value) in self.metadata.iter().filter(|(key, _)| !TRACE_CONTEXT.contains(&key.as_str())) {
            parts.add(key.as_bytes());
            parts.add(value.as_bytes());
        }
        let rest = format!(
            "{:?}{:?}{:?}{:?}{:?}{:?}{:?}",
            self.run_at, self.expires_at, self.timeout, self.deadline, self.retry, self.idempotency, self.fairness_key
        );
        parts.add(rest.as_bytes());
        parts.finish()
    }

    /// Bytes of what may be large: payload and metadata.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let metadata: usize = self.metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
        self.payload.as_bytes().len() + metadata
    }

    /// When the task must have reached a terminal state, counted from its submission.
    #[must_use]
    pub fn deadline_at(&self, created_at: Timestamp) -> Option<Timestamp> {
        self.deadline.and_then(|d| chrono::TimeDelta::from_std(d).ok()).and_then(|d| created_at.checked_add_signed(d))
    }

    /// The last moment at which the first run may start: the earlier of expiry and deadline.
    #[must_use]
    pub fn start_by(&self, created_at: Timestamp) -> Option<Timestamp> {
        [self.expires_at, self.deadline_at(created_at)].into_iter().flatten().min()
    }
}

/// A run must be able to begin before it is too late for it: notes what is not so.
pub fn check_order(bad: &mut Violations, run_at: Option<Timestamp>, expires_at: Option<Timestamp>, deadline_at: Option<Timestamp>) {
    let Some(run_at) = run_at else { return };
    if expires_at.is_some_and(|expires_at| expires_at <= run_at) {
        bad.add("expires_at", reason::FIELD_CONFLICT, format!("is not after the earliest start, {run_at}"));
    }
    if deadline_at.is_some_and(|deadline_at| deadline_at <= run_at) {
        bad.add("deadline", reason::FIELD_CONFLICT, format!("passes before the earliest start, {run_at}"));
    }
}

/// Metadata keys of the W3C trace context.
pub const TRACE_CONTEXT: [&str; 2] = ["traceparent", "tracestate"];

/// New values for a task of which no run is open; `None` leaves a field as it is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TaskChanges {
    /// Queue.
    pub queue: Option<QueueName>,
    /// Priority.
    pub priority: Option<Priority>,
    /// Tags, sorted, each once.
    pub tags: Option<Vec<Tag>>,
    /// Not started before; `Some(None)` means at once.
    pub run_at: Option<Option<Timestamp>>,
    /// Not started by then: EXPIRED; `Some(None)` means never.
    pub expires_at: Option<Option<Timestamp>>,
    /// Limit of one attempt.
    pub timeout: Option<Option<Duration>>,
    /// Limit over all attempts.
    pub deadline: Option<Option<Duration>>,
    /// Retry policy.
    pub retry: Option<RetryPolicy>,
}

impl TaskChanges {
    /// Puts the new values into a specification.
    pub fn apply(self, spec: &mut TaskSpec) {
        fn set<T>(field: &mut T, new: Option<T>) {
            if let Some(new) = new {
                *field = new;
            }
        }
        set(&mut spec.queue, self.queue);
        set(&mut spec.priority, self.priority);
        set(&mut spec.tags, self.tags);
        set(&mut spec.run_at, self.run_at);
        set(&mut spec.expires_at, self.expires_at);
        set(&mut spec.timeout, self.timeout);
        set(&mut spec.deadline, self.deadline);
        set(&mut spec.retry, self.retry);
    }
}
