//! Why and when a handler is asked to stop.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

/// Why a handler is asked to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopReason {
    /// Somebody cancelled the task.
    Cancelled {
        /// What they said.
        reason: String,
    },
    /// The attempt ran longer than its timeout.
    Timeout,
    /// The handler reported nothing for longer than its heartbeat timeout.
    HeartbeatTimeout,
    /// The task ran longer than its deadline.
    Deadline,
    /// The worker shuts down; the run is given back without using an attempt.
    Shutdown,
    /// Another worker has the run: nothing that this one reports will stand.
    LeaseLost,
    /// Nobody can say whether the lease still holds, and the worker's policy is to stop then.
    LeaseUncertain,
}

/// Asks one run to stop, once. Clones are the same signal.
#[derive(Debug, Clone, Default)]
pub struct StopSignal(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    token: CancellationToken,
    reason: OnceLock<StopReason>,
}

impl StopSignal {
    /// A run that is not asked to stop.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks to stop. The first reason stands; `false` when there was one.
    pub fn stop(&self, reason: StopReason) -> bool {
        let first = self.0.reason.set(reason).is_ok();
        self.0.token.cancel();
        first
    }

    /// Why; `None` while nobody asked.
    #[must_use]
    pub fn reason(&self) -> Option<&StopReason> {
        self.0.reason.get()
    }

    /// Cancelled when the run is asked to stop.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.0.token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_stands() {
        let signal = StopSignal::new();
        assert_eq!(signal.reason(), None);
        assert!(signal.stop(StopReason::Timeout));
        assert!(!signal.clone().stop(StopReason::Shutdown));
        assert_eq!(signal.reason(), Some(&StopReason::Timeout));
        assert!(signal.token().is_cancelled());
    }
}
