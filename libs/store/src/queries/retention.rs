//! Retention: what ended long ago goes, in ranges of ids.

use diesel::{ExpressionMethods as _, QueryDsl as _};
use diesel_async::RunQueryDsl as _;
use oxcart_types::{EndKind, TaskId};

use super::{
    Conn, delete, dialect, heads,
    sql::{CHUNK, sorted_ids},
};
use crate::{Dropped, RetentionStep, columns::Id16, fault::Step, rows::head::Head, schema::tasks::dsl};

/// Drops what ended long ago of a stretch of tasks; see [`crate::Store::drop_finished`].
pub(crate) async fn drop_finished(conn: &mut Conn, step: &RetentionStep) -> Step<Dropped> {
    let limit = step.limit.min(CHUNK);
    let query = dsl::tasks
        .filter(dsl::id.gt(step.after.map_or(Id16([0; 16]), Id16::from)))
        .filter(dsl::id.lt(Id16::from(step.below)))
        .order(dsl::id)
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .select(dsl::id);
    let ids: Vec<TaskId> = query.load::<Id16>(conn).await?.into_iter().map(TaskId::from).collect();
    let next_after = ids.last().copied().filter(|_| ids.len() == limit);
    // Looked at without locks first: most of what is left over from earlier walks stays.
    let old = old(conn, &ids, step).await?;
    if old.is_empty() {
        return Ok(Dropped { tasks: 0, next_after });
    }
    // And again under locks: one of them may have been replayed meanwhile.
    heads::lock(conn, &old, dialect::UPDATE).await?;
    let old = self::old(conn, &old, step).await?;
    delete::forget(conn, &sorted_ids(old.iter().copied())).await?;
    Ok(Dropped { tasks: old.len(), next_after })
}

/// Those that have ended, and long enough ago.
async fn old(conn: &mut Conn, ids: &[TaskId], step: &RetentionStep) -> Step<Vec<TaskId>> {
    let is_old = |head: &Head| {
        let before = match head.terminal() {
            None => None,
            Some(EndKind::Succeeded) => step.succeeded_before,
            Some(_) => step.others_before,
        };
        before.zip(head.ended_at).is_some_and(|(before, ended_at)| ended_at < before)
    };
    let heads = heads::heads(conn, ids).await?;
    Ok(heads.values().filter(|head| is_old(head)).map(|head| head.task.entry.task).collect())
}
