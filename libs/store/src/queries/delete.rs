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
    let id = Id16::from(task);
    macro_rules! delete_from {
        ($($table:ident . $key:ident),*) => {
            $(diesel::delete(schema::$table::table.filter(schema::$table::$key.eq(id))).execute(conn).await?;)*
        };
    }
    // Starts before ends: whoever is about to write an end keeps the start, and is waited for.
    delete_from!(tasks.id, starts.task, ends.task, cancels.task, replays.task, live.task, task_tags.task, agenda.task);
    Ok(DeleteOutcome::Deleted)
}
