//! The head of a chain as one row of a join, and the one place where a task's state is read from it.

use chrono::NaiveDateTime;
use diesel::{
    QueryableByName,
    sql_types::{BigInt, Binary, Integer, Nullable, SmallInt, Text, Timestamp as SqlTimestamp},
};
use oxcart_types::{
    ChainHead, EndKind, LeaseToken, StartBy, TaskId, Timestamp, WaitReason, WorkerId,
    chain::{LatestEnd, LatestRun, StartKind},
};

use super::spec::read_priority;
use crate::{
    AgendaWhy, Budget, Cancel, Entry, OpenTask, StoreError,
    codes::Coded as _,
    columns::{self, Id16},
};

/// The columns of [`HeadRow`].
pub(crate) const HEAD_COLUMNS: &str = "t.id, t.queue, t.priority, t.fairness_key, t.run_at, t.expires_at, t.start_timeout_nanos, t.deadline_nanos, \
     t.max_attempts, t.created_at, h.id AS unconfirmed, a.why AS agenda_why, a.run AS agenda_run, s.run AS latest_run, \
     s.kind AS start_kind, s.attempt, s.token, s.worker, s.started_at, e.kind AS end_kind, e.attempts_used, \
     e.next_run_at, e.ended_at, p.kind AS previous_kind, c.reason AS cancel_reason, c.requested_at AS cancel_requested_at, \
     c.grace_nanos AS cancel_grace_nanos, b.run AS replayed_run, b.token AS replayed_by, b.max_attempts AS budget_attempts, \
     b.replayed_at, l.run AS live_run, l.seen_at";

/// A task with the newest slots of its chain. One statement reads all of it, so that it is of one moment.
pub(crate) const HEAD_TABLES: &str = "tasks t \
     LEFT JOIN handoffs h ON h.id = t.handoff \
     LEFT JOIN agenda a ON a.task = t.id \
     LEFT JOIN starts s ON s.task = t.id AND s.run = (SELECT MAX(x.run) FROM starts x WHERE x.task = t.id) \
     LEFT JOIN ends e ON e.task = s.task AND e.run = s.run \
     LEFT JOIN ends p ON p.task = s.task AND p.run = s.run - 1 \
     LEFT JOIN replays b ON b.task = t.id AND b.run = (SELECT MAX(y.run) FROM replays y WHERE y.task = t.id) \
     LEFT JOIN cancels c ON c.task = t.id AND c.budget = COALESCE(b.run, 0) \
     LEFT JOIN live l ON l.task = t.id";

/// The head of a chain.
#[derive(Debug, Clone, QueryableByName)]
pub(crate) struct HeadRow {
    #[diesel(sql_type = Binary)]
    id: Id16,
    #[diesel(sql_type = Text)]
    queue: String,
    #[diesel(sql_type = SmallInt)]
    priority: i16,
    #[diesel(sql_type = Nullable<Text>)]
    fairness_key: Option<String>,
    #[diesel(sql_type = Nullable<SqlTimestamp>)]
    run_at: Option<NaiveDateTime>,
    #[diesel(sql_type = Nullable<SqlTimestamp>)]
    expires_at: Option<NaiveDateTime>,
    #[diesel(sql_type = Nullable<BigInt>)]
    start_timeout_nanos: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    deadline_nanos: Option<i64>,
    #[diesel(sql_type = Integer)]
    max_attempts: i32,
    #[diesel(sql_type = SqlTimestamp)]
    created_at: NaiveDateTime,
    #[diesel(sql_type = Nullable<Binary>)]
    unconfirmed: Option<Id16>,
    #[diesel(sql_type = Nullable<SmallInt>)]
    agenda_why: Option<i16>,
    #[diesel(sql_type = Nullable<Integer>)]
    agenda_run: Option<i32>,
    #[diesel(sql_type = Nullable<Integer>)]
    latest_run: Option<i32>,
    #[diesel(sql_type = Nullable<SmallInt>)]
    start_kind: Option<i16>,
    #[diesel(sql_type = Nullable<Integer>)]
    attempt: Option<i32>,
    #[diesel(sql_type = Nullable<Binary>)]
    token: Option<Id16>,
    #[diesel(sql_type = Nullable<Binary>)]
    worker: Option<Id16>,
    #[diesel(sql_type = Nullable<SqlTimestamp>)]
    started_at: Option<NaiveDateTime>,
    #[diesel(sql_type = Nullable<SmallInt>)]
    end_kind: Option<i16>,
    #[diesel(sql_type = Nullable<Integer>)]
    attempts_used: Option<i32>,
    #[diesel(sql_type = Nullable<SqlTimestamp>)]
    next_run_at: Option<NaiveDateTime>,
    #[diesel(sql_type = Nullable<SqlTimestamp>)]
    ended_at: Option<NaiveDateTime>,
    #[diesel(sql_type = Nullable<SmallInt>)]
    previous_kind: Option<i16>,
    #[diesel(sql_type = Nullable<Text>)]
    cancel_reason: Option<String>,
    #[diesel(sql_type = Nullable<SqlTimestamp>)]
    cancel_requested_at: Option<NaiveDateTime>,
    #[diesel(sql_type = Nullable<BigInt>)]
    cancel_grace_nanos: Option<i64>,
    #[diesel(sql_type = Nullable<Integer>)]
    replayed_run: Option<i32>,
    #[diesel(sql_type = Nullable<Binary>)]
    replayed_by: Option<Id16>,
    #[diesel(sql_type = Nullable<Integer>)]
    budget_attempts: Option<i32>,
    #[diesel(sql_type = Nullable<SqlTimestamp>)]
    replayed_at: Option<NaiveDateTime>,
    #[diesel(sql_type = Nullable<Integer>)]
    live_run: Option<i32>,
    #[diesel(sql_type = Nullable<SqlTimestamp>)]
    seen_at: Option<NaiveDateTime>,
}

/// A task with the head of its chain, read and checked.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    /// The task and its chain.
    pub(crate) task: OpenTask,
    /// Time of submission.
    pub(crate) created_at: Timestamp,
    /// Counted starts that it may have in the budget in force.
    pub(crate) max_attempts: u32,
    /// When the budget in force began: at the submission, or at the newest replay.
    pub(crate) began_at: Timestamp,
    /// Token of the newest replay.
    pub(crate) replayed_by: Option<LeaseToken>,
    /// Token in the newest start slot.
    pub(crate) token: Option<LeaseToken>,
    /// Worker of the newest run.
    pub(crate) worker: Option<WorkerId>,
    /// When the newest run started, whether it is open or not; `None` for a closed slot.
    pub(crate) latest_started_at: Option<Timestamp>,
    /// When the newest run ended.
    pub(crate) ended_at: Option<Timestamp>,
    /// Last sign of life of the newest run.
    pub(crate) heartbeat_at: Option<Timestamp>,
    /// Reason of its agenda row.
    pub(crate) agenda_why: Option<AgendaWhy>,
}

impl Head {
    /// How the newest run ended.
    pub(crate) fn latest_end(&self) -> Option<LatestEnd> {
        self.task.head.latest.and_then(|latest| latest.end)
    }

    /// How the task ended; `None` while it is open.
    pub(crate) fn terminal(&self) -> Option<EndKind> {
        self.task.head.terminal()
    }

    /// A row of the agenda keeps it: sweepers leave it alone. An expiry to come keeps nothing.
    pub(crate) fn is_kept(&self) -> bool {
        self.agenda_why.is_some_and(|why| why != AgendaWhy::Expiry)
    }

    /// The newest slot was closed by the holder of this token.
    pub(crate) fn closed_by(&self, token: LeaseToken) -> bool {
        self.token == Some(token) && self.task.head.latest.is_some_and(|latest| latest.kind == StartKind::Closer)
    }
}

impl HeadRow {
    /// The task.
    pub(crate) fn id(&self) -> TaskId {
        self.id.into()
    }

    /// Reads the row.
    pub(crate) fn decode(self) -> Result<Head, StoreError> {
        let head = self.chain()?;
        let latest = head.latest;
        let open = latest.filter(|latest| latest.end.is_none());
        let created_at = columns::read_time(self.created_at);
        let budget = self.budget()?;
        let began_at = budget.map_or(created_at, |budget| budget.began_at);
        let expires_at = self.expires_at.map(columns::read_time);
        let limit = |from: Timestamp, nanos: Option<i64>| {
            nanos.map(chrono::TimeDelta::nanoseconds).and_then(|limit| from.checked_add_signed(limit))
        };
        let deadline_at = limit(began_at, self.deadline_nanos);
        let earliest_start = self.run_at.map(columns::read_time).map_or(began_at, |at| at.max(began_at));
        let start_timeout_at = limit(earliest_start, self.start_timeout_nanos);
        let started_at = self.started_at.map(columns::read_time);
        let entry = Entry {
            task: self.id.into(),
            run: head.next_run().or_else(|| latest.map(|latest| latest.run)).unwrap_or(oxcart_types::Run::FIRST),
            queue: columns::read_name(&self.queue)?,
            priority: read_priority(self.priority)?,
            fairness_key: self.fairness_key.as_deref().map(columns::read_name).transpose()?,
            due_at: match latest.and_then(|latest| latest.end) {
                None => self.run_at.map(columns::read_time),
                Some(end) => end.next_run_at,
            },
        };
        let cancel = match (self.cancel_reason, self.cancel_requested_at, self.cancel_grace_nanos) {
            (Some(reason), Some(at), Some(grace)) => {
                Some(Cancel { reason, requested_at: columns::read_time(at), grace: columns::read_nanos(grace)? })
            }
            _ => None,
        };
        Ok(Head {
            task: OpenTask {
                entry,
                head,
                started_at: started_at.filter(|_| open.is_some()),
                start_by: StartBy::earliest(expires_at, start_timeout_at, deadline_at),
                deadline_at,
                cancel,
            },
            created_at,
            max_attempts: match budget.and_then(|budget| budget.max_attempts) {
                Some(attempts) => attempts,
                None => columns::read_count(self.max_attempts)?,
            },
            began_at,
            replayed_by: self.replayed_by.map(LeaseToken::from),
            token: self.token.map(LeaseToken::from),
            worker: self.worker.map(WorkerId::from),
            latest_started_at: started_at.filter(|_| latest.is_some_and(|latest| latest.kind == StartKind::Worker)),
            ended_at: self.ended_at.map(columns::read_time),
            heartbeat_at: self
                .seen_at
                .filter(|_| self.live_run.is_some() && self.live_run == self.latest_run)
                .map(columns::read_time),
            agenda_why: self.agenda_why.map(AgendaWhy::decode).transpose()?,
        })
    }

    fn budget(&self) -> Result<Option<Budget>, StoreError> {
        let (Some(run), Some(at)) = (self.replayed_run, self.replayed_at) else { return Ok(None) };
        Ok(Some(Budget::decode(run, self.budget_attempts, at)?))
    }

    fn chain(&self) -> Result<ChainHead, StoreError> {
        let half = |what: &str| StoreError::Corrupt(format!("task {}: half {what}", TaskId::from(self.id)));
        let latest = match (self.latest_run, self.start_kind, self.attempt) {
            (None, None, None) => None,
            (Some(run), Some(kind), Some(attempt)) => Some(LatestRun {
                run: columns::read_run(run)?,
                kind: StartKind::decode(kind)?,
                attempt: columns::read_count(attempt)?,
                end: match (self.end_kind, self.attempts_used) {
                    (None, None) => None,
                    (Some(kind), Some(used)) => Some(LatestEnd {
                        kind: EndKind::decode(kind)?,
                        attempts_used: columns::read_count(used)?,
                        next_run_at: self.next_run_at.map(columns::read_time),
                    }),
                    _ => return Err(half("an end")),
                },
            }),
            _ => return Err(half("a start")),
        };
        let previous_end = self.previous_kind.map(EndKind::decode).transpose()?;
        let replayed = self.replayed_run.map(columns::read_run).transpose()?;
        let mut head = ChainHead { latest, previous_end, replayed, waiting: None };
        head.waiting = self.waiting(&head)?;
        Ok(head)
    }

    /// Why the next run waits in SQL. A row of the agenda about a run that is past says nothing any more.
    fn waiting(&self, head: &ChainHead) -> Result<Option<WaitReason>, StoreError> {
        let Some(next) = head.next_run() else { return Ok(None) };
        let why = match (self.agenda_why, self.agenda_run) {
            (Some(why), Some(run)) if columns::read_run(run)? >= next => Some(AgendaWhy::decode(why)?),
            _ => None,
        };
        match why {
            Some(AgendaWhy::Time) => return Ok(Some(WaitReason::Time)),
            Some(AgendaWhy::Dependency) => return Ok(Some(WaitReason::Dependency)),
            Some(AgendaWhy::Room) => return Ok(Some(WaitReason::Room)),
            // The dispatcher has it, or is about to get it.
            Some(AgendaWhy::Retry | AgendaWhy::Expiry | AgendaWhy::CancelGrace) | None => {}
        }
        // Once a worker has started it, the dispatcher had it, confirmed or not. A replay hands it off anew.
        let not_run_since = head.latest.is_none_or(|latest| latest.kind == StartKind::Closer || head.replayed == Some(latest.run));
        Ok(if not_run_since && self.unconfirmed.is_some() { Some(WaitReason::Handoff) } else { None })
    }
}
