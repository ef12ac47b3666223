//! The states of a task, and the one function that moves between them.

use std::{fmt, str::FromStr};

use crate::chain::EndKind;

/// State of a task. The last four are terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TaskState {
    /// In SQL and not yet with the dispatcher: waiting for hand-off, its time, a dependency, or room.
    Pending,
    /// With the dispatcher: ready, or due within the horizon.
    Queued,
    /// The latest run has started and has no end.
    Running,
    /// The latest run failed; the next one waits for its backoff or for a slot.
    Retrying,
    /// Terminal: a handler returned a result.
    Succeeded,
    /// Terminal: attempts used up, or an error that is not retried.
    Failed,
    /// Terminal: cancelled.
    Cancelled,
    /// Terminal: not started in time.
    Expired,
}

impl TaskState {
    /// All states, in the order of a task's life.
    pub const ALL: [Self; 8] =
        [Self::Pending, Self::Queued, Self::Running, Self::Retrying, Self::Succeeded, Self::Failed, Self::Cancelled, Self::Expired];

    /// True for the states that a task leaves by a replay only.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        match self {
            Self::Pending | Self::Queued | Self::Running | Self::Retrying => false,
            Self::Succeeded | Self::Failed | Self::Cancelled | Self::Expired => true,
        }
    }

    /// The name, in capitals.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Queued => "QUEUED",
            Self::Running => "RUNNING",
            Self::Retrying => "RETRYING",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
            Self::Expired => "EXPIRED",
        }
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for TaskState {
    type Err = UnknownState;

    /// Any case, with or without the contract's prefix: `failed`, `FAILED`, `TASK_STATE_FAILED`.
    fn from_str(text: &str) -> Result<Self, UnknownState> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("TASK_STATE_").unwrap_or(&upper);
        Self::ALL.into_iter().find(|state| state.as_str() == name).ok_or(UnknownState)
    }
}

/// A text is not the name of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a task state; one of PENDING, QUEUED, RUNNING, RETRYING, SUCCEEDED, FAILED, CANCELLED, EXPIRED")]
pub struct UnknownState;

/// What happens to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaskEvent {
    /// The dispatcher confirmed that it has the task.
    HandedOff,
    /// The task went (back) to the agenda: its time is far, or the window of its queue is full.
    SetAside,
    /// A worker's start was written.
    Started,
    /// The end of the open run was written.
    Ended(EndKind),
    /// The next slot was closed without a run: cancelled, expired or failed while nothing ran, or released by an update.
    Closed(EndKind),
    /// The terminal end was undone: a new budget begins.
    Replayed,
}

impl TaskEvent {
    /// All events.
    pub const ALL: [Self; 18] = [
        Self::HandedOff,
        Self::SetAside,
        Self::Started,
        Self::Ended(EndKind::Succeeded),
        Self::Ended(EndKind::Failed),
        Self::Ended(EndKind::Cancelled),
        Self::Ended(EndKind::Expired),
        Self::Ended(EndKind::Retry),
        Self::Ended(EndKind::Released),
        Self::Ended(EndKind::Lost),
        Self::Closed(EndKind::Succeeded),
        Self::Closed(EndKind::Failed),
        Self::Closed(EndKind::Cancelled),
        Self::Closed(EndKind::Expired),
        Self::Closed(EndKind::Retry),
        Self::Closed(EndKind::Released),
        Self::Closed(EndKind::Lost),
        Self::Replayed,
    ];
}

impl fmt::Display for TaskEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HandedOff => f.write_str("handed off"),
            Self::SetAside => f.write_str("set aside"),
            Self::Started => f.write_str("started"),
            Self::Ended(kind) => write!(f, "run ended {kind}"),
            Self::Closed(kind) => write!(f, "slot closed {kind}"),
            Self::Replayed => f.write_str("replayed"),
        }
    }
}

/// An event that cannot happen in a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a task that is {state} cannot be {event}")]
pub struct InvalidTransition {
    /// State.
    pub state: TaskState,
    /// Event.
    pub event: TaskEvent,
}

/// The state after an event.
///
/// There is no wildcard arm: a new state or event does not compile until someone has decided what it means everywhere.
///
/// # Errors
/// The event cannot happen in this state.
pub const fn transition(state: TaskState, event: TaskEvent) -> Result<TaskState, InvalidTransition> {
    use TaskEvent::{Closed, Ended, HandedOff, Replayed, SetAside, Started};
    use TaskState::{Cancelled, Expired, Failed, Pending, Queued, Retrying, Running, Succeeded};
    match (state, event) {
        (Pending | Queued, HandedOff) => Ok(Queued),
        (Pending | Queued, SetAside) => Ok(Pending),
        // A retry stays RETRYING wherever it waits: people ask whether it failed before, not where it lies.
        (Retrying, HandedOff | SetAside) => Ok(Retrying),
        // PENDING too: a task may start before its hand-off is confirmed.
        (Pending | Queued | Retrying, Started) => Ok(Running),
        (Running, Ended(EndKind::Succeeded)) => Ok(Succeeded),
        (Running, Ended(EndKind::Failed)) | (Pending | Queued | Retrying, Closed(EndKind::Failed)) => Ok(Failed),
        (Running, Ended(EndKind::Cancelled)) | (Pending | Queued | Retrying, Closed(EndKind::Cancelled)) => Ok(Cancelled),
        // Only what never started can expire: a run that outlives its limits fails.
        (Pending | Queued | Retrying, Closed(EndKind::Expired)) => Ok(Expired),
        (Running, Ended(EndKind::Retry)) => Ok(Retrying),
        (Running, Ended(EndKind::Released | EndKind::Lost)) => Ok(Queued),
        // An update of a waiting task closes a slot and hands the task out anew.
        (Pending | Queued | Retrying, Closed(EndKind::Released)) => Ok(Pending),
        (Succeeded | Failed | Cancelled | Expired, Replayed) => Ok(Pending),
        (Running, HandedOff | SetAside | Started | Ended(EndKind::Expired) | Closed(_) | Replayed)
        | (Pending | Queued | Retrying, Ended(_) | Closed(EndKind::Succeeded | EndKind::Retry | EndKind::Lost) | Replayed)
        | (Succeeded | Failed | Cancelled | Expired, HandedOff | SetAside | Started | Ended(_) | Closed(_)) => {
            Err(InvalidTransition { state, event })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn only_a_replay_leaves_a_terminal_state_and_it_leaves_no_other() {
        for state in TaskState::ALL {
            for event in TaskEvent::ALL.into_iter().filter(|event| state.is_terminal() || *event == TaskEvent::Replayed) {
                let replayed = state.is_terminal() && event == TaskEvent::Replayed;
                let expected = if replayed { Ok(TaskState::Pending) } else { Err(InvalidTransition { state, event }) };
                assert_eq!(transition(state, event), expected);
            }
        }
    }

    #[test]
    fn only_a_running_task_ends_a_run() {
        for event in TaskEvent::ALL.into_iter().filter(|e| matches!(e, TaskEvent::Ended(_))) {
            for state in TaskState::ALL {
                let possible = state == TaskState::Running && event != TaskEvent::Ended(EndKind::Expired);
                assert_eq!(transition(state, event).is_ok(), possible, "{state} {event}");
            }
        }
    }

    #[test]
    fn names_read_back() {
        for state in TaskState::ALL {
            assert_eq!(state.as_str().to_lowercase().parse(), Ok(state));
            assert_eq!(format!("TASK_STATE_{state}").parse(), Ok(state));
        }
        assert_eq!("done".parse::<TaskState>(), Err(UnknownState));
    }

    /// The diagram of ARCHITECTURE.md is drawn from the function, so that it cannot grow old.
    #[test]
    fn the_diagram_in_the_architecture_page_is_this_machine() {
        let mut diagram = String::from("stateDiagram-v2\n    [*] --> PENDING: submitted\n");
        for from in TaskState::ALL {
            for to in TaskState::ALL {
                let events: Vec<_> = TaskEvent::ALL
                    .into_iter()
                    .filter(|e| from != to && transition(from, *e) == Ok(to))
                    .map(|e| e.to_string())
                    .collect();
                if !events.is_empty() {
                    writeln!(diagram, "    {from} --> {to}: {}", events.join(", ")).expect("to a string");
                }
            }
            if from.is_terminal() {
                writeln!(diagram, "    {from} --> [*]").expect("to a string");
            }
        }
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../ARCHITECTURE.md");
        let page = std::fs::read_to_string(page).expect("ARCHITECTURE.md");
        assert!(page.contains(&diagram), "ARCHITECTURE.md must contain:\n{diagram}");
    }
}
