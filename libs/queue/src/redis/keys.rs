//! Every name that Oxcart uses in Redis.

use crate::engine::{Partition, QueueError};

/// Names of one deployment.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    deployment: String,
}

impl Keys {
    /// # Errors
    /// [`QueueError::BadCall`]: the name would not stay apart from other names in a key.
    pub(super) fn new(deployment: &str) -> Result<Self, QueueError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if deployment.is_empty() || deployment.len() > 63 || !deployment.chars().all(allowed) {
            return Err(QueueError::BadCall(format!("{deployment:?} cannot name a deployment: use 1 to 63 of A-Z a-z 0-9 . _ -")));
        }
        Ok(Self { deployment: deployment.to_owned() })
    }

    /// The keys of a partition, in the order in which scripts take them. All under one hash tag: one slot of a cluster.
    pub(super) fn of(&self, partition: &Partition) -> [String; 9] {
        let prefix = format!("ox:{{{}:{}}}:", self.deployment, name(partition));
        ["r", "d", "l", "h", "x", "q", "i", "f", "j"].map(|key| format!("{prefix}{key}"))
    }

    /// Set of the names of the partitions that have been used.
    pub(super) fn registry(&self) -> String {
        format!("ox:{}:partitions", self.deployment)
    }

    /// Channel of the announcements.
    pub(super) fn channel(&self) -> String {
        format!("ox:{}:wake", self.deployment)
    }
}

/// A partition by name.
pub(super) fn name(partition: &Partition) -> String {
    format!("{}:{}", partition.queue, partition.number)
}

/// The partition that a name stands for; `None` for a name that [`name`] does not make.
pub(super) fn parse(name: &str) -> Option<Partition> {
    let (queue, number) = name.rsplit_once(':')?;
    Some(Partition { queue: queue.parse().ok()?, number: number.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        let partition = Partition { queue: "mail-1".parse().unwrap(), number: 7 };
        assert_eq!(name(&partition), "mail-1:7");
        assert_eq!(parse("mail-1:7"), Some(partition));
        for foreign in ["", "mail", "mail:", ":1", "Mail:1", "mail:70000"] {
            assert_eq!(parse(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn deployments_keep_apart() {
        let keys = Keys::new("prod").unwrap();
        assert_eq!(keys.of(&Partition { queue: "mail".parse().unwrap(), number: 0 })[0], "ox:{prod:mail:0}:r");
        for bad in ["", "a:b", "{a}", "a b", &"a".repeat(64)] {
            assert!(Keys::new(bad).is_err(), "{bad}");
        }
    }
}
