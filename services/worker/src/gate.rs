//! Whether this worker takes new tasks, and why not.

use std::sync::atomic::{AtomicBool, Ordering};

/// Whether this worker takes new tasks.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    draining: AtomicBool,
    paused: AtomicBool,
    store_down: AtomicBool,
}

impl Gate {
    /// True when it does.
    pub(crate) fn is_open(&self) -> bool {
        !self.is_draining() && !self.is_paused() && !self.is_store_down()
    }

    /// The database fails.
    pub(crate) fn is_store_down(&self) -> bool {
        self.store_down.load(Ordering::Acquire)
    }

    /// It leaves.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// An operator paused it.
    pub(crate) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }

    /// It leaves from now on.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// An operator pauses or resumes it; true when that changes something.
    pub(crate) fn set_paused(&self, paused: bool) -> bool {
        self.paused.swap(paused, Ordering::AcqRel) != paused
    }

    /// The database fails, or works again; true when that changes something.
    pub(crate) fn set_store_down(&self, down: bool) -> bool {
        self.store_down.swap(down, Ordering::AcqRel) != down
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_reason_closes_it() {
        let gate = Gate::default();
        assert!(gate.is_open());
        assert!(gate.set_paused(true) && !gate.is_open());
        assert!(gate.set_store_down(true) && !gate.set_store_down(true));
        assert!(gate.set_paused(false) && !gate.is_open());
        assert!(gate.set_store_down(false) && gate.is_open());
        gate.drain();
        assert!(!gate.is_open());
    }
}
