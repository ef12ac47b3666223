//! The numbers that compact enums have in the database. They never change their meaning; a new value takes a new number.

use oxcart_types::{EndKind, IdempotencyPolicy, chain::StartKind};

use crate::{AgendaWhy, Counted, OperationState, StoreError};

/// An enum that is kept as a number.
pub(crate) trait Coded: Copy + Sized + 'static {
    /// What is named when a number is unknown.
    const NAME: &'static str;
    /// All values.
    const ALL: &'static [Self];
    /// The number of a value.
    fn code(self) -> i16;

    /// The value of a number.
    fn decode(code: i16) -> Result<Self, StoreError> {
        let found = Self::ALL.iter().copied().find(|value| value.code() == code);
        found.ok_or_else(|| StoreError::Corrupt(format!("{code} is not a {}", Self::NAME)))
    }
}

impl Coded for EndKind {
    const NAME: &'static str = "kind of end";
    const ALL: &'static [Self] = &EndKind::ALL;

    fn code(self) -> i16 {
        match self {
            Self::Succeeded => 1,
            Self::Failed => 2,
            Self::Cancelled => 3,
            Self::Expired => 4,
            Self::Retry => 11,
            Self::Released => 12,
            Self::Lost => 13,
        }
    }
}

impl Coded for StartKind {
    const NAME: &'static str = "kind of start";
    const ALL: &'static [Self] = &[Self::Worker, Self::Closer];

    fn code(self) -> i16 {
        match self {
            Self::Worker => 1,
            Self::Closer => 2,
        }
    }
}

impl Coded for AgendaWhy {
    const NAME: &'static str = "reason of the agenda";
    const ALL: &'static [Self] = &[Self::Time, Self::Dependency, Self::Room, Self::Retry, Self::Expiry, Self::CancelGrace];

    fn code(self) -> i16 {
        match self {
            Self::Time => 1,
            Self::Dependency => 2,
            Self::Room => 3,
            Self::Retry => 4,
            Self::Expiry => 5,
            Self::CancelGrace => 6,
        }
    }
}

impl Coded for IdempotencyPolicy {
    const NAME: &'static str = "idempotency policy";
    const ALL: &'static [Self] = &[Self::ReturnExisting, Self::Reject, Self::Replace];

    fn code(self) -> i16 {
        match self {
            Self::ReturnExisting => 1,
            Self::Reject => 2,
            Self::Replace => 3,
        }
    }
}

impl Coded for OperationState {
    const NAME: &'static str = "state of an operation";
    const ALL: &'static [Self] = &[Self::Running, Self::Completed, Self::Stopped];

    fn code(self) -> i16 {
        match self {
            Self::Running => 1,
            Self::Completed => 2,
            Self::Stopped => 3,
        }
    }
}

impl Coded for Counted {
    const NAME: &'static str = "way to count a task";
    const ALL: &'static [Self] = &[Self::Cancelled, Self::Requested, Self::Finished, Self::Failed];

    fn code(self) -> i16 {
        match self {
            Self::Cancelled => 1,
            Self::Requested => 2,
            Self::Finished => 3,
            Self::Failed => 4,
        }
    }
}

/// What an operation does to each of its tasks. The contract has more to come, with numbers of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Cancels.
    Cancel,
}

impl Coded for Action {
    const NAME: &'static str = "action of an operation";
    const ALL: &'static [Self] = &[Self::Cancel];

    fn code(self) -> i16 {
        match self {
            Self::Cancel => 1,
        }
    }
}

/// How an operation or a rule picks tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SelectorKind {
    /// By their ids.
    Tasks,
    /// By a tag.
    Tag,
    /// By a filter.
    Filter,
    /// By the root of a tree.
    Tree,
}

impl Coded for SelectorKind {
    const NAME: &'static str = "kind of selector";
    const ALL: &'static [Self] = &[Self::Tasks, Self::Tag, Self::Filter, Self::Tree];

    fn code(self) -> i16 {
        match self {
            Self::Tasks => 1,
            Self::Tag => 2,
            Self::Filter => 3,
            Self::Tree => 4,
        }
    }
}

/// Where an operation stands with a member of its tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemberState {
    /// To be looked at.
    Open,
    /// It has ended: it starts nothing any more.
    Over,
    /// It runs and is asked to stop: until then it may start more.
    Stopping,
}

impl Coded for MemberState {
    const NAME: &'static str = "state of a member";
    const ALL: &'static [Self] = &[Self::Open, Self::Over, Self::Stopping];

    fn code(self) -> i16 {
        match self {
            Self::Open => 0,
            Self::Over => 1,
            Self::Stopping => 2,
        }
    }
}

/// Who takes a row of the agenda.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Visited when it is due.
    Due,
    /// Taken by the feeder when the window of its queue has room.
    Feeder,
}

impl Lane {
    /// The lane of a reason.
    pub(crate) const fn of(why: AgendaWhy) -> Self {
        match why {
            AgendaWhy::Room => Self::Feeder,
            AgendaWhy::Time | AgendaWhy::Dependency | AgendaWhy::Retry | AgendaWhy::Expiry | AgendaWhy::CancelGrace => Self::Due,
        }
    }
}

impl Coded for Lane {
    const NAME: &'static str = "lane of the agenda";
    const ALL: &'static [Self] = &[Self::Due, Self::Feeder];

    fn code(self) -> i16 {
        match self {
            Self::Due => 0,
            Self::Feeder => 1,
        }
    }
}

/// What a row of `idempotency_keys` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum KeyKind {
    /// A task, by its idempotency key.
    Task,
    /// A submit call, by its request id.
    Request,
}

impl Coded for KeyKind {
    const NAME: &'static str = "kind of key";
    const ALL: &'static [Self] = &[Self::Task, Self::Request];

    fn code(self) -> i16 {
        match self {
            Self::Task => 1,
            Self::Request => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn each_reads_back<T: Coded + PartialEq + std::fmt::Debug>() {
        for value in T::ALL {
            assert_eq!(T::decode(value.code()).ok(), Some(*value));
        }
        assert!(matches!(T::decode(-1), Err(StoreError::Corrupt(_))));
    }

    #[test]
    fn numbers_read_back() {
        each_reads_back::<EndKind>();
        each_reads_back::<StartKind>();
        each_reads_back::<AgendaWhy>();
        each_reads_back::<IdempotencyPolicy>();
        each_reads_back::<Lane>();
        each_reads_back::<OperationState>();
        each_reads_back::<Counted>();
        each_reads_back::<Action>();
        each_reads_back::<SelectorKind>();
        each_reads_back::<MemberState>();
        each_reads_back::<KeyKind>();
    }
}
