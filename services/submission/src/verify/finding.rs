//! What a disagreement is, and its words.

use std::fmt;

use oxcart_proto::pb::dispatcher::v1::EntryKey;
use oxcart_store::AgendaRow;
use oxcart_types::{EndKind, HandoffId, Run, TaskId};

/// What a finding is about: equal for the same finding of two looks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Subject {
    pub(crate) kind: FindingKind,
    pub(crate) of: Of,
    /// Run, where there is one.
    pub(crate) run: Option<Run>,
    /// Queue, where it is known.
    pub(crate) queue: String,
}

/// Whose finding it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Of {
    Task(TaskId),
    Handoff(HandoffId),
}

/// What kind of disagreement it is; see `DisagreementKind` of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum FindingKind {
    TaskMissing,
    RunWithoutLease,
    TaskQuarantined,
    EntryOfFinishedTask,
    EntryOfUnknownTask,
    EntryBehind,
    EntryMisplaced,
    LeaseOfEndedRun,
    LeaseTooLong,
    LeaseWithoutRecord,
    RecordWithoutLease,
    EntryInTwoPlaces,
    AgendaOfFinishedTask,
    HandoffOfFinishedTasks,
}

/// A disagreement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) subject: Subject,
    /// What is needed to bring it in order.
    pub(crate) remedy: Remedy,
    /// How its task ended, when it has.
    pub(crate) ended: Option<EndKind>,
}

/// The steps that bring a finding in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Look at the task as the audit does.
    Audit,
    /// Take the entry out, wherever it is, and then look at its task as the audit does.
    TakeOut(Box<EntryKey>),
    /// Clear the row of the agenda.
    ClearAgenda(AgendaRow),
    /// Confirm the hand-off.
    Confirm(HandoffId),
}

impl Remedy {
    /// What was done, for people.
    pub(crate) const fn done(&self) -> &'static str {
        match self {
            Self::Audit => "handed the task to the dispatcher again, or ended it where its time or a cancel says so",
            Self::TakeOut(_) => "took the entry out of the queue; the task went in again where it is open",
            Self::ClearAgenda(_) => "cleared the row of the agenda",
            Self::Confirm(_) => "deleted the hand-off",
        }
    }
}

/// The sentence for people.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Subject { kind, of, run, queue } = &self.subject;
        let run = run.map_or(0, Run::get);
        let ended = self.ended.map_or("ended", EndKind::as_str);
        let id = match of {
            Of::Task(id) => format!("task {id}"),
            Of::Handoff(id) => format!("hand-off {id}"),
        };
        match kind {
            FindingKind::TaskMissing => write!(
                f,
                "{id} is open, and neither queue {queue} nor the agenda nor a hand-off has it: run {run} would never start"
            ),
            FindingKind::RunWithoutLease => {
                write!(f, "run {run} of {id} is open for longer than a lease, and queue {queue} has neither its lease nor an entry")
            }
            FindingKind::TaskQuarantined => {
                write!(f, "{id} is open, and queue {queue} has set it aside: it was given out too often without a start")
            }
            FindingKind::EntryOfFinishedTask => write!(f, "queue {queue} has an entry for run {run} of {id}, which is {ended}"),
            FindingKind::EntryOfUnknownTask => {
                write!(f, "queue {queue} has an entry for run {run} of {id}, which SQL does not know")
            }
            FindingKind::EntryBehind => {
                write!(f, "queue {queue} has {id} with run {run}, which has ended; SQL expects a later one")
            }
            FindingKind::EntryMisplaced => {
                write!(
                    f,
                    "queue {queue} has an entry for run {run} of {id}, which belongs to another queue, priority or fairness key"
                )
            }
            FindingKind::LeaseOfEndedRun => write!(f, "queue {queue} has a lease for run {run} of {id}, and that run has ended"),
            FindingKind::LeaseTooLong => {
                write!(
                    f,
                    "queue {queue} has a lease for run {run} of {id} that ends later than any lease can: nobody would get it back"
                )
            }
            FindingKind::LeaseWithoutRecord => {
                write!(f, "queue {queue} has a lease of {id} without the record of its run and token: nobody can settle it")
            }
            FindingKind::RecordWithoutLease => {
                write!(
                    f,
                    "queue {queue} has the record of a lease for run {run} of {id} without its end: it would never be taken back"
                )
            }
            FindingKind::EntryInTwoPlaces => write!(f, "queue {queue} has run {run} of {id} in two places"),
            FindingKind::AgendaOfFinishedTask => write!(f, "the agenda has a row for {id}, which is {ended}"),
            FindingKind::HandoffOfFinishedTasks => write!(f, "{id} is not confirmed, and none of its tasks may still run"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_says_what_is_wrong_with_what() {
        let task = TaskId::from_bytes([7; 16]);
        let finding = |kind, of| Finding {
            subject: Subject { kind, of, run: Run::new(3), queue: "mail".to_owned() },
            remedy: Remedy::Audit,
            ended: Some(EndKind::Succeeded),
        };
        let kinds = [
            (FindingKind::TaskMissing, "neither"),
            (FindingKind::RunWithoutLease, "longer than a lease"),
            (FindingKind::TaskQuarantined, "set it aside"),
            (FindingKind::EntryOfFinishedTask, "SUCCEEDED"),
            (FindingKind::EntryOfUnknownTask, "SQL does not know"),
            (FindingKind::EntryBehind, "which has ended"),
            (FindingKind::EntryMisplaced, "another queue"),
            (FindingKind::LeaseOfEndedRun, "run has ended"),
            (FindingKind::LeaseTooLong, "later than any lease"),
            (FindingKind::LeaseWithoutRecord, "without the record"),
            (FindingKind::RecordWithoutLease, "without its end"),
            (FindingKind::EntryInTwoPlaces, "two places"),
            (FindingKind::AgendaOfFinishedTask, "agenda"),
        ];
        for (kind, words) in kinds {
            let text = finding(kind, Of::Task(task)).to_string();
            assert!(text.contains(words) && text.contains(&task.to_string()), "{kind:?}: {text}");
        }
        let handoff = HandoffId::from_bytes([8; 16]);
        let text = finding(FindingKind::HandoffOfFinishedTasks, Of::Handoff(handoff)).to_string();
        assert!(text.contains(&handoff.to_string()), "{text}");
    }
}
