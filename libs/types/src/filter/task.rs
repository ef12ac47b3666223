//! Filters on tasks.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::{Comparison, FilterError, Operator, parse};
use crate::{
    QueueName, Tag, TaskId, TaskName, TaskState, WorkerId,
    clock::{Timestamp, to_micros},
    record::TaskRecord,
    spec::TaskSpec,
    state::UnknownState,
    violation::Invalid,
};

const FIELDS: &str = "state, queue, task_name, tags, task_id, worker_id, error_kind, create_time";

/// Which tasks a store looks for; every part that is set must hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TaskFilter {
    /// Any of these states; all when empty.
    pub states: Vec<TaskState>,
    /// Queue.
    pub queue: Option<QueueName>,
    /// Handler.
    pub name: Option<TaskName>,
    /// Has this tag.
    pub tag: Option<Tag>,
    /// Worker of the latest run.
    pub worker: Option<WorkerId>,
    /// Kind of the latest failure.
    pub failure_kind: Option<String>,
    /// Submitted at or after.
    pub created_from: Option<Timestamp>,
    /// Submitted before.
    pub created_before: Option<Timestamp>,
}

impl TaskFilter {
    /// True when every part that is set holds.
    #[must_use]
    pub fn matches(&self, task: &TaskRecord) -> bool {
        self.matches_submitted(&Submitted::of(&task.spec, task.created_at))
            && (self.states.is_empty() || self.states.contains(&task.state))
            && self.worker.is_none_or(|worker| task.worker == Some(worker))
            && self.failure_kind.as_ref().is_none_or(|kind| task.failure.as_ref().is_some_and(|f| f.kind.as_str() == kind))
    }

    /// True when every part that a submission decides holds; the others are not looked at.
    fn matches_submitted(&self, task: &Submitted<'_>) -> bool {
        self.queue.as_ref().is_none_or(|queue| queue == task.queue)
            && self.name.as_ref().is_none_or(|name| name == task.name)
            && self.tag.as_ref().is_none_or(|tag| task.tags.contains(tag))
            && self.created_from.is_none_or(|from| task.created_at >= from)
            && self.created_before.is_none_or(|before| task.created_at < before)
    }
}

/// What is known of a task from its submission on.
#[derive(Debug, Clone, Copy)]
pub struct Submitted<'a> {
    /// Id.
    pub id: TaskId,
    /// Queue.
    pub queue: &'a QueueName,
    /// Handler.
    pub name: &'a TaskName,
    /// Tags.
    pub tags: &'a [Tag],
    /// Time of submission.
    pub created_at: Timestamp,
}

impl<'a> Submitted<'a> {
    /// Of a specification that was submitted then.
    #[must_use]
    pub fn of(spec: &'a TaskSpec, created_at: Timestamp) -> Self {
        Self { id: spec.id, queue: &spec.queue, name: &spec.name, tags: &spec.tags, created_at }
    }
}

/// Which tasks to list.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TaskQuery {
    /// What the store looks for.
    pub store: TaskFilter,
    /// One task only.
    pub task: Option<TaskId>,
    /// Tags beyond the first: the store finds tasks by one tag, the others are looked at afterwards.
    pub more_tags: Vec<Tag>,
}

impl TaskQuery {
    /// Reads a filter; `now` is what times like `now-1h` count from.
    ///
    /// # Errors
    /// As [`parse`]; an unknown field, a comparison that its field does not have, a field twice, a value that its field does
    /// not have.
    pub fn parse(text: &str, now: Timestamp) -> Result<Self, FilterError> {
        let mut query = Self::default();
        for comparison in parse(text)? {
            query.add(&comparison, now)?;
        }
        Ok(query)
    }

    fn add(&mut self, comparison: &Comparison, now: Timestamp) -> Result<(), FilterError> {
        let filter = &mut self.store;
        match comparison.field.as_str() {
            "state" => add_state(&mut filter.states, comparison),
            "queue" => set(&mut filter.queue, comparison, str::parse),
            "task_name" => set(&mut filter.name, comparison, str::parse),
            "task_id" => set(&mut self.task, comparison, str::parse),
            "worker_id" => set(&mut filter.worker, comparison, str::parse),
            "error_kind" => set(&mut filter.failure_kind, comparison, |value| Ok(value.to_owned())),
            "create_time" => narrow(filter, comparison, now),
            "tags" => {
                operators(comparison, &[Operator::Has])?;
                let tag: Tag = comparison.value.parse().map_err(|invalid| value_error(comparison, invalid))?;
                match &filter.tag {
                    None => filter.tag = Some(tag),
                    Some(_) => self.more_tags.push(tag),
                }
                Ok(())
            }
            _ => Err(FilterError::UnknownField { at: comparison.field_at, field: comparison.field.clone(), known: FIELDS }),
        }
    }

    /// True when a task that the store found by [`Self::store`] has the other tags, too.
    #[must_use]
    pub fn has_more_tags(&self, task: &TaskRecord) -> bool {
        self.more_tags.iter().all(|tag| task.spec.tags.contains(tag))
    }

    /// True when nothing is compared: every task matches.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// A field among the compared ones that a submission does not decide: it tells of what became of a task since.
    #[must_use]
    pub fn decided_later(&self) -> Option<&'static str> {
        let filter = &self.store;
        [
            (!filter.states.is_empty(), "state"),
            (filter.worker.is_some(), "worker_id"),
            (filter.failure_kind.is_some(), "error_kind"),
        ]
        .into_iter()
        .find_map(|(compared, field)| compared.then_some(field))
    }

    /// True when a task matches as far as its submission decides; see [`Self::decided_later`] for what is not looked at.
    #[must_use]
    pub fn matches_submitted(&self, task: &Submitted<'_>) -> bool {
        self.task.is_none_or(|id| id == task.id)
            && self.store.matches_submitted(task)
            && self.more_tags.iter().all(|tag| task.tags.contains(tag))
    }

    /// True when a task, however it was found, is one of those to list.
    #[must_use]
    pub fn matches(&self, task: &TaskRecord) -> bool {
        self.task.is_none_or(|id| id == task.spec.id) && self.store.matches(task) && self.has_more_tags(task)
    }
}

fn add_state(states: &mut Vec<TaskState>, comparison: &Comparison) -> Result<(), FilterError> {
    operators(comparison, &[Operator::Equal, Operator::NotEqual])?;
    let state: TaskState =
        comparison.value.parse().map_err(|error: UnknownState| FilterError::syntax(comparison.value_at, error.to_string()))?;
    let equal = comparison.operator == Operator::Equal;
    // An empty list means every state, so the first comparison starts from all of them.
    let before: &[TaskState] = if states.is_empty() { &TaskState::ALL } else { states };
    let after: Vec<_> = before.iter().copied().filter(|s| (*s == state) == equal).collect();
    if after.is_empty() {
        return Err(FilterError::syntax(comparison.field_at, "no state is left by these comparisons"));
    }
    *states = after;
    Ok(())
}

fn set<T>(slot: &mut Option<T>, comparison: &Comparison, read: fn(&str) -> Result<T, Invalid>) -> Result<(), FilterError> {
    operators(comparison, &[Operator::Equal])?;
    let value = read(&comparison.value).map_err(|invalid| value_error(comparison, invalid))?;
    if slot.replace(value).is_some() {
        return Err(FilterError::syntax(comparison.field_at, format!("{} is compared twice", comparison.field)));
    }
    Ok(())
}

/// Narrows the range of times. The store takes half-open ranges of whole microseconds.
fn narrow(filter: &mut TaskFilter, comparison: &Comparison, now: Timestamp) -> Result<(), FilterError> {
    let time = time(&comparison.value, now).map_err(|description| FilterError::syntax(comparison.value_at, description))?;
    let next = time.checked_add_signed(TimeDelta::microseconds(1)).unwrap_or(time);
    let (from, before) = match comparison.operator {
        Operator::Less => (None, Some(time)),
        Operator::LessOrEqual => (None, Some(next)),
        Operator::Greater => (Some(next), None),
        Operator::GreaterOrEqual => (Some(time), None),
        Operator::Equal => (Some(time), Some(next)),
        Operator::NotEqual | Operator::Has => {
            return operators(
                comparison,
                &[Operator::Equal, Operator::Less, Operator::LessOrEqual, Operator::Greater, Operator::GreaterOrEqual],
            );
        }
    };
    filter.created_from = filter.created_from.max(from);
    filter.created_before = [filter.created_before, before].into_iter().flatten().min();
    Ok(())
}

/// Reads `now`, `now-1h`, `now+30m`, or RFC 3339.
fn time(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let Some(offset) = text.strip_prefix("now") else {
        return DateTime::parse_from_rfc3339(text)
            .map(|time| to_micros(time.with_timezone(&Utc)))
            .map_err(|error| format!("{text:?} is neither RFC 3339 nor now-1h or the like: {error}"));
    };
    if offset.is_empty() {
        return Ok(now);
    }
    let bad = || format!("{text:?} is no time: write now-90s, now-15m, now-1h or now-7d");
    let (sign, length) = offset.split_at_checked(1).ok_or_else(bad)?;
    let length = TimeDelta::from_std(length_of_time(length).ok_or_else(bad)?).map_err(|_| bad())?;
    match sign {
        "-" => now.checked_sub_signed(length),
        "+" => now.checked_add_signed(length),
        _ => None,
    }
    .ok_or_else(bad)
}

/// Reads a whole number with a unit: `90s`, `15m`, `1h`, `7d`.
fn length_of_time(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    number.parse::<u32>().ok().map(|number| Duration::from_secs(u64::from(number) * seconds))
}

fn operators(comparison: &Comparison, allowed: &[Operator]) -> Result<(), FilterError> {
    if allowed.contains(&comparison.operator) {
        return Ok(());
    }
    let names: Vec<_> = allowed.iter().map(|operator| operator.as_str()).collect();
    let description = format!("{} cannot be compared with {}; use {}", comparison.field, comparison.operator, names.join(" "));
    Err(FilterError::syntax(comparison.field_at, description))
}

fn value_error(comparison: &Comparison, invalid: Invalid) -> FilterError {
    FilterError::syntax(comparison.value_at, format!("{} {}", comparison.field, invalid.description))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn now() -> Timestamp {
        DateTime::from_timestamp(1_800_000_000, 0).expect("a time")
    }

    fn read(text: &str) -> TaskQuery {
        TaskQuery::parse(text, now()).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn fields_reach_the_store() {
        let query = read(
            r#"state = task_state_failed AND queue = "mail" AND task_name=email.send AND tags:vip AND tags:eu AND error_kind = Smtp"#,
        );
        assert_eq!(query.store.states, [TaskState::Failed]);
        assert_eq!(query.store.queue.as_ref().map(QueueName::as_str), Some("mail"));
        assert_eq!(query.store.name.as_ref().map(TaskName::as_str), Some("email.send"));
        assert_eq!(query.store.tag.as_ref().map(Tag::as_str), Some("vip"));
        assert_eq!(query.more_tags.iter().map(Tag::as_str).collect::<Vec<_>>(), ["eu"]);
        assert_eq!(query.store.failure_kind.as_deref(), Some("Smtp"));
        assert_eq!(read("state != failed AND state != succeeded").store.states.len(), 6);
    }

    #[test]
    fn times_become_half_open_ranges() {
        let (hour, micro) = (TimeDelta::hours(1), TimeDelta::microseconds(1));
        let range = |text| (read(text).store.created_from, read(text).store.created_before);
        assert_eq!(range("create_time > now-1h"), (Some(now() - hour + micro), None));
        assert_eq!(range("create_time >= now-60m AND create_time < now"), (Some(now() - hour), Some(now())));
        assert_eq!(range("create_time = now+3600s"), (Some(now() + hour), Some(now() + hour + micro)));
        assert_eq!(range("create_time <= 2027-01-15T08:00:00Z"), (None, Some(now() + micro)));
        assert_eq!(range("create_time > now-2h AND create_time >= now-1h"), (Some(now() - hour), None));
    }

    #[test]
    fn refusals_say_what_a_field_has() {
        let table = [
            ("state = done", 9, "not a task state"),
            ("state > failed", 1, "use = !="),
            ("state = failed AND state = succeeded", 20, "no state is left"),
            ("queue = a AND queue = b", 15, "compared twice"),
            ("queue = Mail", 9, "not allowed"),
            ("queue : mail", 1, "use ="),
            ("tags = vip", 1, "use :"),
            ("worker_id = 7", 13, "not a UUID"),
            ("create_time : now", 1, "cannot be compared with :"),
            ("create_time > now-1", 15, "is no time"),
            ("create_time > now~1h", 15, "is no time"),
            ("create_time > nowä", 15, "is no time"),
            ("create_time > yesterday", 15, "neither RFC 3339"),
        ];
        for (text, position, part) in table {
            let Err(FilterError::Syntax { at, description }) = TaskQuery::parse(text, now()) else {
                panic!("{text} must be refused")
            };
            assert_eq!(at, position, "{text}: {description}");
            assert!(description.contains(part), "{text}: {description}");
        }
        let error = TaskQuery::parse("queue = a AND priority = 3", now()).expect_err("unknown");
        assert!(matches!(&error, FilterError::UnknownField { at: 15, field, .. } if field == "priority"), "{error}");
    }

    #[test]
    fn what_a_submission_decides_is_told_apart() {
        assert!(read("").is_empty());
        assert!(!read("tags:vip").is_empty());
        for (text, later) in [
            ("queue = mail AND task_name = a AND tags:vip AND create_time < now", None),
            ("tags:vip AND state = QUEUED", Some("state")),
            ("worker_id = 0190f3c5-7b1e-7cc3-98c4-dc0c0c07398f", Some("worker_id")),
            ("error_kind = Smtp", Some("error_kind")),
        ] {
            assert_eq!(read(text).decided_later(), later, "{text}");
        }
        let tags: Vec<Tag> = vec!["eu".parse().expect("a tag"), "vip".parse().expect("a tag")];
        let (queue, name) = ("mail".parse().expect("a queue"), "email.send".parse().expect("a name"));
        let id = "0190f3c5-7b1e-7cc3-98c4-dc0c0c07398f".parse().expect("an id");
        let task = Submitted { id, queue: &queue, name: &name, tags: &tags, created_at: now() };
        for (text, matches) in [
            ("queue = mail AND task_name = email.send AND tags:vip AND tags:eu AND create_time >= now", true),
            ("tags:vip AND tags:us", false),
            ("tags:us", false),
            ("queue = other", false),
            ("task_name = other", false),
            ("create_time < now", false),
            ("0190f3c5-7b1e-7cc3-98c4-dc0c0c07398f", true),
            ("0190f3c5-7b1e-7cc3-98c4-dc0c0c073980", false),
        ] {
            assert_eq!(read(text).matches_submitted(&task), matches, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_value_panics(value in "\\PC{1,20}", field in "(state|queue|task_name|tags|task_id|worker_id|error_kind|create_time)", operator in "(=|:|<|>=)") {
            let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
            let _ = TaskQuery::parse(&format!("{field} {operator} \"{quoted}\""), now());
            let _ = TaskQuery::parse(&format!("create_time > now{value}"), now());
        }
    }
}
