//! A task as a chain of runs, and how its state follows from the chain.
//!
//! SQL never moves a row through states. Each run appends a *start* and an *end*, each slot written once; whoever writes a
//! slot first has won. What is known of a task at any time is the head of its chain.

use std::fmt;

use crate::{
    clock::Timestamp,
    state::{InvalidTransition, TaskEvent, TaskState, transition},
};

/// Number of a run: 1 for the first, strictly growing per task, issued by SQL. Handlers may pass it to other systems as a
/// fencing token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Run(u32);

impl Run {
    /// The first run of a task.
    pub const FIRST: Self = Self(1);

    /// A run by its number; `None` for 0.
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The run after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The run before this one; `None` for the first.
    #[must_use]
    pub const fn previous(self) -> Option<Self> {
        Self::new(self.0 - 1)
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How a run ended. The first four end the task; after the others another run follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndKind {
    /// The handler returned a result.
    Succeeded,
    /// Attempts used up, or an error that is not retried.
    Failed,
    /// Cancelled.
    Cancelled,
    /// Not started in time.
    Expired,
    /// Failed; another run follows.
    Retry,
    /// Given back; costs no attempt.
    Released,
    /// Taken over after its worker vanished; costs an attempt.
    Lost,
}

impl EndKind {
    /// All kinds.
    pub const ALL: [Self; 7] =
        [Self::Succeeded, Self::Failed, Self::Cancelled, Self::Expired, Self::Retry, Self::Released, Self::Lost];

    /// True for the kinds that end the task.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        match self {
            Self::Succeeded | Self::Failed | Self::Cancelled | Self::Expired => true,
            Self::Retry | Self::Released | Self::Lost => false,
        }
    }

    /// The name, in capitals.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
            Self::Expired => "EXPIRED",
            Self::Retry => "RETRY",
            Self::Released => "RELEASED",
            Self::Lost => "LOST",
        }
    }
}

impl fmt::Display for EndKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a task waits in SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WaitReason {
    /// Committed; the dispatcher has not confirmed the hand-off.
    Handoff,
    /// Due later than the horizon.
    Time,
    /// Something before it has not finished.
    Dependency,
    /// The window of its queue is full.
    Room,
}

/// The newest slots of a task's chain: all that its state depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainHead {
    /// The newest run that has a start; `None` before the first.
    pub latest: Option<LatestRun>,
    /// How the run before the newest ended; `None` when there is none.
    pub previous_end: Option<EndKind>,
    /// The newest run whose terminal end a replay has undone: the budget of attempts in force began after it. `None` in the
    /// first budget.
    pub replayed: Option<Run>,
    /// Why it waits in SQL; `None` when the dispatcher has it, or when nothing waits.
    pub waiting: Option<WaitReason>,
}

/// The newest run of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LatestRun {
    /// Number.
    pub run: Run,
    /// A worker's start, or a slot closed without a run.
    pub kind: StartKind,
    /// Attempts used when it started, itself included.
    pub attempt: u32,
    /// How it ended; `None` while it is open.
    pub end: Option<LatestEnd>,
}

/// Who wrote a start slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StartKind {
    /// A worker: the run began.
    Worker,
    /// Somebody who closed the slot so that no run can begin.
    Closer,
}

/// How the newest run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LatestEnd {
    /// Kind.
    pub kind: EndKind,
    /// Attempts used so far, after the end: a release has given its attempt back.
    pub attempts_used: u32,
    /// When the next run is due; `None` when the kind is terminal.
    pub next_run_at: Option<Timestamp>,
}

impl ChainHead {
    /// A task that was just committed.
    #[must_use]
    pub const fn new(waiting: Option<WaitReason>) -> Self {
        Self { latest: None, previous_end: None, replayed: None, waiting }
    }

    /// The state that follows from the chain.
    ///
    /// # Errors
    /// The chain holds slots that no sequence of legal steps could have written.
    pub fn state(&self) -> Result<TaskState, InvalidTransition> {
        let after_wait = |state| transition(state, if self.waiting.is_some() { TaskEvent::SetAside } else { TaskEvent::HandedOff });
        let Some(latest) = self.latest else { return after_wait(TaskState::Pending) };
        let before = match self.previous_end {
            None => TaskState::Queued,
            // A terminal end that was undone leaves the task waiting.
            Some(kind) if kind.is_terminal() && self.replayed.is_some() && self.replayed == latest.run.previous() => {
                TaskState::Queued
            }
            // A closer may have released a waiting task for an update; that too leaves it waiting.
            Some(EndKind::Released) => TaskState::Queued,
            Some(kind) => transition(TaskState::Running, TaskEvent::Ended(kind))?,
        };
        let state = match (latest.kind, latest.end) {
            (StartKind::Worker, None) => return transition(before, TaskEvent::Started),
            (StartKind::Worker, Some(end)) => {
                transition(before, TaskEvent::Started).and_then(|running| transition(running, TaskEvent::Ended(end.kind)))?
            }
            (StartKind::Closer, Some(end)) => transition(before, TaskEvent::Closed(end.kind))?,
            // Start and end of a closed slot are one transaction.
            (StartKind::Closer, None) => return Err(InvalidTransition { state: before, event: TaskEvent::Started }),
        };
        match (state.is_terminal(), self.is_replayed(latest.run)) {
            (true, true) => transition(state, TaskEvent::Replayed).and_then(after_wait),
            (true, false) => Ok(state),
            (false, true) => Err(InvalidTransition { state, event: TaskEvent::Replayed }),
            (false, false) => after_wait(state),
        }
    }

    /// The end of this run was undone by the newest replay.
    fn is_replayed(&self, run: Run) -> bool {
        self.replayed == Some(run)
    }

    /// How the task ended; `None` while it is open, or open again.
    #[must_use]
    pub fn terminal(&self) -> Option<EndKind> {
        let latest = self.latest?;
        latest.end.map(|end| end.kind).filter(|kind| kind.is_terminal() && !self.is_replayed(latest.run))
    }

    /// True while a run is open.
    #[must_use]
    pub fn has_open_run(&self) -> bool {
        self.latest.is_some_and(|latest| latest.end.is_none())
    }

    /// When the next run is due by the end before it; `None` when there is none, when that end says nothing, or when it was
    /// undone: a replay is due at once.
    #[must_use]
    pub fn next_run_at(&self) -> Option<Timestamp> {
        self.latest.and_then(|latest| latest.end).and_then(|end| end.next_run_at)
    }

    /// The run that may start next: `None` while one is open or when the task has ended.
    #[must_use]
    pub fn next_run(&self) -> Option<Run> {
        match self.latest {
            None => Some(Run::FIRST),
            Some(LatestRun { run, end: Some(_), .. }) if self.terminal().is_none() => Some(run.next()),
            Some(_) => None,
        }
    }

    /// Attempts used so far, of the budget in force.
    #[must_use]
    pub fn attempts_used(&self) -> u32 {
        match self.latest {
            Some(latest) if !self.is_replayed(latest.run) => latest.end.map_or(latest.attempt, |end| end.attempts_used),
            Some(_) | None => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(kind: StartKind, end: Option<EndKind>, previous_end: Option<EndKind>, waiting: Option<WaitReason>) -> ChainHead {
        let end = end.map(|kind| LatestEnd { kind, attempts_used: 1, next_run_at: None });
        let run = if previous_end.is_some() { Run::FIRST.next() } else { Run::FIRST };
        ChainHead { latest: Some(LatestRun { run, kind, attempt: 1, end }), previous_end, replayed: None, waiting }
    }

    #[test]
    fn states_follow_from_the_chain() {
        use EndKind as E;
        use StartKind::{Closer, Worker};
        use TaskState as S;
        assert_eq!(ChainHead::new(None).state(), Ok(S::Queued));
        assert_eq!(ChainHead::new(Some(WaitReason::Time)).state(), Ok(S::Pending));
        let table = [
            (head(Worker, None, None, None), S::Running),
            (head(Worker, None, None, Some(WaitReason::Handoff)), S::Running),
            (head(Worker, Some(E::Succeeded), None, Some(WaitReason::Handoff)), S::Succeeded),
            (head(Worker, Some(E::Retry), None, Some(WaitReason::Time)), S::Retrying),
            (head(Worker, Some(E::Released), None, None), S::Queued),
            (head(Worker, Some(E::Lost), Some(E::Retry), None), S::Queued),
            (head(Worker, None, Some(E::Lost), None), S::Running),
            (head(Closer, Some(E::Cancelled), None, None), S::Cancelled),
            (head(Closer, Some(E::Cancelled), Some(E::Retry), None), S::Cancelled),
            (head(Closer, Some(E::Released), None, Some(WaitReason::Time)), S::Pending),
            (head(Closer, Some(E::Released), None, None), S::Queued),
        ];
        for (head, state) in table {
            assert_eq!(head.state(), Ok(state), "{head:?}");
        }
    }

    #[test]
    fn impossible_chains_are_told() {
        assert!(head(StartKind::Worker, None, Some(EndKind::Succeeded), None).state().is_err());
        assert!(head(StartKind::Closer, None, None, None).state().is_err());
        assert!(head(StartKind::Closer, Some(EndKind::Lost), None, None).state().is_err());
        let replayed = |head| ChainHead { replayed: Some(Run::FIRST), ..head };
        assert!(replayed(head(StartKind::Worker, Some(EndKind::Retry), None, None)).state().is_err(), "nothing to undo");
        let later = ChainHead { replayed: Some(Run::FIRST.next()), ..head(StartKind::Worker, None, Some(EndKind::Failed), None) };
        assert!(later.state().is_err(), "undone before it was there");
    }

    #[test]
    fn a_replay_opens_a_task_again_with_nothing_used() {
        use EndKind as E;
        use StartKind::{Closer, Worker};
        use TaskState as S;
        let second = Run::FIRST.next();
        for kind in E::ALL.into_iter().filter(|kind| kind.is_terminal()) {
            let start = if kind == E::Expired { Closer } else { Worker };
            let ended = head(start, Some(kind), None, None);
            assert_eq!((ended.terminal(), ended.next_run(), ended.attempts_used()), (Some(kind), None, 1));
            let replayed = ChainHead { replayed: Some(Run::FIRST), ..ended };
            assert_eq!(replayed.state(), Ok(S::Queued));
            assert_eq!(ChainHead { waiting: Some(WaitReason::Handoff), ..replayed }.state(), Ok(S::Pending));
            assert_eq!((replayed.terminal(), replayed.next_run(), replayed.attempts_used()), (None, Some(second), 0));
            // The run after it: what it is follows from itself.
            for (end, state) in [(None, S::Running), (Some(E::Retry), S::Retrying), (Some(E::Failed), S::Failed)] {
                let again = ChainHead { replayed: Some(Run::FIRST), ..head(Worker, end, Some(kind), None) };
                assert_eq!((again.state(), again.attempts_used()), (Ok(state), 1), "{kind} {end:?}");
                assert_eq!(again.terminal(), end.filter(|end| end.is_terminal()));
            }
        }
    }

    #[test]
    fn the_next_run_waits_for_the_end_of_the_one_before() {
        assert_eq!(ChainHead::new(None).next_run(), Some(Run::FIRST));
        assert_eq!(head(StartKind::Worker, None, None, None).next_run(), None);
        assert_eq!(head(StartKind::Worker, Some(EndKind::Retry), None, None).next_run(), Some(Run::FIRST.next()));
        assert_eq!(head(StartKind::Worker, Some(EndKind::Failed), None, None).next_run(), None);
    }
}
