//! Ends of runs whose workers have vanished.

use std::collections::HashMap;

use diesel::{
    QueryableByName,
    sql_types::{BigInt, Binary, Integer, Nullable, Text, Timestamp as SqlTimestamp},
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
    codes::Coded as _,
    columns::{self, Id16},
    fault::Step,
    rows::{
        chain::{EndFacts, EndRow, StartSlot},
        spec::read_retry,
    },
};

/// Ends runs of vanished workers; see [`crate::Store::take_over`].
pub(crate) async fn take_over(conn: &mut Conn, wanted: &[TakeOver], now: Timestamp) -> Step<Vec<TakeOverOutcome>> {
    let runs: Vec<_> = wanted.iter().map(|run| (run.task, run.run)).collect();
    let ids: Vec<TaskId> = wanted.iter().map(|run| run.task).collect();
    let starts = slots::starts(conn, &runs, dialect::SHARE).await?;
    let seen = last_seen(conn, &ids).await?;
    let losses = losses(conn, &ids).await?;
    let cancels = cancels::cancels(conn, &ids).await?;

    let silent = |run: &TakeOver, start: &StartSlot| {
        start.started_at() < run.silent_since && seen.get(&(run.task, run.run)).is_none_or(|at| *at < run.silent_since)
    };
    let mut rows = Vec::new();
    for run in wanted {
        let Some(start) = starts.get(&(run.task, run.run)).filter(|start| start.begun() && silent(run, start)) else { continue };
        rows.push(row(run, start.attempt()?, losses.get(&run.task).copied(), cancels.get(&run.task), now)?);
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

fn row(run: &TakeOver, attempt: u32, losses: Option<Losses>, cancel: Option<&Cancel>, now: Timestamp) -> Step<EndRow> {
    let lost = Failure::new(FailureKind::LEASE_LOST, "the worker of this run has vanished");
    let (kind, failure) = match (cancel, losses) {
        (Some(cancel), _) => (EndKind::Cancelled, cancelled(cancel, Some(&lost))),
        // Nothing is known of the task: it goes no further.
        (None, None) => (EndKind::Failed, lost),
        (None, Some(losses)) if attempt >= losses.max_attempts => (EndKind::Failed, lost),
        (None, Some(losses)) if losses.crashes + 1 >= losses.max_crashes => {
            let message = format!("the workers of {} runs have vanished; the task is taken for what made them", losses.crashes + 1);
            (EndKind::Failed, Failure::new(FailureKind::POISON, message).fatal())
        }
        (None, Some(_)) => (EndKind::Lost, lost),
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
    #[diesel(sql_type = Nullable<Text>)]
    retry: Option<String>,
}

#[derive(Debug, QueryableByName)]
struct CrashRow {
    #[diesel(sql_type = Binary)]
    task: Id16,
    #[diesel(sql_type = BigInt)]
    crashes: i64,
}

/// What a task may lose in the budget in force, and what it has lost.
#[derive(Debug, Clone, Copy)]
struct Losses {
    max_attempts: u32,
    max_crashes: u32,
    crashes: u32,
}

async fn losses(conn: &mut Conn, ids: &[TaskId]) -> Step<HashMap<TaskId, Losses>> {
    let mut losses = HashMap::new();
    for ids in sorted_ids(ids.iter().copied()).chunks(CHUNK) {
        for row in with_ids("SELECT id, max_attempts, retry FROM tasks WHERE id IN ({ids})", ids).load::<LimitRow>(conn).await? {
            let policy = read_retry(row.max_attempts, row.retry.as_deref())?;
            let limits = Losses { max_attempts: policy.max_attempts(), max_crashes: policy.max_crashes(), crashes: 0 };
            losses.insert(TaskId::from(row.id), limits);
        }
        for (task, budget) in replay::budgets(conn, ids).await? {
            if let (Some(losses), Some(attempts)) = (losses.get_mut(&task), budget.max_attempts) {
                losses.max_attempts = attempts;
            }
        }
        let sql = format!(
            "SELECT e.task, COUNT(*) AS crashes FROM ends e WHERE e.task IN ({{ids}}) AND e.kind = {} \
             AND e.run > COALESCE((SELECT MAX(r.run) FROM replays r WHERE r.task = e.task), 0) GROUP BY e.task",
            EndKind::Lost.code()
        );
        for row in with_ids(&sql, ids).load::<CrashRow>(conn).await? {
            if let Some(losses) = losses.get_mut(&TaskId::from(row.task)) {
                losses.crashes = u32::try_from(row.crashes).unwrap_or(u32::MAX);
            }
        }
    }
    Ok(losses)
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
