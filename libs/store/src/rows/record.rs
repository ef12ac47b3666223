//! Tasks and runs as they are read.

use chrono::NaiveDateTime;
use diesel::{
    QueryableByName,
    sql_types::{BigInt, Binary, Integer, Nullable, SmallInt, Text, Timestamp as SqlTimestamp},
};
use oxcart_types::{EndKind, Payload, TaskId, TaskState, chain::StartKind, record::ReplayRecord};

use super::{failure::FailureColumns, head::HeadRow, spec::SpecRow};
use crate::{
    Progress, RunEndRecord, RunRecord, StoreError, TaskRecord,
    codes::Coded as _,
    columns::{self, Id16},
};

/// The columns of [`RecordRow`] that come on top of specification and head, in both views.
pub(crate) const RECORD_COLUMNS: &str = "e.failure_kind, e.failure_message, e.failure_fatal, e.failure_retry_after_nanos, \
     p.failure_kind AS before_kind, p.failure_message AS before_message, p.failure_fatal AS before_fatal, \
     p.failure_retry_after_nanos AS before_retry_after_nanos, \
     l.progress_current, l.progress_total, l.progress_message, l.progress_at";
/// What only the full view reads.
pub(crate) const FULL_COLUMNS: &str = "t.payload, e.result_type, e.result, e.failure_detail, p.failure_detail AS before_detail";
/// The same columns, left empty for the basic view.
pub(crate) const BASIC_COLUMNS: &str =
    "NULL AS payload, NULL AS result_type, NULL AS result, NULL AS failure_detail, NULL AS before_detail";

/// A task, its chain's head and what people want to see of it.
#[derive(Debug, Clone, QueryableByName)]
pub(crate) struct RecordRow {
    #[diesel(embed)]
    pub(crate) spec: SpecRow,
    #[diesel(embed)]
    head: HeadRow,
    #[diesel(embed)]
    late: LateRow,
}

#[derive(Debug, Clone, QueryableByName)]
struct LateRow {
    #[diesel(sql_type = Nullable<Text>)]
    result_type: Option<String>,
    #[diesel(sql_type = Nullable<Binary>)]
    result: Option<Vec<u8>>,
    #[diesel(sql_type = Nullable<Text>)]
    failure_kind: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    failure_message: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    failure_detail: Option<String>,
    #[diesel(sql_type = Nullable<SmallInt>)]
    failure_fatal: Option<i16>,
    #[diesel(sql_type = Nullable<BigInt>)]
    failure_retry_after_nanos: Option<i64>,
    #[diesel(sql_type = Nullable<Text>)]
    before_kind: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    before_message: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    before_detail: Option<String>,
    #[diesel(sql_type = Nullable<SmallInt>)]
    before_fatal: Option<i16>,
    #[diesel(sql_type = Nullable<BigInt>)]
    before_retry_after_nanos: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    progress_current: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    progress_total: Option<i64>,
    #[diesel(sql_type = Nullable<Text>)]
    progress_message: Option<String>,
    #[diesel(sql_type = Nullable<SqlTimestamp>)]
    progress_at: Option<NaiveDateTime>,
}

impl RecordRow {
    /// Reads the row.
    pub(crate) fn decode(self) -> Result<TaskRecord, StoreError> {
        let id: TaskId = self.spec.id.into();
        let head = self.head.decode()?;
        let state = head
            .task
            .head
            .state()
            .map_err(|impossible| StoreError::Corrupt(format!("task {id} has an impossible chain: {impossible}")))?;
        // What a replay has undone is no result any more.
        let undone = head.task.head.latest.is_some_and(|latest| head.task.head.replayed == Some(latest.run));
        let late = self.late;
        let failure = FailureColumns {
            kind: late.failure_kind,
            message: late.failure_message,
            detail: late.failure_detail,
            fatal: late.failure_fatal,
            retry_after_nanos: late.failure_retry_after_nanos,
        };
        let before = FailureColumns {
            kind: late.before_kind,
            message: late.before_message,
            detail: late.before_detail,
            fatal: late.before_fatal,
            retry_after_nanos: late.before_retry_after_nanos,
        };
        let failure = match failure.decode()? {
            Some(failure) => Some(failure),
            // A success makes what went wrong before it history.
            None if state == TaskState::Succeeded => None,
            None => before.decode()?,
        };
        let progress = late.progress_at.map(|at| Progress {
            current: late.progress_current.unwrap_or_default(),
            total: late.progress_total.unwrap_or_default(),
            message: late.progress_message.unwrap_or_default(),
            at: columns::read_time(at),
        });
        Ok(TaskRecord {
            created_at: self.spec.created_at(),
            spec: self.spec.decode()?,
            head: head.task.head,
            state,
            started_at: head.latest_started_at,
            ended_at: if state.is_terminal() { head.ended_at } else { None },
            next_run_at: head.latest_end().and_then(|end| end.next_run_at),
            worker: head.worker,
            result: late.result.zip(late.result_type).filter(|_| !undone).map(|(bytes, kind)| Payload::from_stored(kind, bytes)),
            failure,
            progress,
            cancel: head.task.cancel,
            runs: Vec::new(),
        })
    }
}

/// What [`RUN_COLUMNS`] are read from.
pub(crate) const RUN_TABLES: &str = "starts s LEFT JOIN ends e ON e.task = s.task AND e.run = s.run \
     LEFT JOIN replays r ON r.task = s.task AND r.run = s.run";

/// The columns of [`RunRow`], of [`RUN_TABLES`].
pub(crate) const RUN_COLUMNS: &str = "s.task, s.run, s.kind AS start_kind, s.attempt, s.worker, s.started_at, e.kind AS end_kind, \
     e.ended_at, e.next_run_at, e.failure_kind, e.failure_message, e.failure_detail, e.failure_fatal, e.failure_retry_after_nanos, \
     r.reason AS replay_reason, r.max_attempts AS replay_attempts, r.replayed_at";

/// One link of a chain.
#[derive(Debug, Clone, QueryableByName)]
pub(crate) struct RunRow {
    #[diesel(sql_type = Binary)]
    pub(crate) task: Id16,
    #[diesel(sql_type = Integer)]
    run: i32,
    #[diesel(sql_type = SmallInt)]
    start_kind: i16,
    #[diesel(sql_type = Integer)]
    attempt: i32,
    #[diesel(sql_type = Nullable<Binary>)]
    worker: Option<Id16>,
    #[diesel(sql_type = SqlTimestamp)]
    started_at: NaiveDateTime,
    #[diesel(sql_type = Nullable<SmallInt>)]
    end_kind: Option<i16>,
    #[diesel(sql_type = Nullable<SqlTimestamp>)]
    ended_at: Option<NaiveDateTime>,
    #[diesel(sql_type = Nullable<SqlTimestamp>)]
    next_run_at: Option<NaiveDateTime>,
    #[diesel(sql_type = Nullable<Text>)]
    failure_kind: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    failure_message: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    failure_detail: Option<String>,
    #[diesel(sql_type = Nullable<SmallInt>)]
    failure_fatal: Option<i16>,
    #[diesel(sql_type = Nullable<BigInt>)]
    failure_retry_after_nanos: Option<i64>,
    #[diesel(sql_type = Nullable<Text>)]
    replay_reason: Option<String>,
    #[diesel(sql_type = Nullable<Integer>)]
    replay_attempts: Option<i32>,
    #[diesel(sql_type = Nullable<SqlTimestamp>)]
    replayed_at: Option<NaiveDateTime>,
}

impl RunRow {
    /// Reads the row.
    pub(crate) fn decode(self) -> Result<RunRecord, StoreError> {
        let failure = FailureColumns {
            kind: self.failure_kind,
            message: self.failure_message,
            detail: self.failure_detail,
            fatal: self.failure_fatal,
            retry_after_nanos: self.failure_retry_after_nanos,
        };
        let replay = match self.replayed_at.zip(self.replay_reason) {
            None => None,
            Some((at, reason)) => Some(ReplayRecord {
                at: columns::read_time(at),
                max_attempts: self.replay_attempts.map(columns::read_count).transpose()?,
                reason,
            }),
        };
        let end = match self.end_kind.zip(self.ended_at) {
            None => None,
            Some((kind, at)) => Some(RunEndRecord {
                kind: EndKind::decode(kind)?,
                at: columns::read_time(at),
                failure: failure.decode()?,
                next_run_at: self.next_run_at.map(columns::read_time),
                replay,
            }),
        };
        Ok(RunRecord {
            run: columns::read_run(self.run)?,
            kind: StartKind::decode(self.start_kind)?,
            attempt: columns::read_count(self.attempt)?,
            worker: self.worker.map(Into::into),
            started_at: columns::read_time(self.started_at),
            end,
        })
    }
}
