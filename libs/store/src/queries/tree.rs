//! The tree that an operation walks: its members found so far, and where it stands with each.

use diesel::{
    ExpressionMethods as _, Insertable, QueryDsl as _, QueryableByName,
    sql_types::{Binary, SmallInt},
};
use diesel_async::RunQueryDsl as _;
use oxcart_types::{OperationId, TaskId};

use super::{
    Conn, dialect, operations,
    sql::{CHUNK, chunks, raw, sorted_ids},
};
use crate::{
    Counted, OperationState, OperationStep, TreeMember,
    codes::{Coded as _, MemberState},
    columns::Id16,
    fault::Step,
    schema::{
        operation_tasks::{self, dsl},
        task_children,
    },
};

/// Children that one step finds at most.
const CHILDREN: usize = 1000;
/// Code of a member that is not counted yet.
const NOT_COUNTED: i16 = 0;

#[derive(Debug, Insertable)]
#[diesel(table_name = operation_tasks, treat_none_as_default_value = false)]
struct MemberRow {
    operation: Id16,
    task: Id16,
    state: i16,
    counted: i16,
    after: Option<Id16>,
}

/// Makes the root the first member.
pub(crate) async fn plant(conn: &mut Conn, operation: OperationId, root: TaskId) -> Step<()> {
    add(conn, operation, &[root.into()]).await
}

async fn add(conn: &mut Conn, operation: OperationId, tasks: &[Id16]) -> Step<()> {
    let operation = Id16::from(operation);
    let member =
        |task: &Id16| MemberRow { operation, task: *task, state: MemberState::Open.code(), counted: NOT_COUNTED, after: None };
    for rows in chunks(tasks.iter().map(member).collect(), |_| 0) {
        dialect::insert_new!(conn, operation_tasks::table, rows)?;
    }
    Ok(())
}

/// Members to be looked at; see [`crate::Store::tree_members`].
pub(crate) async fn members(conn: &mut Conn, operation: OperationId, limit: usize) -> Step<Vec<TreeMember>> {
    let query = dsl::operation_tasks
        .filter(dsl::operation.eq(Id16::from(operation)))
        .filter(dsl::state.eq(MemberState::Open.code()))
        .order(dsl::task)
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .select((dsl::task, dsl::counted, dsl::after));
    let mut members = Vec::new();
    for (task, counted, after) in query.load::<(Id16, i16, Option<Id16>)>(conn).await? {
        let counted = if counted == NOT_COUNTED { None } else { Some(Counted::decode(counted)?) };
        members.push(TreeMember { task: task.into(), counted, after: after.map(Into::into) });
    }
    Ok(members)
}

/// Records a batch of members and adds their children; see [`crate::Store::record_tree_step`].
pub(crate) async fn record(conn: &mut Conn, step: &OperationStep, looked_at: &[(TreeMember, Counted)]) -> Step<bool> {
    if !operations::record(conn, step).await? {
        return Ok(false);
    }
    for way in Counted::ALL {
        let ids = looked_at.iter().filter(|(_, counted)| counted == way).map(|(member, _)| member.task);
        for ids in sorted_ids(ids).chunks(CHUNK) {
            let members =
                dsl::operation_tasks.filter(dsl::operation.eq(Id16::from(step.id))).filter(dsl::task.eq_any(ids.to_vec()));
            diesel::update(members).set(dsl::counted.eq(way.code())).execute(conn).await?;
        }
    }
    expand(conn, step.id, looked_at).await?;
    Ok(true)
}

/// Adds the children of members, a bounded number at a time. A member all of whose children are there is done with: for good, or
/// until the next round while it runs.
async fn expand(conn: &mut Conn, operation: OperationId, looked_at: &[(TreeMember, Counted)]) -> Step<()> {
    use task_children::dsl as child;
    let mut members: Vec<&(TreeMember, Counted)> = looked_at.iter().collect();
    members.sort_by_key(|(member, _)| member.task);
    // One that has more children than fit goes on where it was, alone.
    if let Some(halfway) = members.iter().position(|(member, _)| member.after.is_some()) {
        members = vec![members[halfway]];
    }
    let parents = sorted_ids(members.iter().map(|(member, _)| member.task));
    let mut query = child::task_children
        .filter(child::parent.eq_any(parents.clone()))
        .order((child::parent, child::task))
        .limit(i64::try_from(CHILDREN).unwrap_or(i64::MAX))
        .select((child::parent, child::task))
        .into_boxed();
    if let [(TreeMember { after: Some(after), .. }, _)] = members.as_slice() {
        query = query.filter(child::task.gt(Id16::from(*after)));
    }
    let found = query.load::<(Id16, Id16)>(conn).await?;
    add(conn, operation, &sorted_ids(found.iter().map(|(_, task)| *task))).await?;
    // With as many as fit, the last parent may have more, and those behind it were not reached.
    let last = found.last().filter(|_| found.len() == CHILDREN).copied();
    let of_operation = || dsl::operation_tasks.filter(dsl::operation.eq(Id16::from(operation)));
    for (state, stopping) in [(MemberState::Over, false), (MemberState::Stopping, true)] {
        let whole =
            members.iter().filter(|(_, counted)| (*counted == Counted::Requested) == stopping).map(|(member, _)| member.task);
        let whole = sorted_ids(whole).into_iter().filter(|task| last.is_none_or(|(parent, _)| *task < parent)).collect::<Vec<_>>();
        for ids in whole.chunks(CHUNK) {
            let members = of_operation().filter(dsl::task.eq_any(ids.to_vec()));
            diesel::update(members).set((dsl::state.eq(state.code()), dsl::after.eq(None::<Id16>))).execute(conn).await?;
        }
    }
    if let Some((parent, child)) = last {
        let halfway = of_operation().filter(dsl::task.eq(parent));
        diesel::update(halfway).set(dsl::after.eq(Some(child))).execute(conn).await?;
    }
    Ok(())
}

/// Children of tasks; see [`crate::Store::children`].
pub(crate) async fn children(conn: &mut Conn, parents: &[TaskId], limit: usize) -> Step<Vec<TaskId>> {
    use task_children::dsl as child;
    let mut found = Vec::new();
    for ids in sorted_ids(parents.iter().copied()).chunks(CHUNK) {
        let query = child::task_children.filter(child::parent.eq_any(ids.to_vec())).order((child::parent, child::task));
        let left = i64::try_from(limit - found.len()).unwrap_or(i64::MAX);
        found.extend(query.limit(left).select(child::task).load::<Id16>(conn).await?.into_iter().map(TaskId::from));
    }
    Ok(found)
}

/// Puts the members that still ran back among those to be looked at; false when there are none. See [`crate::Store::next_round`].
pub(crate) async fn next_round(conn: &mut Conn, operation: OperationId) -> Step<bool> {
    let stopping =
        dsl::operation_tasks.filter(dsl::operation.eq(Id16::from(operation))).filter(dsl::state.eq(MemberState::Stopping.code()));
    Ok(diesel::update(stopping).set(dsl::state.eq(MemberState::Open.code())).execute(conn).await? > 0)
}

#[derive(Debug, QueryableByName)]
struct EndedRow {
    #[diesel(sql_type = Binary)]
    id: Id16,
}

/// Deletes members of an operation that has ended; says how many.
pub(crate) async fn fell(conn: &mut Conn, limit: usize) -> Step<usize> {
    let sql = "SELECT id FROM operations WHERE state <> ? \
         AND EXISTS (SELECT 1 FROM operation_tasks m WHERE m.operation = operations.id) LIMIT 1";
    let ended: Vec<EndedRow> = raw(sql).bind::<SmallInt, _>(OperationState::Running.code()).load(conn).await?;
    let [EndedRow { id: ended }] = *ended.as_slice() else { return Ok(0) };
    let members = dsl::operation_tasks.filter(dsl::operation.eq(ended));
    let ids = members.limit(i64::try_from(limit).unwrap_or(i64::MAX)).select(dsl::task).load::<Id16>(conn).await?;
    let mut felled = 0;
    for ids in ids.chunks(CHUNK) {
        let members = dsl::operation_tasks.filter(dsl::operation.eq(ended)).filter(dsl::task.eq_any(ids.to_vec()));
        felled += diesel::delete(members).execute(conn).await?;
    }
    Ok(felled)
}
