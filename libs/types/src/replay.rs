//! Replays: a finished task is run again under its own id.

use crate::{digest::Parts, id::TaskId};

/// How a finished task is to be run again: due now, without expiry, with a new budget of attempts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplaySpec {
    /// Counted starts of the new budget; those of the task's policy when `None`.
    pub max_attempts: Option<u32>,
    /// Forgets the checkpoint of the runs before.
    pub reset_checkpoint: bool,
    /// Also when it SUCCEEDED.
    pub allow_succeeded: bool,
    /// For people.
    pub reason: String,
}

impl ReplaySpec {
    /// Digest of what was asked for. Equal digests mean the same request.
    #[must_use]
    pub fn digest(&self, task: TaskId) -> [u8; 16] {
        let mut parts = Parts::default();
        // No submission begins with this part: a name of a handler is never empty.
        parts.add(b"");
        parts.add(b"replay");
        parts.add(task.as_bytes());
        parts.add(format!("{:?}{}{}", self.max_attempts, self.reset_checkpoint, self.allow_succeeded).as_bytes());
        parts.add(self.reason.as_bytes());
        parts.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_counts() {
        let task = TaskId::from_bytes([1; 16]);
        let plain = ReplaySpec::default();
        let digests = [
            plain.digest(task),
            plain.digest(TaskId::from_bytes([2; 16])),
            ReplaySpec { max_attempts: Some(1), ..plain.clone() }.digest(task),
            ReplaySpec { reset_checkpoint: true, ..plain.clone() }.digest(task),
            ReplaySpec { allow_succeeded: true, ..plain.clone() }.digest(task),
            ReplaySpec { reason: "again".to_owned(), ..plain.clone() }.digest(task),
        ];
        let distinct: std::collections::BTreeSet<_> = digests.iter().collect();
        assert_eq!(distinct.len(), digests.len());
        assert_eq!(plain.clone().digest(task), digests[0]);
    }
}
