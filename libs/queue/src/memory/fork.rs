//! Copies of an engine, as replicas and backups of Redis are copies: for simulations of what goes wrong with them.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::{MemoryEngine, lock};

impl MemoryEngine {
    /// A copy as things stand, which goes its own way from now on. It announces to the same receivers.
    #[must_use]
    pub fn fork(&self) -> Self {
        let partitions = self.partitions.read().unwrap_or_else(PoisonError::into_inner);
        let copy = partitions.iter().map(|(partition, state)| (partition.clone(), Arc::new(Mutex::new(lock(state).clone()))));
        Self {
            options: self.options.clone(),
            clock: Arc::clone(&self.clock),
            partitions: RwLock::new(copy.collect()),
            wakeups: self.wakeups.clone(),
        }
    }

    /// An empty engine, as Redis is after it lost everything. It announces to the same receivers.
    #[must_use]
    pub fn emptied(&self) -> Self {
        Self {
            options: self.options.clone(),
            clock: Arc::clone(&self.clock),
            partitions: RwLock::default(),
            wakeups: self.wakeups.clone(),
        }
    }

    /// Counts on from where `other` is, so that nobody can tell from the sequence numbers that this one was behind.
    pub fn hide_rollback(&self, other: &Self) {
        let partitions = self.partitions.read().unwrap_or_else(PoisonError::into_inner);
        for (partition, state) in &*partitions {
            if let Some(newer) = other.existing(partition) {
                let seq = lock(&newer).seq;
                let mut state = lock(state);
                state.seq = state.seq.max(seq) + 1;
            }
        }
    }
}
