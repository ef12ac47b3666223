//! Changes of a task that waits: new values and the mask that says which of them count.

use oxcart_types::{TaskChanges, Timestamp, Violations, spec::check_order, violation::reason};

use super::spec;
use crate::pb::common::v1 as pb;

/// Paths that may be changed.
pub const CHANGEABLE: [&str; 10] = [
    "queue",
    "priority",
    "tags",
    "run_at",
    "expires_at",
    "start_timeout",
    "timeout",
    "heartbeat_timeout",
    "deadline",
    "retry_policy",
];

/// Reads the fields of `new` that `mask` names; a named field that is unset goes back to its default.
///
/// # Errors
/// Every bad value; an empty mask and every path that is unknown or cannot be changed (`UPDATE_MASK_INVALID`).
pub fn update(new: Option<pb::TaskSpec>, mask: Option<prost_types::FieldMask>, now: Timestamp) -> Result<TaskChanges, Violations> {
    let mut bad = Violations::new();
    let (new, paths) = (new.unwrap_or_default(), mask.unwrap_or_default().paths);
    if paths.is_empty() {
        bad.add("update_mask", reason::UPDATE_MASK_INVALID, format!("is empty; name some of {}", CHANGEABLE.join(", ")));
    }
    let mut changes = TaskChanges::default();
    // Values are noted under `spec.`, the mask under its own name.
    let mut values = Violations::new();
    for (i, path) in paths.iter().enumerate() {
        match path.as_str() {
            "queue" => changes.queue = spec::queue(&mut values, &new.queue),
            "priority" => changes.priority = spec::priority(&mut values, new.priority),
            "tags" => changes.tags = Some(spec::tags(&mut values, &new.tags)),
            "run_at" => {
                changes.run_at = Some(match new.start {
                    Some(pb::task_spec::Start::RunAt(at)) => values.take("run_at", spec::planned(at, now)),
                    Some(pb::task_spec::Start::Delay(_)) => {
                        values.add("delay", reason::FIELD_CONFLICT, "cannot be changed; give run_at");
                        None
                    }
                    None => None,
                });
            }
            "expires_at" => {
                changes.expires_at = Some(new.expires_at.and_then(|at| values.take("expires_at", spec::future(at, now))));
            }
            "start_timeout" => {
                let max = oxcart_types::Limits::HORIZON;
                let limit = new.start_timeout.and_then(|limit| values.take("start_timeout", spec::positive(limit, max)));
                changes.start_timeout = Some(limit);
            }
            "heartbeat_timeout" => {
                let max = oxcart_types::Limits::TIMEOUT;
                let limit = new.heartbeat_timeout.and_then(|limit| values.take("heartbeat_timeout", spec::positive(limit, max)));
                changes.heartbeat_timeout = Some(limit);
            }
            "timeout" => {
                let max = oxcart_types::Limits::TIMEOUT;
                changes.timeout = Some(new.timeout.and_then(|limit| values.take("timeout", spec::positive(limit, max))));
            }
            "deadline" => {
                let max = oxcart_types::Limits::DEADLINE;
                changes.deadline = Some(new.deadline.and_then(|limit| values.take("deadline", spec::positive(limit, max))));
            }
            "retry_policy" => changes.retry = Some(spec::retry(&mut values, new.retry_policy.clone())),
            _ => bad.add(
                format!("update_mask.paths[{i}]"),
                reason::UPDATE_MASK_INVALID,
                format!("cannot be changed; name some of {}", CHANGEABLE.join(", ")),
            ),
        }
        if i >= CHANGEABLE.len() * 2 {
            bad.add("update_mask", reason::UPDATE_MASK_INVALID, format!("has {} paths", paths.len()));
            break;
        }
    }
    check_order(&mut values, changes.run_at.flatten(), changes.expires_at.flatten(), None);
    bad.nest("spec", values);
    bad.check().map(|()| changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_timestamp(1_800_000_000, 0).expect("a time")
    }

    fn mask(paths: &[&str]) -> Option<prost_types::FieldMask> {
        Some(prost_types::FieldMask { paths: paths.iter().map(|&path| path.to_owned()).collect() })
    }

    #[test]
    fn only_named_fields_change_and_unset_ones_go_back() {
        let new = pb::TaskSpec { queue: "slow".to_owned(), priority: Some(9), ..Default::default() };
        let changes = update(Some(new), mask(&["priority", "run_at", "timeout"]), now()).expect("good");
        assert_eq!(changes.priority.map(oxcart_types::Priority::get), Some(9));
        assert_eq!((changes.queue, changes.run_at, changes.timeout), (None, Some(None), Some(None)));
    }

    #[test]
    fn bad_masks_and_values_are_named_together() {
        let new = pb::TaskSpec { priority: Some(10), ..Default::default() };
        let bad = update(Some(new), mask(&["priority", "payload", "nonsense"]), now()).expect_err("three mistakes");
        let seen: Vec<_> = bad.as_slice().iter().map(|v| (v.field.as_str(), v.reason)).collect();
        let invalid = reason::UPDATE_MASK_INVALID;
        assert_eq!(
            seen,
            [("update_mask.paths[1]", invalid), ("update_mask.paths[2]", invalid), ("spec.priority", reason::FIELD_INVALID)]
        );
        assert_eq!(update(None, None, now()).expect_err("empty").as_slice()[0].reason, invalid);
    }
}
