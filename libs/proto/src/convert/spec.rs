//! Specifications of tasks, read with every mistake in them named.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use chrono::TimeDelta;
use oxcart_types::{
    FairnessKey, IdSource, Idempotency, IdempotencyPolicy, Limits, Priority, QueueName, RetryPolicy, Tag, TaskId, TaskName,
    TaskSpec, Timestamp, Violations,
    spec::check_order,
    violation::{Invalid, reason},
};

pub use super::{
    changes::update,
    task::{to_run, to_task},
};
use super::{enums, scalar, value};
use crate::pb::common::v1 as pb;

/// Oldest time that an id chosen by a caller may carry.
///
/// The audit walks over tasks in the order of their ids, from a mark that trails behind the present: a task that appeared below
/// the mark would never be seen again. So chosen ids must carry a time (UUIDv7), and not an old one.
pub const CHOSEN_ID_MAX_AGE: Duration = Duration::from_secs(600);
/// How far ahead of the present an id chosen by a caller may be.
///
/// Clocks of clients may be wrong by some hours; an id of a far future would head every list, and outlive every retention, for
/// good.
pub const CHOSEN_ID_MAX_LEAD: Duration = Duration::from_secs(24 * 3600);

/// What reading a specification depends on.
#[derive(Clone, Copy)]
pub struct SpecContext<'a> {
    /// Bounds of the deployment.
    pub limits: &'a Limits,
    /// Time of submission: delays count from it.
    pub now: Timestamp,
    /// Makes the ids of tasks that bring none.
    pub ids: &'a dyn IdSource,
}

/// Reads a specification and fills in the defaults. The flag says that the caller chose the id.
///
/// # Errors
/// Every violation, with its path.
pub fn task_spec(spec: pb::TaskSpec, context: &SpecContext<'_>) -> Result<(TaskSpec, bool), Violations> {
    let mut bad = Violations::new();
    let now = context.now;
    let id_chosen = !spec.task_id.is_empty();
    let id = if id_chosen { bad.take("task_id", chosen_id(&spec.task_id, now)) } else { Some(context.ids.task_id()) };
    let name = bad.take("task_name", spec.task_name.parse::<TaskName>());
    let queue = queue(&mut bad, &spec.queue);
    let payload = bad.take("payload", value::payload(spec.payload, context.limits));
    let priority = priority(&mut bad, spec.priority);
    let tags = tags(&mut bad, &spec.tags);
    let metadata = metadata(&mut bad, spec.metadata);
    let run_at = start(&mut bad, spec.start, now);
    let expires_at = spec.expires_at.and_then(|at| bad.take("expires_at", future(at, now)));
    let start_timeout = spec.start_timeout.and_then(|limit| bad.take("start_timeout", positive(limit, Limits::HORIZON)));
    let timeout = spec.timeout.and_then(|limit| bad.take("timeout", positive(limit, Limits::TIMEOUT)));
    let heartbeat_timeout =
        spec.heartbeat_timeout.and_then(|limit| bad.take("heartbeat_timeout", positive(limit, Limits::TIMEOUT)));
    let deadline = spec.deadline.and_then(|limit| bad.take("deadline", positive(limit, Limits::DEADLINE)));
    check_order(&mut bad, run_at, expires_at, deadline.and_then(|limit| later(now, limit)));
    let retry = retry(&mut bad, spec.retry_policy);
    let idempotency = idempotency(&mut bad, spec.idempotency_key, spec.idempotency_policy, spec.idempotency_ttl);
    let parent = spec.parent.and_then(|link| parent(&mut bad, &link, id));
    let fairness_key = optional(&spec.fairness_key, |key| bad.take("fairness_key", key.parse::<FairnessKey>()));
    bad.check()?;
    // Everything that can be missing has been noted above.
    match (id, name, queue, payload, priority) {
        (Some(id), Some(name), Some(queue), Some(payload), Some(priority)) => Ok((
            TaskSpec {
                id,
                name,
                queue,
                priority,
                payload,
                tags,
                metadata,
                run_at,
                expires_at,
                start_timeout,
                timeout,
                heartbeat_timeout,
                deadline,
                retry,
                idempotency,
                fairness_key,
                parent,
            },
            id_chosen,
        )),
        _ => Err(Violations::new()),
    }
}

/// Writes a specification, defaults filled in.
#[must_use]
pub fn to_task_spec(spec: TaskSpec, with_payload: bool) -> pb::TaskSpec {
    let key = spec.idempotency;
    pb::TaskSpec {
        task_id: spec.id.to_string(),
        task_name: spec.name.as_str().to_owned(),
        queue: spec.queue.as_str().to_owned(),
        payload: with_payload.then(|| value::to_payload(spec.payload)),
        priority: Some(i32::from(spec.priority.get())),
        tags: spec.tags.iter().map(|tag| tag.as_str().to_owned()).collect(),
        metadata: spec.metadata.into_iter().collect(),
        start: spec.run_at.map(|at| pb::task_spec::Start::RunAt(scalar::to_timestamp(at))),
        expires_at: spec.expires_at.map(scalar::to_timestamp),
        start_timeout: spec.start_timeout.map(scalar::to_duration),
        timeout: spec.timeout.map(scalar::to_duration),
        heartbeat_timeout: spec.heartbeat_timeout.map(scalar::to_duration),
        deadline: spec.deadline.map(scalar::to_duration),
        retry_policy: Some(value::to_retry_policy(&spec.retry)),
        idempotency_policy: key.as_ref().map_or(0, |key| enums::to_idempotency_policy(key.policy).into()),
        idempotency_ttl: key.as_ref().map(|key| scalar::to_duration(key.ttl)),
        idempotency_key: key.map(|key| key.key).unwrap_or_default(),
        fairness_key: spec.fairness_key.map(|key| key.as_str().to_owned()).unwrap_or_default(),
        parent: spec.parent.map(|parent| pb::ParentLink { parent_task_id: parent.to_string() }),
    }
}

fn chosen_id(text: &str, now: Timestamp) -> Result<TaskId, Invalid> {
    let id: TaskId = text.parse()?;
    let uuid = id.as_uuid();
    let made = (uuid.get_version_num() == 7).then(|| uuid.get_timestamp()).flatten();
    let Some((seconds, nanos)) = made.map(|made| made.to_unix()) else {
        return Err(Invalid::value(format!(
            "{id} is no UUIDv7; a chosen id must be one, since tasks are kept in the order of their ids"
        )));
    };
    let made = i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_timestamp(seconds, nanos));
    let Some(made) = made else { return Err(Invalid::value(format!("{id} carries no time"))) };
    let age = now.signed_duration_since(made);
    if age.to_std().is_ok_and(|age| age > CHOSEN_ID_MAX_AGE) {
        return Err(Invalid::value(format!(
            "{id} was made at {made}; a chosen id may be at most {CHOSEN_ID_MAX_AGE:?} old when the task is submitted"
        )));
    }
    if (-age).to_std().is_ok_and(|lead| lead > CHOSEN_ID_MAX_LEAD) {
        return Err(Invalid::value(format!(
            "{id} says that it was made at {made}; a chosen id may be at most {CHOSEN_ID_MAX_LEAD:?} ahead of {now}"
        )));
    }
    Ok(id)
}

/// A task that started itself would be a tree without a root.
fn parent(bad: &mut Violations, link: &pb::ParentLink, id: Option<TaskId>) -> Option<TaskId> {
    let field = "parent.parent_task_id";
    if link.parent_task_id.is_empty() {
        return bad.take(field, Err(Invalid::required()));
    }
    let parent: TaskId = bad.take(field, link.parent_task_id.parse())?;
    if Some(parent) == id {
        bad.add(field, reason::FIELD_CONFLICT, "is the task itself");
    }
    Some(parent)
}

pub(super) fn queue(bad: &mut Violations, name: &str) -> Option<QueueName> {
    if name.is_empty() { Some(QueueName::default_queue()) } else { bad.take("queue", name.parse()) }
}

pub(super) fn priority(bad: &mut Violations, priority: Option<i32>) -> Option<Priority> {
    priority.map_or(Some(Priority::default()), |number| bad.take("priority", Priority::try_from(i64::from(number))))
}

pub(super) fn tags(bad: &mut Violations, tags: &[String]) -> Vec<Tag> {
    if tags.len() > Limits::TAGS {
        bad.add("tags", reason::FIELD_INVALID, format!("has {} tags; at most {} are allowed", tags.len(), Limits::TAGS));
    }
    // The rest of too many is not looked at: what is wrong with it would be as many violations.
    let mut read: Vec<Tag> =
        tags.iter().take(Limits::TAGS).enumerate().filter_map(|(i, tag)| bad.take(&format!("tags[{i}]"), tag.parse())).collect();
    read.sort();
    read.dedup();
    read
}

fn metadata(bad: &mut Violations, pairs: HashMap<String, String>) -> BTreeMap<String, String> {
    if pairs.len() > Limits::METADATA_PAIRS {
        let max = Limits::METADATA_PAIRS;
        bad.add("metadata", reason::FIELD_INVALID, format!("has {} pairs; at most {max} are allowed", pairs.len()));
    }
    let bytes: usize = pairs.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > Limits::METADATA_BYTES {
        let max = Limits::METADATA_BYTES;
        bad.add("metadata", reason::FIELD_INVALID, format!("has {bytes} bytes in all; at most {max} are allowed"));
    }
    let pairs: BTreeMap<_, _> = pairs.into_iter().collect();
    for (i, (key, value)) in pairs.iter().take(Limits::METADATA_PAIRS).enumerate() {
        if key.is_empty() || key.len() > Limits::METADATA_KEY_BYTES {
            let (length, max) = (key.len(), Limits::METADATA_KEY_BYTES);
            bad.add("metadata", reason::FIELD_INVALID, format!("key {i} (sorted) has {length} bytes; 1 to {max} are allowed"));
        } else if value.len() > Limits::METADATA_VALUE_BYTES {
            let (length, max) = (value.len(), Limits::METADATA_VALUE_BYTES);
            bad.add(format!("metadata[{key:?}]"), reason::FIELD_INVALID, format!("has {length} bytes; at most {max} are allowed"));
        }
    }
    pairs
}

fn start(bad: &mut Violations, start: Option<pb::task_spec::Start>, now: Timestamp) -> Option<Timestamp> {
    match start? {
        pb::task_spec::Start::RunAt(at) => bad.take("run_at", planned(at, now)),
        pb::task_spec::Start::Delay(delay) => {
            let delay = bad.take("delay", scalar::duration_up_to(delay, Limits::HORIZON))?;
            later(now, delay)
        }
    }
}

pub(super) fn retry(bad: &mut Violations, policy: Option<pb::RetryPolicy>) -> RetryPolicy {
    match policy.map(value::retry_policy) {
        None => RetryPolicy::default(),
        Some(Ok(policy)) => policy,
        Some(Err(part)) => {
            bad.nest("retry_policy", part);
            RetryPolicy::default()
        }
    }
}

fn idempotency(bad: &mut Violations, key: String, policy: i32, ttl: Option<prost_types::Duration>) -> Option<Idempotency> {
    let ttl_given = ttl.is_some();
    let policy = bad.take("idempotency_policy", enums::idempotency_policy(policy));
    let ttl = ttl.map_or(Some(Idempotency::DEFAULT_TTL), |ttl| bad.take("idempotency_ttl", positive(ttl, Limits::IDEMPOTENCY_TTL)));
    if key.is_empty() {
        if ttl_given || policy.is_some_and(|policy| policy != IdempotencyPolicy::ReturnExisting) {
            bad.add("idempotency_key", reason::FIELD_REQUIRED, "is required with idempotency_policy and idempotency_ttl");
        }
        return None;
    }
    if key.len() > Limits::IDEMPOTENCY_KEY_BYTES || key.contains(char::is_control) {
        let max = Limits::IDEMPOTENCY_KEY_BYTES;
        bad.add(
            "idempotency_key",
            reason::FIELD_INVALID,
            format!("has {} bytes; 1 to {max} without control characters are allowed", key.len()),
        );
    }
    Some(Idempotency { key, policy: policy?, ttl: ttl? })
}

/// An instant that is not too far away; one that has passed means at once.
pub(super) fn planned(at: prost_types::Timestamp, now: Timestamp) -> Result<Timestamp, Invalid> {
    let at = scalar::timestamp(at)?;
    match later(now, Limits::HORIZON) {
        Some(limit) if at > limit => Err(Invalid::value(format!("is {at}; at most {:?} from now are allowed", Limits::HORIZON))),
        _ => Ok(at),
    }
}

/// An instant that has not passed and is not too far away.
pub(super) fn future(at: prost_types::Timestamp, now: Timestamp) -> Result<Timestamp, Invalid> {
    let at = planned(at, now)?;
    if at <= now { Err(Invalid::value(format!("is {at}, which has passed"))) } else { Ok(at) }
}

/// A duration above zero and up to `max`.
pub(super) fn positive(value: prost_types::Duration, max: Duration) -> Result<Duration, Invalid> {
    match scalar::duration_up_to(value, max)? {
        Duration::ZERO => Err(Invalid::value("is zero; leave it out for the default")),
        value => Ok(value),
    }
}

pub(super) fn later(now: Timestamp, by: Duration) -> Option<Timestamp> {
    TimeDelta::from_std(by).ok().and_then(|by| now.checked_add_signed(by)).map(oxcart_types::clock::to_micros)
}

fn optional<T>(text: &str, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
    if text.is_empty() { None } else { read(text) }
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
