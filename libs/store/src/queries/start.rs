//! Starts of runs.

use std::collections::{HashMap, HashSet};

use diesel::{
    QueryableByName,
    sql_types::{BigInt, Binary, Nullable, Text, Timestamp as SqlTimestamp},
};
use diesel_async::RunQueryDsl as _;
use oxcart_types::{OutOfTime, Payload, Run, TaskId, Timestamp};

use super::{
    Conn, cancel_rules, dialect, heads, replay, slots,
    sql::{CHUNK, chunks, sorted_ids, with_ids},
};
use crate::{
    Budget, RefusedStart, Start, StartOutcome, StoreError,
    columns::{self, Id16},
    fault::Step,
    rows::{
        chain::{FIRST_BUDGET, StartRow},
        head::Head,
    },
    schema,
};

/// Writes starts; see [`crate::Store::start`].
///
/// First runs take one look at their tasks, later ones at their chains. A slot is decided by its key alone: the look only keeps
/// out what may not start, and all that it relies on is write-once or locked.
pub(crate) async fn start(conn: &mut Conn, wanted: &[Start], now: Timestamp) -> Step<Vec<StartOutcome>> {
    let (first, later): (Vec<&Start>, Vec<&Start>) = wanted.iter().partition(|start| start.run == Run::FIRST);
    let mut rows = first_runs(conn, &first, now).await?;
    rows.extend(later_runs(conn, &later, now).await?);
    let ready: Vec<TaskId> = rows.iter().map(|(start, _)| start.task).collect();
    let barred = cancel_rules::close_before_start(conn, &ready, now).await?;
    rows.retain(|(start, _)| !barred.contains(&start.task));
    let mut attempts = HashMap::with_capacity(rows.len());
    let mut all_new = rows.len() == wanted.len();
    let mut written = Vec::with_capacity(rows.len());
    for (start, attempt) in rows {
        attempts.insert((start.task, start.run), attempt);
        written.push(StartRow::begun(start, attempt, now)?);
    }
    written.sort_by_key(|row| (row.task, row.run));
    for rows in chunks(written, |_| 0) {
        let count = rows.len();
        let inserted = dialect::insert_new!(conn, schema::starts::table, rows)?;
        all_new &= inserted == count;
    }
    if !all_new {
        return read_back(conn, wanted).await;
    }
    let before = before(conn, wanted).await?;
    Ok(wanted
        .iter()
        .map(|start| before.started(start.task, attempts.get(&(start.task, start.run)).copied().unwrap_or(1)))
        .collect())
}

/// What a first run depends on.
#[derive(Debug, QueryableByName)]
struct FirstRow {
    #[diesel(sql_type = Binary)]
    id: Id16,
    #[diesel(sql_type = Nullable<SqlTimestamp>)]
    run_at: Option<chrono::NaiveDateTime>,
    #[diesel(sql_type = Nullable<SqlTimestamp>)]
    expires_at: Option<chrono::NaiveDateTime>,
    #[diesel(sql_type = Nullable<BigInt>)]
    start_timeout_nanos: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    deadline_nanos: Option<i64>,
    #[diesel(sql_type = SqlTimestamp)]
    created_at: chrono::NaiveDateTime,
    #[diesel(sql_type = Nullable<Binary>)]
    cancelled: Option<Id16>,
}

impl FirstRow {
    /// Its time has come and has not passed, and nobody has cancelled it.
    fn may_start(&self, now: Timestamp) -> bool {
        let now = columns::time(now);
        let after = |from: chrono::NaiveDateTime, nanos: Option<i64>| {
            nanos.map(chrono::TimeDelta::nanoseconds).and_then(|limit| from.checked_add_signed(limit))
        };
        let earliest_start = self.run_at.map_or(self.created_at, |at| at.max(self.created_at));
        let last_moments =
            [self.expires_at, after(earliest_start, self.start_timeout_nanos), after(self.created_at, self.deadline_nanos)];
        self.cancelled.is_none() && self.run_at.is_none_or(|at| at <= now) && last_moments.into_iter().flatten().all(|at| now < at)
    }
}

/// First runs that may start, each with its attempt: the task is there, due, not expired and without a cancel.
async fn first_runs<'a>(conn: &mut Conn, wanted: &[&'a Start], now: Timestamp) -> Step<Vec<(&'a Start, u32)>> {
    let mut free = HashSet::with_capacity(wanted.len());
    for ids in sorted_ids(wanted.iter().map(|start| start.task)).chunks(CHUNK) {
        let sql = format!(
            "SELECT t.id, t.run_at, t.expires_at, t.start_timeout_nanos, t.deadline_nanos, t.created_at, c.task AS cancelled \
             FROM tasks t LEFT JOIN cancels c ON c.task = t.id AND c.budget = {FIRST_BUDGET} \
             WHERE t.id IN ({{ids}}) ORDER BY t.id{}",
            dialect::SHARE
        );
        let rows = with_ids(&sql, ids).load::<FirstRow>(conn).await?;
        free.extend(rows.into_iter().filter(|row| row.may_start(now)).map(|row| TaskId::from(row.id)));
    }
    Ok(wanted.iter().filter(|start| free.contains(&start.task)).map(|start| (*start, 1)).collect())
}

/// Later runs that may start, each with its attempt: the run before has ended without ending the task, attempts are left, the
/// time has come, and there is no cancel.
async fn later_runs<'a>(conn: &mut Conn, wanted: &[&'a Start], now: Timestamp) -> Step<Vec<(&'a Start, u32)>> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<TaskId> = wanted.iter().map(|start| start.task).collect();
    heads::lock(conn, &ids, dialect::SHARE).await?;
    let heads = heads::heads(conn, &ids).await?;
    let attempt = |start: &Start| heads.get(&start.task).and_then(|head| next_attempt(head, start.run, now));
    Ok(wanted.iter().filter_map(|start| attempt(start).map(|attempt| (*start, attempt))).collect())
}

/// The attempt that this run would be, if it may start.
fn next_attempt(head: &Head, run: Run, now: Timestamp) -> Option<u32> {
    let task = &head.task;
    let used = task.head.attempts_used();
    let due = task.entry.due_at.is_none_or(|at| at <= now);
    let in_time = OutOfTime::of(used, task.start_by, task.deadline_at, now).is_none();
    let may_start = task.head.next_run() == Some(run) && used < head.max_attempts && due && in_time && task.cancel.is_none();
    may_start.then_some(used + 1)
}

/// Tells which slots are mine and why the others are not.
async fn read_back(conn: &mut Conn, wanted: &[Start]) -> Step<Vec<StartOutcome>> {
    let runs: Vec<_> = wanted.iter().map(|start| (start.task, start.run)).collect();
    let slots = slots::starts(conn, &runs, "").await?;
    let mine = |start: &Start| slots.get(&(start.task, start.run)).filter(|slot| slot.begun_with(start.token));
    let others: Vec<TaskId> = wanted.iter().filter(|start| mine(start).is_none()).map(|start| start.task).collect();
    let heads = heads::heads(conn, &others).await?;
    let before = before(conn, wanted).await?;
    let outcome = |start: &Start| -> Result<StartOutcome, StoreError> {
        Ok(match (mine(start), heads.get(&start.task)) {
            (Some(slot), _) => before.started(start.task, slot.attempt()?),
            (None, Some(head)) => {
                StartOutcome::Refused(Box::new(RefusedStart { task: head.task.clone(), heartbeat_at: head.heartbeat_at }))
            }
            (None, None) => StartOutcome::NoTask,
        })
    };
    Ok(wanted.iter().map(outcome).collect::<Result<_, _>>()?)
}

#[derive(Debug, QueryableByName)]
struct CheckpointRow {
    #[diesel(sql_type = Binary)]
    task: Id16,
    #[diesel(sql_type = Text)]
    checkpoint_type: String,
    #[diesel(sql_type = Binary)]
    checkpoint: Vec<u8>,
}

/// What runs take over from those before them; first runs have nothing.
#[derive(Debug, Default)]
struct Before {
    checkpoints: HashMap<TaskId, Payload>,
    budgets: HashMap<TaskId, Budget>,
}

impl Before {
    fn started(&self, task: TaskId, attempt: u32) -> StartOutcome {
        StartOutcome::Started {
            attempt,
            checkpoint: self.checkpoints.get(&task).cloned(),
            budget: self.budgets.get(&task).copied(),
        }
    }
}

async fn before(conn: &mut Conn, wanted: &[Start]) -> Step<Before> {
    let later = sorted_ids(wanted.iter().filter(|start| start.run != Run::FIRST).map(|start| start.task));
    Ok(Before { checkpoints: checkpoints(conn, &later).await?, budgets: replay::budgets(conn, &later).await? })
}

async fn checkpoints(conn: &mut Conn, tasks: &[Id16]) -> Step<HashMap<TaskId, Payload>> {
    let mut found = HashMap::new();
    for ids in tasks.chunks(CHUNK) {
        let sql = "SELECT task, checkpoint_type, checkpoint FROM live WHERE task IN ({ids}) \
             AND checkpoint IS NOT NULL AND checkpoint_type IS NOT NULL";
        for row in with_ids(sql, ids).load::<CheckpointRow>(conn).await? {
            found.insert(row.task.into(), Payload::from_stored(row.checkpoint_type, row.checkpoint));
        }
    }
    Ok(found)
}
