//! Lists of tasks.

use diesel::{ExpressionMethods as _, QueryDsl as _};
use diesel_async::RunQueryDsl as _;
use oxcart_types::{EndKind, TaskId, TaskState, record::View};

use super::{Conn, read};
use crate::{
    TaskFilter, TaskPage,
    codes::Coded as _,
    columns::{self, Id16},
    fault::Step,
    schema,
};

/// Rows that one call looks at, at most.
const LOOKED_AT: usize = 2000;
/// Rows that are read in full at a time.
const READ_AT_ONCE: usize = 200;

/// Lists tasks by id, newest first; see [`crate::Store::list`].
///
/// The most selective index names candidates, in a window of bounded size; what the filter says beyond that is decided on the
/// records themselves.
pub(crate) async fn list(conn: &mut Conn, filter: &TaskFilter, before: Option<TaskId>, limit: usize) -> Step<TaskPage> {
    let before = before.map_or(Id16([0xff; 16]), Id16::from);
    let window = candidates(conn, filter, before).await?;
    let mut page = TaskPage { tasks: Vec::new(), next_before: window.next_before };
    for ids in window.ids.chunks(READ_AT_ONCE) {
        for (id, record) in ids.iter().zip(read::get(conn, ids, View::Basic).await?) {
            let Some(record) = record.filter(|record| filter.matches(record)) else { continue };
            if page.tasks.len() == limit {
                page.next_before = page.tasks.last().map(|last| last.spec.id);
                return Ok(page);
            }
            page.tasks.push(record);
            debug_assert_eq!(page.tasks.last().map(|last| last.spec.id), Some(*id));
        }
    }
    Ok(page)
}

/// Candidates in descending order.
struct Window {
    ids: Vec<TaskId>,
    /// Where the next window begins; `None` at the end.
    next_before: Option<TaskId>,
}

impl Window {
    /// A window of rows of which the last is where the next begins.
    fn new(rows: &[Id16], keep: impl Fn(usize) -> bool) -> Self {
        let next_before = if rows.len() < LOOKED_AT { None } else { rows.last().map(|id| TaskId::from(*id)) };
        let kept = rows.iter().enumerate().filter(|(index, _)| keep(*index));
        Self { ids: kept.map(|(_, id)| TaskId::from(*id)).collect(), next_before }
    }
}

async fn candidates(conn: &mut Conn, filter: &TaskFilter, before: Id16) -> Step<Window> {
    let looked_at = i64::try_from(LOOKED_AT).unwrap_or(i64::MAX);
    if let Some(tag) = &filter.tag {
        use schema::task_tags::dsl;
        let query = dsl::task_tags.filter(dsl::tag.eq(tag.as_str().to_owned())).filter(dsl::task.lt(before));
        let rows = query.order(dsl::task.desc()).limit(looked_at).select(dsl::task).load::<Id16>(conn).await?;
        return Ok(Window::new(&rows, |_| true));
    }
    if let Some(kinds) = terminal_kinds(&filter.states) {
        let mut rows = Vec::new();
        for kind in kinds {
            use schema::ends::dsl;
            // A task that was replayed may have several ends of a kind.
            let query = dsl::ends.filter(dsl::kind.eq(kind.code())).filter(dsl::task.lt(before));
            rows.extend(query.order(dsl::task.desc()).limit(looked_at).select(dsl::task).distinct().load::<Id16>(conn).await?);
        }
        rows.sort_unstable_by(|a, b| b.cmp(a));
        rows.dedup();
        rows.truncate(LOOKED_AT);
        return Ok(Window::new(&rows, |_| true));
    }
    use schema::tasks::dsl;
    let query = dsl::tasks.filter(dsl::id.lt(before)).order(dsl::id.desc()).limit(looked_at);
    let rows = query.select((dsl::id, dsl::queue, dsl::name, dsl::created_at));
    let rows = rows.load::<(Id16, String, String, chrono::NaiveDateTime)>(conn).await?;
    let may_match = |index: usize| {
        let (_, queue, name, created_at) = &rows[index];
        filter.queue.as_ref().is_none_or(|wanted| wanted.as_str() == queue)
            && filter.name.as_ref().is_none_or(|wanted| wanted.as_str() == name)
            && filter.created_from.is_none_or(|from| *created_at >= columns::time(from))
            && filter.created_before.is_none_or(|before| *created_at < columns::time(before))
    };
    let ids: Vec<Id16> = rows.iter().map(|row| row.0).collect();
    Ok(Window::new(&ids, may_match))
}

/// The kinds of ends that states mean, when all of them are terminal.
fn terminal_kinds(states: &[TaskState]) -> Option<Vec<EndKind>> {
    let kind = |state: &TaskState| match state {
        TaskState::Succeeded => Some(EndKind::Succeeded),
        TaskState::Failed => Some(EndKind::Failed),
        TaskState::Cancelled => Some(EndKind::Cancelled),
        TaskState::Expired => Some(EndKind::Expired),
        TaskState::Pending | TaskState::Queued | TaskState::Running | TaskState::Retrying => None,
    };
    if states.is_empty() { None } else { states.iter().map(kind).collect() }
}
