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
    // Starts before ends: whoever is about to write an end keeps the start, and is waited for.
    delete_from!(tasks.id, starts.task, ends.task, cancels.task, replays.task, live.task, task_tags.task, agenda.task);
    Ok(())
}
