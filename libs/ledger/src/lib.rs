//! The ledger: what clients were answered, what handlers saw and what SQL holds at the end, and the promises that the three
//! must keep together.
//!
//! Whoever tests the whole system (the simulation, the tests that kill real processes) notes [`Observation`]s while it runs,
//! heals the system, reads the [`Chain`]s and asks for a [`Report`]. The checks know nothing of how the system works: they are
//! the invariants of the protocol, and nothing else.
//!
//! | invariant | checked here |
//! |---|---|
//! | I1 | an acknowledged task is there and has ended |
//! | I2 | a task without an answer is absent or complete; a refused one is absent; a key has one task |
//! | I3 | every chain is legal |
//! | I4 | the result is the one that the handler of the run that succeeded returned |
//! | I5 | handlers meet growing run numbers, none twice |
//! | I6 | attempts are counted, and never more than allowed |
//! | I7 | nothing starts after an acknowledged cancel, before its time or after its expiry |
//! | I9 | without faults nothing is run twice; with faults it is counted |
//! | I10 | without faults, tasks of one line are entered in their order |
//! | I13 | after a drain nothing of the worker is open |
//!
//! I8, I11 and I12 are about the queue engine: its model test checks the first two, the simulation the third.

mod chain;
mod check;
mod observation;
mod report;

pub use chain::{Chain, read_chains};
pub use check::{Expect, check, check_drained};
pub use observation::{CancelAnswer, Left, Observation, SubmitAnswer};
pub use report::{Figures, Invariant, Report, Violation};
