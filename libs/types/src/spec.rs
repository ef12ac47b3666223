//! What a client asks to run.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    clock::Timestamp,
    digest::Parts,
    id::TaskId,
    name::{FairnessKey, QueueName, Tag, TaskName},
    payload::Payload,
    retry::RetryPolicy,
    time_limit::{StartBy, after},
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
    /// Not started within this after its earliest start: EXPIRED.
    pub start_timeout: Option<Duration>,
    /// Limit of one attempt.
    pub timeout: Option<Duration>,
    /// A handler that reports nothing for longer fails.
    pub heartbeat_timeout: Option<Duration>,
    /// Limit from submission to a terminal state, all attempts and backoffs included.
    pub deadline: Option<Duration>,
    /// Retry policy.
    pub retry: RetryPolicy,
    /// One task per key while the key lives.
    pub idempotency: Option<Idempotency>,
    /// Tenant or the like.
    pub fairness_key: Option<FairnessKey>,
    /// The task that started this one: a link and no more, so that the parent need not exist any longer.
    pub parent: Option<TaskId>,
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
        let retry = self.retry.digest_text();
        let rest = format!(
            "{:?}{:?}{:?}{:?}{retry}{:?}{:?}",
            self.run_at, self.expires_at, self.timeout, self.deadline, self.idempotency, self.fairness_key
        );
        parts.add(rest.as_bytes());
        // What came later counts only where it is used, so that the digests of what is stored stay what they are.
        for (name, limit) in [("start_timeout", self.start_timeout), ("heartbeat_timeout", self.heartbeat_timeout)] {
            if let Some(limit) = limit {
                parts.add(name.as_bytes());
                parts.add(&limit.as_nanos().to_le_bytes());
            }
        }
        if let Some(parent) = self.parent {
            parts.add(parent.as_bytes());
        }
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
        self.deadline.and_then(|deadline| after(created_at, deadline))
    }

    /// The last moment at which the first run may start.
    #[must_use]
    pub fn start_by(&self, created_at: Timestamp) -> Option<StartBy> {
        let earliest_start = self.run_at.map_or(created_at, |at| at.max(created_at));
        let start_timeout_at = self.start_timeout.and_then(|limit| after(earliest_start, limit));
        StartBy::earliest(self.expires_at, start_timeout_at, self.deadline_at(created_at))
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
    /// Not started within this after its earliest start: EXPIRED; `Some(None)` means no limit.
    pub start_timeout: Option<Option<Duration>>,
    /// Limit of one attempt.
    pub timeout: Option<Option<Duration>>,
    /// A handler that reports nothing for longer fails.
    pub heartbeat_timeout: Option<Option<Duration>>,
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
        set(&mut spec.start_timeout, self.start_timeout);
        set(&mut spec.timeout, self.timeout);
        set(&mut spec.heartbeat_timeout, self.heartbeat_timeout);
        set(&mut spec.deadline, self.deadline);
        set(&mut spec.retry, self.retry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;

    fn spec() -> TaskSpec {
        TaskSpec {
            id: TaskId::from_bytes([1; 16]),
            name: "email.send".parse().expect("a name"),
            queue: QueueName::default_queue(),
            priority: Priority::default(),
            payload: Payload::json("[1]".to_owned(), &Limits::default()).expect("JSON"),
            tags: vec!["t".parse().expect("a tag")],
            metadata: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
            run_at: None,
            expires_at: Timestamp::from_timestamp(9, 0),
            start_timeout: None,
            timeout: Some(Duration::from_secs(3)),
            heartbeat_timeout: None,
            deadline: Some(Duration::from_secs(60)),
            retry: RetryPolicy::default(),
            idempotency: None,
            fairness_key: None,
            parent: None,
        }
    }

    /// Digests are stored: a repeat that comes after an upgrade must find the task that was submitted before it.
    #[test]
    fn the_digest_of_a_stored_task_stays_what_it_was() {
        let hex = spec().digest().map(|byte| format!("{byte:02x}")).concat();
        assert_eq!(hex, "b42921f45535b7e4ae6771f3127aef1e");
        let crashes = crate::retry::RetryPolicyParts { max_crashes: Some(1), ..Default::default() };
        for changed in [
            TaskSpec { start_timeout: Some(Duration::from_secs(1)), ..spec() },
            TaskSpec { heartbeat_timeout: Some(Duration::from_secs(1)), ..spec() },
            TaskSpec { retry: RetryPolicy::new(crashes).expect("a policy"), ..spec() },
        ] {
            assert_ne!(changed.digest(), spec().digest());
        }
    }

    #[test]
    fn a_start_timeout_counts_from_the_earliest_start() {
        let at = |second| Timestamp::from_timestamp(second, 0);
        let limited = TaskSpec { expires_at: None, deadline: None, start_timeout: Some(Duration::from_secs(5)), ..spec() };
        let created_at = at(100).expect("a time");
        let start_by = |run_at| TaskSpec { run_at, ..limited.clone() }.start_by(created_at).map(|start_by| start_by.at);
        assert_eq!(start_by(None), at(105));
        assert_eq!(start_by(at(200)), at(205));
        assert_eq!(start_by(at(1)), at(105), "a time that had passed means at once");
    }
}
