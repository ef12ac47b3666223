//! Starts and ends.

use chrono::NaiveDateTime;
use diesel::{
    Insertable, QueryableByName,
    sql_types::{Binary, Integer, Nullable, SmallInt, Timestamp as SqlTimestamp},
};
use oxcart_types::{EndKind, Failure, LeaseToken, Limits, Payload, Run, TaskId, Timestamp, WorkerId, chain::StartKind};

use super::failure::FailureColumns;
use crate::{
    Budget, StoreError,
    codes::Coded as _,
    columns::{self, Id16},
    schema::{cancels, ends, replays, starts},
};

/// A row of `starts`.
#[derive(Debug, Clone, Insertable)]
#[diesel(table_name = starts, treat_none_as_default_value = false)]
pub(crate) struct StartRow {
    pub(crate) task: Id16,
    pub(crate) run: i32,
    kind: i16,
    attempt: i32,
    token: Id16,
    worker: Option<Id16>,
    started_at: NaiveDateTime,
}

impl StartRow {
    /// A run begins.
    pub(crate) fn begun(start: &crate::Start, attempt: u32, now: Timestamp) -> Result<Self, StoreError> {
        Self::new(start.task, start.run, StartKind::Worker, attempt, start.token, Some(start.worker), now)
    }

    /// A slot is closed, so that its run cannot begin.
    pub(crate) fn closed(task: TaskId, run: Run, attempts_used: u32, by: LeaseToken, now: Timestamp) -> Result<Self, StoreError> {
        Self::new(task, run, StartKind::Closer, attempts_used, by, None, now)
    }

    fn new(
        task: TaskId,
        run: Run,
        kind: StartKind,
        attempt: u32,
        token: LeaseToken,
        worker: Option<WorkerId>,
        at: Timestamp,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            task: task.into(),
            run: columns::run(run)?,
            kind: kind.code(),
            attempt: columns::count("attempt", attempt)?,
            token: token.into(),
            worker: worker.map(Id16::from),
            started_at: columns::time(at),
        })
    }
}

/// A row of `ends`.
#[derive(Debug, Clone, Insertable)]
#[diesel(table_name = ends, treat_none_as_default_value = false)]
pub(crate) struct EndRow {
    pub(crate) task: Id16,
    pub(crate) run: i32,
    pub(crate) kind: i16,
    ended_by: Id16,
    attempts_used: i32,
    next_run_at: Option<NaiveDateTime>,
    result_type: Option<String>,
    result: Option<Vec<u8>>,
    failure_kind: Option<String>,
    failure_message: Option<String>,
    failure_detail: Option<String>,
    failure_fatal: Option<i16>,
    failure_retry_after_nanos: Option<i64>,
    ended_at: NaiveDateTime,
}

/// What an end says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EndFacts<'a> {
    pub(crate) task: TaskId,
    pub(crate) run: Run,
    pub(crate) kind: EndKind,
    pub(crate) by: LeaseToken,
    pub(crate) attempts_used: u32,
    pub(crate) next_run_at: Option<Timestamp>,
    pub(crate) result: Option<&'a Payload>,
    pub(crate) failure: Option<&'a Failure>,
    pub(crate) at: Timestamp,
}

impl EndRow {
    /// Writes an end.
    pub(crate) fn encode(end: EndFacts<'_>) -> Result<Self, StoreError> {
        let failure = FailureColumns::encode(end.failure)?;
        let (result_type, result) = match end.result {
            None => (None, None),
            Some(result) => (
                Some(columns::fit("result_type", result.content_type().to_owned(), Limits::CONTENT_TYPE_BYTES)?),
                Some(columns::fit("result", result.as_bytes().to_vec(), columns::BLOB_BYTES)?),
            ),
        };
        Ok(Self {
            task: end.task.into(),
            run: columns::run(end.run)?,
            kind: end.kind.code(),
            ended_by: end.by.into(),
            attempts_used: columns::count("attempts_used", end.attempts_used)?,
            next_run_at: if end.kind.is_terminal() { None } else { end.next_run_at.map(columns::time) },
            result_type,
            result,
            failure_kind: failure.kind,
            failure_message: failure.message,
            failure_detail: failure.detail,
            failure_fatal: failure.fatal,
            failure_retry_after_nanos: failure.retry_after_nanos,
            ended_at: columns::time(end.at),
        })
    }

    /// Bytes of what can be large, for the size of a statement.
    pub(crate) fn weight(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        self.result.as_ref().map_or(0, Vec::len) + text(&self.failure_message) + text(&self.failure_detail)
    }
}

/// What the guards need of a start slot.
#[derive(Debug, Clone, Copy, QueryableByName)]
pub(crate) struct StartSlot {
    #[diesel(sql_type = Binary)]
    pub(crate) task: Id16,
    #[diesel(sql_type = Integer)]
    pub(crate) run: i32,
    #[diesel(sql_type = SmallInt)]
    kind: i16,
    #[diesel(sql_type = Integer)]
    attempt: i32,
    #[diesel(sql_type = Binary)]
    token: Id16,
    #[diesel(sql_type = SqlTimestamp)]
    started_at: NaiveDateTime,
}

impl StartSlot {
    /// A worker began this run with this token.
    pub(crate) fn begun_with(&self, token: LeaseToken) -> bool {
        self.token == token.into() && self.kind == StartKind::Worker.code()
    }

    /// The holder of this token closed this slot.
    pub(crate) fn closed_by(&self, token: LeaseToken) -> bool {
        self.token == token.into() && self.kind == StartKind::Closer.code()
    }

    /// A worker began this run.
    pub(crate) fn begun(&self) -> bool {
        self.kind == StartKind::Worker.code()
    }

    /// Counted starts, this one included.
    pub(crate) fn attempt(&self) -> Result<u32, StoreError> {
        columns::read_count(self.attempt)
    }

    /// When.
    pub(crate) fn started_at(&self) -> Timestamp {
        columns::read_time(self.started_at)
    }
}

/// What the guards need of an end slot.
#[derive(Debug, Clone, Copy, QueryableByName)]
pub(crate) struct EndSlot {
    #[diesel(sql_type = Binary)]
    pub(crate) task: Id16,
    #[diesel(sql_type = Integer)]
    pub(crate) run: i32,
    #[diesel(sql_type = SmallInt)]
    kind: i16,
    #[diesel(sql_type = Binary)]
    ended_by: Id16,
}

impl EndSlot {
    /// How it ended.
    pub(crate) fn kind(&self) -> Result<EndKind, StoreError> {
        EndKind::decode(self.kind)
    }

    /// The holder of this token wrote it.
    pub(crate) fn is_by(&self, token: LeaseToken) -> bool {
        self.ended_by == token.into()
    }
}

/// A row of `cancels`.
#[derive(Debug, Clone, Insertable, QueryableByName)]
#[diesel(table_name = cancels)]
pub(crate) struct CancelRow {
    pub(crate) task: Id16,
    budget: i32,
    reason: String,
    requested_at: NaiveDateTime,
    grace_nanos: i64,
}

/// Budget of a task that was never replayed.
pub(crate) const FIRST_BUDGET: i32 = 0;

impl CancelRow {
    /// Writes a cancel of the budget that began after the replay of `replayed`.
    pub(crate) fn encode(task: TaskId, replayed: Option<Run>, cancel: &crate::Cancel) -> Result<Self, StoreError> {
        Ok(Self {
            task: task.into(),
            budget: replayed.map_or(Ok(FIRST_BUDGET), columns::run)?,
            reason: columns::fit("reason", cancel.reason.clone(), columns::TEXT_BYTES)?,
            requested_at: columns::time(cancel.requested_at),
            grace_nanos: columns::nanos("grace_nanos", cancel.grace)?,
        })
    }

    /// Reads a cancel.
    pub(crate) fn decode(self) -> Result<crate::Cancel, StoreError> {
        Ok(crate::Cancel {
            reason: self.reason,
            requested_at: columns::read_time(self.requested_at),
            grace: columns::read_nanos(self.grace_nanos)?,
        })
    }
}

/// A row of `replays`.
#[derive(Debug, Clone, Insertable)]
#[diesel(table_name = replays, treat_none_as_default_value = false)]
pub(crate) struct ReplayRow {
    pub(crate) task: Id16,
    run: i32,
    token: Id16,
    max_attempts: Option<i32>,
    reason: String,
    replayed_at: NaiveDateTime,
}

impl ReplayRow {
    /// Undoes the terminal end of `run`.
    pub(crate) fn encode(replay: &crate::Replay, run: Run, now: Timestamp) -> Result<Self, StoreError> {
        Ok(Self {
            task: replay.task.into(),
            run: columns::run(run)?,
            token: replay.by.into(),
            max_attempts: replay.spec.max_attempts.map(|attempts| columns::count("max_attempts", attempts)).transpose()?,
            reason: columns::fit("reason", replay.spec.reason.clone(), columns::TEXT_BYTES)?,
            replayed_at: columns::time(now),
        })
    }
}

impl Budget {
    /// Reads a budget from the columns of its replay.
    pub(crate) fn decode(run: i32, max_attempts: Option<i32>, replayed_at: NaiveDateTime) -> Result<Self, StoreError> {
        Ok(Self {
            after: columns::read_run(run)?,
            max_attempts: max_attempts.map(columns::read_count).transpose()?,
            began_at: columns::read_time(replayed_at),
        })
    }
}

/// The budget in force of a task.
#[derive(Debug, Clone, Copy, QueryableByName)]
pub(crate) struct BudgetRow {
    #[diesel(sql_type = Binary)]
    pub(crate) task: Id16,
    #[diesel(sql_type = Integer)]
    run: i32,
    #[diesel(sql_type = Nullable<Integer>)]
    max_attempts: Option<i32>,
    #[diesel(sql_type = SqlTimestamp)]
    replayed_at: NaiveDateTime,
}

impl BudgetRow {
    /// Reads the row.
    pub(crate) fn decode(self) -> Result<Budget, StoreError> {
        Budget::decode(self.run, self.max_attempts, self.replayed_at)
    }
}
