//! Filters of lists, decided on records.

use oxcart_types::record::TaskRecord;

use crate::TaskFilter;

/// Every part of the filter that is set holds.
pub(crate) fn matches(task: &TaskRecord, filter: &TaskFilter) -> bool {
    let spec = &task.spec;
    (filter.states.is_empty() || filter.states.contains(&task.state))
        && filter.queue.as_ref().is_none_or(|queue| *queue == spec.queue)
        && filter.name.as_ref().is_none_or(|name| *name == spec.name)
        && filter.tag.as_ref().is_none_or(|tag| spec.tags.contains(tag))
        && filter.worker.is_none_or(|worker| task.worker == Some(worker))
        && filter.failure_kind.as_ref().is_none_or(|kind| task.failure.as_ref().is_some_and(|f| f.kind.as_str() == kind))
        && filter.created_from.is_none_or(|from| task.created_at >= from)
        && filter.created_before.is_none_or(|before| task.created_at < before)
}
