//! Ends of runs.

use std::collections::HashMap;

use oxcart_types::{EndKind, Failure, FailureKind, TaskId, Timestamp};

use super::{Conn, agenda, cancels, dialect, heads, slots, sql::chunks};
use crate::{
    AgendaRow, AgendaWhy, Cancel, End, EndOutcome,
    columns::refuse,
    fault::Step,
    rows::chain::{EndFacts, EndRow},
    schema,
};

/// How long after a retry is due SQL looks whether it has run: the dispatcher should have had it long since.
pub(crate) const RETRY_GRACE: chrono::TimeDelta = chrono::TimeDelta::seconds(30);

/// Writes ends; see [`crate::Store::end`].
pub(crate) async fn end(conn: &mut Conn, wanted: &[End], now: Timestamp) -> Step<Vec<EndOutcome>> {
    if wanted.iter().any(|end| end.kind == EndKind::Expired) {
        return Err(refuse("kind", "a run that began cannot expire").into());
    }
    let runs: Vec<_> = wanted.iter().map(|end| (end.task, end.run)).collect();
    let starts = slots::starts(conn, &runs, dialect::SHARE).await?;
    let mine = |end: &End| starts.get(&(end.task, end.run)).is_some_and(|slot| slot.begun_with(end.token));
    let not_done: Vec<TaskId> = wanted.iter().filter(|end| gives_way(end.kind)).map(|end| end.task).collect();
    let cancels = cancels::cancels(conn, &not_done).await?;

    let mut rows = Vec::with_capacity(wanted.len());
    let mut kinds = Vec::with_capacity(wanted.len());
    for end in wanted {
        let cancel = cancels.get(&end.task).filter(|_| gives_way(end.kind));
        kinds.push(if cancel.is_some() { EndKind::Cancelled } else { end.kind });
        if mine(end) {
            rows.push(row(end, cancel, now)?);
        }
    }
    let all_mine = rows.len() == wanted.len();
    let all_new = insert(conn, rows).await? && all_mine;

    let outcomes: Vec<EndOutcome> = if all_new {
        kinds.into_iter().map(EndOutcome::Written).collect()
    } else {
        let ends = slots::ends(conn, &runs).await?;
        let mut outcomes = Vec::with_capacity(wanted.len());
        for end in wanted {
            outcomes.push(match ends.get(&(end.task, end.run)).filter(|_| mine(end)) {
                Some(slot) if slot.is_by(end.token) => EndOutcome::Written(slot.kind()?),
                Some(slot) => EndOutcome::Fenced(slot.kind()?),
                None => EndOutcome::NotMine,
            });
        }
        outcomes
    };
    arm_retries(conn, wanted, &outcomes).await?;
    Ok(outcomes)
}

/// Kinds that give way to a cancel; a success stands.
pub(crate) const fn gives_way(kind: EndKind) -> bool {
    match kind {
        EndKind::Failed | EndKind::Retry | EndKind::Released | EndKind::Lost => true,
        EndKind::Succeeded | EndKind::Cancelled | EndKind::Expired => false,
    }
}

/// What is kept of a run that was cancelled: why, and how the handler took it.
pub(crate) fn cancelled(cancel: &Cancel, failure: Option<&Failure>) -> Failure {
    let cancelled = Failure::new(FailureKind::CANCELLED, cancel.reason.clone());
    match failure {
        None => cancelled,
        Some(failure) => cancelled.with_detail(format!("{}: {}\n{}", failure.kind, failure.message, failure.detail)),
    }
}

fn row(end: &End, cancel: Option<&Cancel>, now: Timestamp) -> Step<EndRow> {
    let cancelled = cancel.map(|cancel| cancelled(cancel, end.failure.as_ref()));
    Ok(EndRow::encode(EndFacts {
        task: end.task,
        run: end.run,
        kind: if cancelled.is_some() { EndKind::Cancelled } else { end.kind },
        by: end.token,
        attempts_used: end.attempts_used,
        next_run_at: end.next_run_at,
        result: end.result.as_ref(),
        failure: cancelled.as_ref().or(end.failure.as_ref()),
        at: now,
    })?)
}

/// Writes ends whose slots are free; true when all were.
pub(crate) async fn insert(conn: &mut Conn, mut rows: Vec<EndRow>) -> Step<bool> {
    rows.sort_by_key(|row| (row.task, row.run));
    let mut all_new = true;
    for rows in chunks(rows, EndRow::weight) {
        let count = rows.len();
        all_new &= dialect::insert_new!(conn, schema::ends::table, rows)? == count;
    }
    Ok(all_new)
}

/// Puts retries into the agenda, so that none is forgotten when the dispatcher does not hear of it.
async fn arm_retries(conn: &mut Conn, wanted: &[End], outcomes: &[EndOutcome]) -> Step<()> {
    let retries = wanted.iter().zip(outcomes).filter(|(_, outcome)| **outcome == EndOutcome::Written(EndKind::Retry));
    let rows: Vec<AgendaRow> = retries
        .filter_map(|(end, _)| {
            let at = end.next_run_at?.checked_add_signed(RETRY_GRACE)?;
            Some(AgendaRow { task: end.task, at, run: end.run.next(), why: AgendaWhy::Retry })
        })
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    let ids: Vec<TaskId> = rows.iter().map(|row| row.task).collect();
    let homes: HashMap<_, _> = heads::lock(conn, &ids, "").await?;
    agenda::upsert(conn, &rows, &homes).await
}
