//! The checks.

mod chains;
mod clients;
mod handlers;

use std::{collections::BTreeMap, time::Duration};

use oxcart_types::{TaskId, Timestamp, WorkerId};

use crate::{Chain, Invariant, Observation, Report};

/// What may be expected of the system that was observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expect {
    /// No fault happened: nothing may be run twice.
    pub calm: bool,
    /// The clocks of those who noted observations agree to within this.
    pub clocks: Duration,
    /// Tasks of one queue, priority and fairness key that were submitted further apart than this are entered in their order:
    /// only to be expected without faults and with a single slot. `None` leaves I10 out.
    pub order: Option<Duration>,
}

impl Default for Expect {
    /// Faults, and clocks that agree to within a millisecond.
    fn default() -> Self {
        Self { calm: false, clocks: Duration::from_millis(1), order: None }
    }
}

/// Checks all that was seen (in order of time as far as one clock tells) against all that SQL holds after the system healed.
#[must_use]
pub fn check(seen: &[Observation], chains: &BTreeMap<TaskId, Chain>, expect: &Expect) -> Report {
    let mut report = Report::default();
    clients::check(seen, chains, &mut report);
    for chain in chains.values() {
        chains::check(chain, &mut report);
    }
    handlers::check(seen, chains, expect, &mut report);
    report
}

/// Checks that nothing of a worker is open, right after it said that it has drained.
#[must_use]
pub fn check_drained(worker: WorkerId, chains: &BTreeMap<TaskId, Chain>) -> Report {
    let mut report = Report::default();
    for chain in chains.values() {
        for run in chain.runs.iter().filter(|run| run.worker == Some(worker) && run.end.is_none()) {
            let what = format!("run {} of worker {worker} is open after its drain", run.run);
            report.add(Invariant::I13, Some(chain.task.spec.id), what);
        }
    }
    report
}

/// Whether `later` lies after `earlier` by more than clocks may disagree.
fn after(later: Timestamp, earlier: Timestamp, clocks: Duration) -> bool {
    later.signed_duration_since(earlier).to_std().is_ok_and(|by| by > clocks)
}
