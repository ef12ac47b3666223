//! What the checks found.

use std::{collections::BTreeMap, fmt, time::Duration};

use oxcart_types::{TaskId, TaskState};

/// A promise of the protocol; see PROTOCOL in the crate's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// Nothing acknowledged is lost or stays open.
    I1,
    /// Nothing is there by halves, and a key has one task.
    I2,
    /// Chains are legal.
    I3,
    /// A result stands only by the run that returned it.
    I4,
    /// Run numbers grow, none twice.
    I5,
    /// Starts are bounded by attempts and releases.
    I6,
    /// No start after an acknowledged cancel, before its time, after expiry.
    I7,
    /// No duplicates without faults.
    I9,
    /// Order as promised.
    I10,
    /// Every open task is known to the engine, the agenda or the outbox.
    I12,
    /// A drained worker leaves nothing open.
    I13,
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// Of which task; `None` when it is not about one.
    pub task: Option<TaskId>,
    /// How, for people.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.invariant)?;
        if let Some(task) = self.task {
            write!(f, " task {task}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// What happened, in numbers: faults may make some of them grow, and none of them is wrong by itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// Tasks in SQL.
    pub tasks: u64,
    /// Tasks by the state that they ended in.
    pub states: BTreeMap<TaskState, u64>,
    /// Runs that a worker started.
    pub starts: u64,
    /// Slots that were closed without a run.
    pub closed: u64,
    /// Runs that ended LOST, or FAILED because their worker vanished.
    pub lost: u64,
    /// Runs that ended RELEASED.
    pub released: u64,
    /// Runs that ended RETRY.
    pub retried: u64,
    /// Handlers entered.
    pub entered: u64,
    /// Handlers entered while another one of the same task was at work.
    pub overlaps: u64,
    /// Time that such pairs worked side by side, in all.
    pub overlapped: Duration,
    /// Cancels acknowledged.
    pub cancels_acknowledged: u64,
    /// Handlers that returned a result which does not stand, because another end does.
    pub fenced: u64,
}

impl Figures {
    /// Adds those of another world.
    pub fn add(&mut self, other: &Self) {
        for (state, count) in &other.states {
            *self.states.entry(*state).or_default() += count;
        }
        for (mine, theirs) in [
            (&mut self.tasks, other.tasks),
            (&mut self.starts, other.starts),
            (&mut self.closed, other.closed),
            (&mut self.lost, other.lost),
            (&mut self.released, other.released),
            (&mut self.retried, other.retried),
            (&mut self.entered, other.entered),
            (&mut self.overlaps, other.overlaps),
            (&mut self.cancels_acknowledged, other.cancels_acknowledged),
            (&mut self.fenced, other.fenced),
        ] {
            *mine += theirs;
        }
        self.overlapped += other.overlapped;
    }
}

/// What the checks found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// Promises that were broken, in the order of the checks.
    pub violations: Vec<Violation>,
    /// What happened.
    pub figures: Figures,
}

impl Report {
    /// Notes a broken promise.
    pub fn add(&mut self, invariant: Invariant, task: Option<TaskId>, what: impl Into<String>) {
        self.violations.push(Violation { invariant, task, what: what.into() });
    }

    /// No promise was broken.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for violation in &self.violations {
            writeln!(f, "{violation}")?;
        }
        let Figures { tasks, starts, closed, lost, released, retried, overlaps, overlapped, fenced, .. } = &self.figures;
        writeln!(
            f,
            "{tasks} tasks, {starts} starts ({lost} lost, {released} released, {retried} retried), {closed} closed, \
             {overlaps} overlaps of {overlapped:?} in all, {fenced} results fenced"
        )?;
        let states = self.figures.states.iter().map(|(state, count)| format!("{state} {count}"));
        f.write_str(&states.collect::<Vec<_>>().join(", "))
    }
}
