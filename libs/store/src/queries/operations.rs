//! Operations on many tasks: their beginning, their batches, their end.

use diesel::{ExpressionMethods as _, OptionalExtension as _, QueryDsl as _, SelectableHelper as _};
use diesel_async::RunQueryDsl as _;
use oxcart_types::{CancelRuleId, OperationId, Timestamp};

use super::{Conn, dialect, sql::raw, tree};
use crate::{
    NewOperation, Operation, OperationStarted, OperationState, OperationStep, OperationStopped, Selector,
    codes::Coded as _,
    columns::{self, Id16},
    fault::Step,
    rows::operation::{OperationRow, failures_json},
    schema::operations::{self, dsl},
};

/// Begins an operation; see [`crate::Store::start_operation`].
pub(crate) async fn start(conn: &mut Conn, new: &NewOperation, max_running: usize) -> Step<OperationStarted> {
    if let Some(request) = new.request {
        let known = dsl::operations.filter(dsl::request.eq(Id16::from(request))).select(OperationRow::as_select());
        if let Some(row) = known.first(conn).await.optional()? {
            let operation = row.decode()?;
            let asked = &operation.asked;
            let same = (&asked.selector, &asked.reason, asked.grace) == (&new.selector, &new.reason, new.grace);
            return Ok(if same {
                OperationStarted::Started(Box::new(operation))
            } else {
                OperationStarted::RequestReused(request)
            });
        }
    }
    let running = dsl::operations.filter(dsl::state.eq(OperationState::Running.code())).count();
    let running: i64 = running.get_result(conn).await?;
    if usize::try_from(running).is_ok_and(|running| running >= max_running) {
        return Ok(OperationStarted::TooMany);
    }
    insert(conn, new, None).await.map(|operation| OperationStarted::Started(Box::new(operation)))
}

/// Writes an operation that begins. Repeated with the same id it changes nothing.
pub(crate) async fn insert(conn: &mut Conn, new: &NewOperation, rule: Option<CancelRuleId>) -> Step<Operation> {
    let row = OperationRow::encode(new, rule)?;
    dialect::insert_new!(conn, operations::table, vec![row.clone()])?;
    if let Selector::Tree(root) = &new.selector {
        tree::plant(conn, new.id, *root).await?;
    }
    Ok(row.decode()?)
}

/// Reads an operation; see [`crate::Store::operation`].
pub(crate) async fn get(conn: &mut Conn, id: OperationId) -> Step<Option<Operation>> {
    let row = dsl::operations.find(Id16::from(id)).select(OperationRow::as_select()).first(conn).await.optional()?;
    Ok(row.map(OperationRow::decode).transpose()?)
}

/// Lists operations, newest first; see [`crate::Store::operations`].
pub(crate) async fn list(conn: &mut Conn, before: Option<OperationId>, limit: usize) -> Step<Vec<Operation>> {
    let mut query = dsl::operations
        .select(OperationRow::as_select())
        .order(dsl::id.desc())
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .into_boxed();
    if let Some(before) = before {
        query = query.filter(dsl::id.lt(Id16::from(before)));
    }
    let rows = query.load(conn).await?;
    Ok(rows.into_iter().map(OperationRow::decode).collect::<Result<_, _>>()?)
}

/// Stops an operation; see [`crate::Store::stop_operation`].
pub(crate) async fn stop(conn: &mut Conn, id: OperationId, now: Timestamp) -> Step<OperationStopped> {
    let running = dsl::operations.filter(dsl::id.eq(Id16::from(id))).filter(dsl::state.eq(OperationState::Running.code()));
    let stopped = (dsl::state.eq(OperationState::Stopped.code()), dsl::ended_at.eq(columns::time(now)));
    diesel::update(running).set(stopped).execute(conn).await?;
    Ok(match get(conn, id).await? {
        None => OperationStopped::NoOperation,
        Some(operation) if operation.state == OperationState::Completed => OperationStopped::Completed,
        Some(operation) => OperationStopped::Stopped(Box::new(operation)),
    })
}

/// Claims the operation that has been due for longest; see [`crate::Store::claim_operation`].
pub(crate) async fn claim(conn: &mut Conn, now: Timestamp, until: Timestamp) -> Step<Option<Operation>> {
    use diesel::sql_types::{SmallInt, Timestamp as SqlTimestamp};
    let sql = format!("SELECT id FROM operations WHERE state = ? AND next_at <= ? ORDER BY next_at LIMIT 1{}", dialect::CLAIM);
    let query = raw(sql).bind::<SmallInt, _>(OperationState::Running.code()).bind::<SqlTimestamp, _>(columns::time(now));
    let due: Vec<DueRow> = query.load(conn).await?;
    let [due] = due.as_slice() else { return Ok(None) };
    let row = dsl::operations.find(due.id);
    diesel::update(row).set(dsl::next_at.eq(columns::time(until))).execute(conn).await?;
    get(conn, due.id.into()).await
}

#[derive(Debug, diesel::QueryableByName)]
struct DueRow {
    #[diesel(sql_type = diesel::sql_types::Binary)]
    id: Id16,
}

/// Records a batch; see [`crate::Store::record_step`].
pub(crate) async fn record(conn: &mut Conn, step: &OperationStep) -> Step<bool> {
    let (state, ended_at) = match step.next_at {
        Some(_) => (OperationState::Running, None),
        None => (OperationState::Completed, Some(columns::time(step.at))),
    };
    let added = step.added;
    // The number of the step is the fence: a batch that two have carried out is counted once.
    let unchanged = dsl::operations
        .filter(dsl::id.eq(Id16::from(step.id)))
        .filter(dsl::step.eq(step.step))
        .filter(dsl::state.eq(OperationState::Running.code()));
    let changes = (
        dsl::step.eq(step.step + 1),
        dsl::state.eq(state.code()),
        dsl::position.eq(step.position.map(Id16::from)),
        dsl::next_at.eq(columns::time(step.next_at.unwrap_or(step.at))),
        dsl::matched.eq(dsl::matched + added.matched),
        dsl::cancelled.eq(dsl::cancelled + added.cancelled),
        dsl::requested.eq(dsl::requested + added.requested),
        dsl::finished.eq(dsl::finished + added.finished),
        dsl::failed.eq(dsl::failed + added.failed),
        dsl::failures.eq(failures_json(&step.failures)?),
        dsl::ended_at.eq(ended_at),
    );
    Ok(diesel::update(unchanged).set(changes).execute(conn).await? == 1)
}

/// Deletes operations that ended before, with what is left of their trees; see [`crate::Store::forget_operations`].
pub(crate) async fn forget(conn: &mut Conn, ended_before: Timestamp, limit: usize) -> Step<usize> {
    let felled = tree::fell(conn, limit).await?;
    let old = dsl::operations
        .filter(dsl::ended_at.lt(columns::time(ended_before)))
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .select(dsl::id);
    let ids = old.load::<Id16>(conn).await?;
    let forgotten =
        if ids.is_empty() { 0 } else { diesel::delete(dsl::operations.filter(dsl::id.eq_any(ids))).execute(conn).await? };
    Ok(felled.max(forgotten))
}
