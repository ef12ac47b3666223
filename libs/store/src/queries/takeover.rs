//! Ends of runs whose workers have vanished.

use std::collections::HashMap;

use diesel::{
    QueryableByName,
    sql_types::{Binary, Integer, Timestamp as SqlTimestamp},
};
use diesel_async::RunQueryDsl as _;
use oxcart_types::{EndKind, Failure, FailureKind, Run, TaskId, Timestamp};

use super::{
    Conn, cancels, dialect,
    end::{self, cancelled},
    replay, slots,
    sql::{CHUNK, sorted_ids, with_ids},
};
use crate::{
    Cancel, RunKey, TakeOver, TakeOverOutcome,
    columns::{self, Id16},
    fault::Step,
    rows::chain::{EndFacts, EndRow, StartSlot},
};

/// Ends runs of vanished workers; see [`crate::Store::take_over`].
pub(crate) async fn take_over(conn: &mut Conn, wanted: &[TakeOver], now: Timestamp) -> Step<Vec<TakeOverOutcome>> {
    let runs: Vec<_> = wanted.iter().map(|run| (run.task, run.run)).collect();
    let ids: Vec<TaskId> = wanted.iter().map(|run| run.task).collect();
    let starts = slots::starts(conn, &runs, dialect::SHARE).await?;
    let seen = last_seen(conn, &ids).await?;
    let limits = attempt_limits(conn, &ids).await?;
    let cancels = cancels::cancels(conn, &ids).await?;

    let silent = |run: &TakeOver, start: &StartSlot| {
        start.started_at() < run.silent_since && seen.get(&(run.task, run.run)).is_none_or(|at| *at < run.silent_since)
    };
    let mut rows = Vec::new();
    for run in wanted {
        let Some(start) = starts.get(&(run.task, run.run)).filter(|start| start.begun() && silent(run, start)) else { continue };
        let used_up = limits.get(&run.task).is_none_or(|max| start.attempt().is_ok_and(|attempt| attempt >= *max));
        rows.push(row(run, start.attempt()?, used_up, cancels.get(&run.task), now)?);
    }
    end::insert(conn, rows).await?;

    let ends = slots::ends(conn, &runs).await?;
    let mut outcomes = Vec::with_capacity(wanted.len());
    for run in wanted {
        outcomes.push(match (starts.get(&(run.task, run.run)), ends.get(&(run.task, run.run))) {
            (None, _) => TakeOverOutcome::NoRun,
            (Some(_), Some(end)) if end.is_by(run.by) => TakeOverOutcome::Ended(end.kind()?),
            (Some(_), Some(end)) => TakeOverOutcome::Over(end.kind()?),
            (Some(_), None) => TakeOverOutcome::TooYoung,
        });
    }
    Ok(outcomes)
}

fn row(run: &TakeOver, attempt: u32, used_up: bool, cancel: Option<&Cancel>, now: Timestamp) -> Step<EndRow> {
    let lost = Failure::new(FailureKind::LEASE_LOST, "the worker of this run has vanished");
    let (kind, failure) = match (cancel, used_up) {
        (Some(cancel), _) => (EndKind::Cancelled, cancelled(cancel, Some(&lost))),
        (None, true) => (EndKind::Failed, lost),
        (None, false) => (EndKind::Lost, lost),
    };
    Ok(EndRow::encode(EndFacts {
        task: run.task,
        run: run.run,
        kind,
        by: run.by,
        attempts_used: attempt,
        next_run_at: Some(now),
        result: None,
        failure: Some(&failure),
        at: now,
    })?)
}

#[derive(Debug, QueryableByName)]
struct SeenRow {
    #[diesel(sql_type = Binary)]
    task: Id16,
    #[diesel(sql_type = Integer)]
    run: i32,
    #[diesel(sql_type = SqlTimestamp)]
    seen_at: chrono::NaiveDateTime,
}

async fn last_seen(conn: &mut Conn, ids: &[TaskId]) -> Step<HashMap<(TaskId, Run), Timestamp>> {
    let mut seen = HashMap::new();
    for ids in sorted_ids(ids.iter().copied()).chunks(CHUNK) {
        for row in with_ids("SELECT task, run, seen_at FROM live WHERE task IN ({ids})", ids).load::<SeenRow>(conn).await? {
            seen.insert((row.task.into(), columns::read_run(row.run)?), columns::read_time(row.seen_at));
        }
    }
    Ok(seen)
}

#[derive(Debug, QueryableByName)]
struct LimitRow {
    #[diesel(sql_type = Binary)]
    id: Id16,
    #[diesel(sql_type = Integer)]
    max_attempts: i32,
}

/// Counted starts that tasks may have in the budgets in force.
async fn attempt_limits(conn: &mut Conn, ids: &[TaskId]) -> Step<HashMap<TaskId, u32>> {
    let mut limits = HashMap::new();
    for ids in sorted_ids(ids.iter().copied()).chunks(CHUNK) {
        for row in with_ids("SELECT id, max_attempts FROM tasks WHERE id IN ({ids})", ids).load::<LimitRow>(conn).await? {
            limits.insert(row.id.into(), columns::read_count(row.max_attempts)?);
        }
        for (task, budget) in replay::budgets(conn, ids).await? {
            if let Some(attempts) = budget.max_attempts {
                limits.insert(task, attempts);
            }
        }
    }
    Ok(limits)
}

/// Which runs are open and owned by their token; see [`crate::Store::still_mine`].
pub(crate) async fn still_mine(conn: &mut Conn, wanted: &[RunKey]) -> Step<Vec<bool>> {
    let runs: Vec<_> = wanted.iter().map(|key| (key.task, key.run)).collect();
    let starts = slots::starts(conn, &runs, "").await?;
    let ends = slots::ends(conn, &runs).await?;
    let mine = |key: &RunKey| {
        let run = (key.task, key.run);
        starts.get(&run).is_some_and(|slot| slot.begun_with(key.token)) && !ends.contains_key(&run)
    };
    Ok(wanted.iter().map(mine).collect())
}
