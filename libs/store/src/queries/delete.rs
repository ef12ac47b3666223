//! Deletion of finished tasks.

use diesel::{ExpressionMethods as _, QueryDsl as _};
use diesel_async::RunQueryDsl as _;
use oxcart_types::TaskId;

use super::{Conn, dialect, heads};
use crate::{DeleteOutcome, columns::Id16, fault::Step, schema};

/// Deletes a finished task; see [`crate::Store::delete`]. Its idempotency key lives on.
pub(crate) async fn delete(conn: &mut Conn, task: TaskId) -> Step<DeleteOutcome> {
    heads::lock(conn, &[task], dialect::UPDATE).await?;
    match heads::head(conn, task).await? {
        None => return Ok(DeleteOutcome::NoTask),
        Some(head) if head.terminal().is_none() => return Ok(DeleteOutcome::NotFinished),
        Some(_) => {}
    }
    forget(conn, &[Id16::from(task)]).await?;
    Ok(DeleteOutcome::Deleted)
}

/// Deletes all that belongs to tasks, at most [`CHUNK`](super::sql::CHUNK), which are locked. Their idempotency keys live on.
pub(crate) async fn forget(conn: &mut Conn, tasks: &[Id16]) -> Step<()> {
    macro_rules! delete_from {
        ($($table:ident . $key:ident),*) => {
            $(diesel::delete(schema::$table::table.filter(schema::$table::$key.eq_any(tasks.to_vec()))).execute(conn).await?;)*
        };
    }
    // Their own places in trees go; their children keep theirs, so that a tree stays whole when a task within it is deleted.
    let with_parents = schema::tasks::table.filter(schema::tasks::id.eq_any(tasks.to_vec()));
    let parents: Vec<Option<Id16>> =
        with_parents.filter(schema::tasks::parent.is_not_null()).select(schema::tasks::parent).distinct().load(conn).await?;
    let parents: Vec<Id16> = parents.into_iter().flatten().collect();
    if !parents.is_empty() {
        use schema::task_children::dsl;
        // A task has one parent.
        let places = dsl::task_children.filter(dsl::parent.eq_any(parents)).filter(dsl::task.eq_any(tasks.to_vec()));
        diesel::delete(places).execute(conn).await?;
    }
    // Starts before ends: whoever is about to write an end keeps the start, and is waited for.
    delete_from!(tasks.id, starts.task, ends.task, cancels.task, replays.task, live.task, task_tags.task, agenda.task);
    Ok(())
}
