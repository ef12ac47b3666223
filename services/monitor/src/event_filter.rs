//! Filters on events.

use oxcart_proto::pb::common::v1::Event;
use oxcart_types::{
    QueueName, TaskId,
    filter::{Comparison, FilterError, Operator, parse},
};

use crate::events;

const FIELDS: &str = "type, task_id, queue";

/// Which events to show; every part that is set must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct EventFilter {
    /// Type, for example `task.succeeded`.
    pub(crate) kind: Option<&'static str>,
    /// Task.
    pub(crate) task: Option<TaskId>,
    /// Queue.
    pub(crate) queue: Option<QueueName>,
}

impl EventFilter {
    /// Reads a filter.
    ///
    /// # Errors
    /// As [`parse`]; an unknown field, a comparison other than `=`, a field twice, a value that its field does not have.
    pub(crate) fn parse(text: &str) -> Result<Self, FilterError> {
        let mut filter = Self::default();
        for comparison in parse(text)? {
            filter.add(&comparison)?;
        }
        Ok(filter)
    }

    fn add(&mut self, comparison: &Comparison) -> Result<(), FilterError> {
        let Comparison { field, operator, value, field_at, value_at } = comparison;
        let bad = |description: String| FilterError::syntax(*value_at, description);
        let taken = match field.as_str() {
            "type" => {
                let kind = events::kind_named(value).ok_or_else(|| bad(format!("{value:?} is no type of events")))?;
                self.kind.replace(kind).is_some()
            }
            "task_id" => {
                self.task.replace(value.parse().map_err(|e: oxcart_types::violation::Invalid| bad(e.description))?).is_some()
            }
            "queue" => {
                self.queue.replace(value.parse().map_err(|e: oxcart_types::violation::Invalid| bad(e.description))?).is_some()
            }
            _ => return Err(FilterError::UnknownField { at: *field_at, field: field.clone(), known: FIELDS }),
        };
        if *operator != Operator::Equal {
            return Err(FilterError::syntax(*field_at, format!("{field} can be compared with = only")));
        }
        if taken {
            return Err(FilterError::syntax(*field_at, format!("{field} is compared twice")));
        }
        Ok(())
    }

    /// True when an event is to be shown.
    #[must_use]
    pub(crate) fn matches(&self, event: &Event) -> bool {
        self.kind.is_none_or(|kind| kind == event.r#type)
            && self.queue.as_ref().is_none_or(|queue| queue.as_str() == event.queue)
            && self.task.is_none_or(|task| event.subject_id.parse() == Ok(task))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_must_all_hold() {
        let id = "0190f3c5-7b1e-7cc3-98c4-dc0c0c07398f";
        let event = |kind: &str, queue: &str| Event {
            r#type: kind.to_owned(),
            queue: queue.to_owned(),
            subject_id: id.to_owned(),
            ..Default::default()
        };
        let filter = EventFilter::parse(&format!("type = succeeded AND task_id = {id} AND queue = mail")).expect("a filter");
        assert!(filter.matches(&event("task.succeeded", "mail")));
        assert!(!filter.matches(&event("task.failed", "mail")));
        assert!(!filter.matches(&event("task.succeeded", "default")));
        assert!(EventFilter::parse("").expect("all").matches(&event("task.failed", "x")));
    }

    #[test]
    fn what_a_field_does_not_have_is_refused() {
        for text in ["type = task.exploded", "type != task.failed", "queue = Mail", "task_id = x", "queue = a AND queue = b"] {
            assert!(matches!(EventFilter::parse(text), Err(FilterError::Syntax { .. })), "{text}");
        }
        assert!(matches!(EventFilter::parse("state = FAILED"), Err(FilterError::UnknownField { at: 1, .. })));
    }
}
