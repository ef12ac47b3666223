//! The specification of a task as a row of `tasks`.

use std::{collections::BTreeMap, time::Duration};

use chrono::NaiveDateTime;
use diesel::{
    Insertable, QueryableByName,
    sql_types::{BigInt, Binary, Integer, Nullable, SmallInt, Text, Timestamp as SqlTimestamp},
};
use oxcart_types::{
    HandoffId, Idempotency, IdempotencyPolicy, Limits, Payload, Priority, RetryPolicy, Tag, TaskSpec, Timestamp,
    retry::RetryPolicyParts,
};
use serde::{Deserialize, Serialize};

use crate::{
    NewTask, StoreError,
    codes::Coded as _,
    columns::{self, Id16},
    schema::tasks,
};

/// A row of `tasks` on its way in.
#[derive(Debug, Clone, Insertable)]
#[diesel(table_name = tasks, treat_none_as_default_value = false)]
pub(crate) struct TaskInsert {
    pub(crate) id: Id16,
    name: String,
    queue: String,
    priority: i16,
    content_type: String,
    payload: Vec<u8>,
    tags: Option<String>,
    metadata: Option<String>,
    run_at: Option<NaiveDateTime>,
    expires_at: Option<NaiveDateTime>,
    timeout_nanos: Option<i64>,
    deadline_nanos: Option<i64>,
    max_attempts: i32,
    retry: Option<String>,
    idempotency_key: Option<String>,
    idempotency_policy: Option<i16>,
    idempotency_ttl_nanos: Option<i64>,
    fairness_key: Option<String>,
    digest: Id16,
    handoff: Option<Id16>,
    created_at: NaiveDateTime,
    start_timeout_nanos: Option<i64>,
    heartbeat_timeout_nanos: Option<i64>,
    parent: Option<Id16>,
}

impl TaskInsert {
    /// Writes a task that goes out with an outbox row, or with none when it is set aside.
    pub(crate) fn encode(task: &NewTask, handoff: HandoffId) -> Result<Self, StoreError> {
        let spec = &task.spec;
        let key = spec.idempotency.as_ref();
        Ok(Self {
            id: spec.id.into(),
            name: spec.name.as_str().to_owned(),
            queue: spec.queue.as_str().to_owned(),
            priority: i16::from(spec.priority.get()),
            content_type: columns::fit("content_type", spec.payload.content_type().to_owned(), Limits::CONTENT_TYPE_BYTES)?,
            payload: columns::fit("payload", spec.payload.as_bytes().to_vec(), columns::BLOB_BYTES)?,
            tags: tags_json(spec)?,
            metadata: if spec.metadata.is_empty() {
                None
            } else {
                Some(columns::fit("metadata", json(&spec.metadata)?, columns::BLOB_BYTES)?)
            },
            run_at: spec.run_at.map(columns::time),
            expires_at: spec.expires_at.map(columns::time),
            timeout_nanos: limit("timeout_nanos", spec.timeout)?,
            deadline_nanos: limit("deadline_nanos", spec.deadline)?,
            max_attempts: columns::count("max_attempts", spec.retry.max_attempts())?,
            retry: retry_json(&spec.retry)?,
            idempotency_key: key
                .map(|key| columns::fit("idempotency_key", key.key.clone(), Limits::IDEMPOTENCY_KEY_BYTES))
                .transpose()?,
            idempotency_policy: key.map(|key| key.policy.code()),
            idempotency_ttl_nanos: key.map(|key| columns::nanos("idempotency_ttl_nanos", key.ttl)).transpose()?,
            fairness_key: spec.fairness_key.as_ref().map(|key| key.as_str().to_owned()),
            digest: Id16(task.digest),
            handoff: if task.set_aside.is_none() { Some(handoff.into()) } else { None },
            created_at: columns::time(task.created_at),
            start_timeout_nanos: limit("start_timeout_nanos", spec.start_timeout)?,
            heartbeat_timeout_nanos: limit("heartbeat_timeout_nanos", spec.heartbeat_timeout)?,
            parent: spec.parent.map(Id16::from),
        })
    }

    /// Bytes of what can be large, for the size of a statement.
    pub(crate) fn weight(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        self.payload.len() + text(&self.metadata) + text(&self.tags)
    }
}

/// A limit of time as its column.
pub(crate) fn limit(column: &'static str, limit: Option<Duration>) -> Result<Option<i64>, StoreError> {
    limit.map(|limit| columns::nanos(column, limit)).transpose()
}

/// Tags as their column.
pub(crate) fn tags_json(spec: &TaskSpec) -> Result<Option<String>, StoreError> {
    if spec.tags.is_empty() {
        return Ok(None);
    }
    let tags: Vec<&str> = spec.tags.iter().map(oxcart_types::Tag::as_str).collect();
    columns::fit("tags", json(&tags)?, columns::TEXT_BYTES).map(Some)
}

/// A retry policy as its column, without the number of attempts; `None` for the default.
pub(crate) fn retry_json(retry: &RetryPolicy) -> Result<Option<String>, StoreError> {
    let default = RetryPolicy::default();
    let parts = RetryColumn {
        initial_backoff_nanos: columns::nanos("retry", retry.initial_backoff())?,
        multiplier: retry.multiplier().to_string(),
        max_backoff_nanos: columns::nanos("retry", retry.max_backoff())?,
        jitter: retry.jitter().to_string(),
        non_retryable_kinds: retry.non_retryable_kinds().iter().map(|kind| kind.as_str().to_owned()).collect(),
        max_crashes: Some(retry.max_crashes()).filter(|crashes| *crashes != default.max_crashes()),
    };
    let same = retry.initial_backoff() == default.initial_backoff()
        && retry.multiplier().to_bits() == default.multiplier().to_bits()
        && retry.max_backoff() == default.max_backoff()
        && retry.jitter().to_bits() == default.jitter().to_bits()
        && retry.non_retryable_kinds().is_empty()
        && parts.max_crashes.is_none();
    if same { Ok(None) } else { columns::fit("retry", json(&parts)?, columns::TEXT_BYTES).map(Some) }
}

/// The column `retry`. Fractions are text: a JSON number would not read back to the last bit.
#[derive(Debug, Serialize, Deserialize)]
struct RetryColumn {
    initial_backoff_nanos: i64,
    multiplier: String,
    max_backoff_nanos: i64,
    jitter: String,
    non_retryable_kinds: Vec<String>,
    /// Left out where it is the default, as rows that are older than it have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_crashes: Option<u32>,
}

fn json<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Refused(Box::new(error)))
}

fn from_json<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Corrupt(error.to_string()))
}

/// The columns of [`SpecRow`] but the payload, of `tasks t`.
pub(crate) const SPEC_COLUMNS: &str = "t.id, t.name, t.queue, t.priority, t.content_type, t.tags, t.metadata, t.run_at, \
     t.expires_at, t.timeout_nanos, t.deadline_nanos, t.max_attempts, t.retry, t.idempotency_key, t.idempotency_policy, \
     t.idempotency_ttl_nanos, t.fairness_key, t.parent, t.created_at, t.start_timeout_nanos, t.heartbeat_timeout_nanos";

/// A row of `tasks` as it is read.
#[derive(Debug, Clone, QueryableByName)]
pub(crate) struct SpecRow {
    #[diesel(sql_type = Binary)]
    pub(crate) id: Id16,
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Text)]
    queue: String,
    #[diesel(sql_type = SmallInt)]
    priority: i16,
    #[diesel(sql_type = Text)]
    content_type: String,
    #[diesel(sql_type = Nullable<Binary>)]
    payload: Option<Vec<u8>>,
    #[diesel(sql_type = Nullable<Text>)]
    tags: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    metadata: Option<String>,
    #[diesel(sql_type = Nullable<SqlTimestamp>)]
    run_at: Option<NaiveDateTime>,
    #[diesel(sql_type = Nullable<SqlTimestamp>)]
    expires_at: Option<NaiveDateTime>,
    #[diesel(sql_type = Nullable<BigInt>)]
    timeout_nanos: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    deadline_nanos: Option<i64>,
    #[diesel(sql_type = Integer)]
    max_attempts: i32,
    #[diesel(sql_type = Nullable<Text>)]
    retry: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    idempotency_key: Option<String>,
    #[diesel(sql_type = Nullable<SmallInt>)]
    idempotency_policy: Option<i16>,
    #[diesel(sql_type = Nullable<BigInt>)]
    idempotency_ttl_nanos: Option<i64>,
    #[diesel(sql_type = Nullable<Text>)]
    fairness_key: Option<String>,
    #[diesel(sql_type = Nullable<Binary>)]
    parent: Option<Id16>,
    #[diesel(sql_type = SqlTimestamp)]
    created_at: NaiveDateTime,
    #[diesel(sql_type = Nullable<BigInt>)]
    start_timeout_nanos: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    heartbeat_timeout_nanos: Option<i64>,
}

impl SpecRow {
    /// Time of submission.
    pub(crate) fn created_at(&self) -> Timestamp {
        columns::read_time(self.created_at)
    }

    /// Reads the specification; the payload is `null` when it was left out.
    pub(crate) fn decode(self) -> Result<TaskSpec, StoreError> {
        let metadata: BTreeMap<String, String> = self.metadata.as_deref().map(from_json).transpose()?.unwrap_or_default();
        Ok(TaskSpec {
            id: self.id.into(),
            name: columns::read_name(&self.name)?,
            queue: columns::read_name(&self.queue)?,
            priority: read_priority(self.priority)?,
            payload: self.payload.map_or_else(Payload::null, |bytes| Payload::from_stored(self.content_type, bytes)),
            tags: read_tags(self.tags.as_deref())?,
            metadata,
            run_at: self.run_at.map(columns::read_time),
            expires_at: self.expires_at.map(columns::read_time),
            start_timeout: self.start_timeout_nanos.map(columns::read_nanos).transpose()?,
            timeout: self.timeout_nanos.map(columns::read_nanos).transpose()?,
            heartbeat_timeout: self.heartbeat_timeout_nanos.map(columns::read_nanos).transpose()?,
            deadline: self.deadline_nanos.map(columns::read_nanos).transpose()?,
            retry: read_retry(self.max_attempts, self.retry.as_deref())?,
            idempotency: read_idempotency(self.idempotency_key, self.idempotency_policy, self.idempotency_ttl_nanos)?,
            fairness_key: self.fairness_key.as_deref().map(columns::read_name).transpose()?,
            parent: self.parent.map(Into::into),
        })
    }
}

/// Tags from their column.
pub(crate) fn read_tags(column: Option<&str>) -> Result<Vec<Tag>, StoreError> {
    let tags: Vec<String> = column.map(from_json).transpose()?.unwrap_or_default();
    tags.iter().map(|tag| columns::read_name(tag)).collect()
}

/// A priority from its column.
pub(crate) fn read_priority(number: i16) -> Result<Priority, StoreError> {
    Priority::try_from(i64::from(number)).map_err(|error| StoreError::Corrupt(error.to_string()))
}

/// A retry policy from its columns.
pub(crate) fn read_retry(max_attempts: i32, column: Option<&str>) -> Result<RetryPolicy, StoreError> {
    let max_attempts = Some(i64::from(max_attempts));
    let parts = match column {
        None => RetryPolicyParts { max_attempts, ..RetryPolicyParts::default() },
        Some(text) => {
            let column: RetryColumn = from_json(text)?;
            let number = |text: &str| text.parse::<f64>().map_err(|error| StoreError::Corrupt(format!("retry: {error}")));
            RetryPolicyParts {
                max_attempts,
                initial_backoff: Some(columns::read_nanos(column.initial_backoff_nanos)?),
                multiplier: Some(number(&column.multiplier)?),
                max_backoff: Some(columns::read_nanos(column.max_backoff_nanos)?),
                jitter: Some(number(&column.jitter)?),
                non_retryable_kinds: column.non_retryable_kinds,
                max_crashes: column.max_crashes.map(i64::from),
            }
        }
    };
    RetryPolicy::new(parts).map_err(|bad| StoreError::Corrupt(format!("retry policy: {bad}")))
}

fn read_idempotency(key: Option<String>, policy: Option<i16>, ttl: Option<i64>) -> Result<Option<Idempotency>, StoreError> {
    match (key, policy, ttl) {
        (None, None, None) => Ok(None),
        (Some(key), Some(policy), Some(ttl)) => {
            Ok(Some(Idempotency { key, policy: IdempotencyPolicy::decode(policy)?, ttl: columns::read_nanos(ttl)? }))
        }
        _ => Err(StoreError::Corrupt("half an idempotency key".to_owned())),
    }
}
