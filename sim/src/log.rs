//! What happened in a world: every event goes into a hash, so that two runs of a seed can be compared, and the newest are kept.

use std::{
    collections::VecDeque,
    fmt,
    hash::{Hash, Hasher},
    time::Duration,
};

use oxcart_ledger::{CancelAnswer, Left, Observation, SubmitAnswer};
use oxcart_types::{Run, TaskId};

/// A process, by its place in the world.
pub type Pid = usize;

/// What became of something that was under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fate {
    /// Arrived, and so did the answer.
    Done,
    /// Never arrived.
    Lost,
    /// Arrived; the answer did not.
    Unanswered,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Event {
    /// Bytes went out over a connection.
    Sent {
        /// Who sends.
        from: Pid,
        /// Who gets it.
        to: Pid,
        /// How many.
        bytes: Bytes,
    },
    /// A connection was asked for.
    Connected {
        /// Who sends.
        from: Pid,
        /// Who gets it.
        to: Pid,
        /// Somebody listened.
        made: bool,
    },
    /// A connection broke.
    Cut {
        /// Who sends.
        from: Pid,
        /// Who gets it.
        to: Pid,
    },
    /// A step of the store.
    Step {
        /// Whose.
        by: Pid,
        /// What became of it.
        fate: Fate,
    },
    /// A call of the queue engine.
    Call {
        /// Whose.
        by: Pid,
        /// What.
        what: &'static str,
        /// What became of it.
        fate: Fate,
    },
    /// A fault, or an end of one.
    Fault(String),
    /// A handler was entered or left.
    Handler {
        /// Of which task.
        task: TaskId,
        /// Of which run.
        run: Run,
        /// What.
        what: &'static str,
    },
    /// A client was answered.
    Client {
        /// Of which task.
        task: TaskId,
        /// What.
        what: &'static str,
    },
}

/// How many bytes. Left out of the hash: workers tell what they use of the machine, in numbers of varying length, and that is
/// the machine of the simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub usize);

impl Hash for Bytes {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sent { from, to, bytes } => write!(f, "{from} -> {to}: {} bytes", bytes.0),
            Self::Connected { from, to, made } => write!(f, "{from} -> {to}: {}", if *made { "connected" } else { "refused" }),
            Self::Cut { from, to } => write!(f, "{from} -> {to}: the connection breaks"),
            Self::Step { by, fate } => write!(f, "{by} SQL: {fate:?}"),
            Self::Call { by, what, fate } => write!(f, "{by} engine {what}: {fate:?}"),
            Self::Fault(what) => write!(f, "*** {what}"),
            Self::Handler { task, run, what } => write!(f, "handler of {task} run {run}: {what}"),
            Self::Client { task, what } => write!(f, "client of {task}: {what}"),
        }
    }
}

/// The log of a world.
#[derive(Debug, Default)]
pub struct Log {
    hash: Fnv,
    newest: VecDeque<(Duration, Event)>,
    kept: usize,
    events: u64,
}

impl Log {
    /// Keeps so many events for people.
    pub const fn keep(&mut self, kept: usize) {
        self.kept = kept;
    }

    /// Notes an event.
    pub fn add(&mut self, at: Duration, event: Event) {
        at.hash(&mut self.hash);
        event.hash(&mut self.hash);
        self.events += 1;
        if self.newest.len() >= self.kept {
            self.newest.pop_front();
        }
        if self.kept > 0 {
            self.newest.push_back((at, event));
        }
    }

    /// A hash over all events.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash.finish()
    }

    /// Events so far.
    #[must_use]
    pub const fn events(&self) -> u64 {
        self.events
    }

    /// The newest events, oldest first.
    pub fn newest(&self) -> impl DoubleEndedIterator<Item = &(Duration, Event)> {
        self.newest.iter()
    }
}

/// FNV-1a: the same on every machine and in every run.
#[derive(Debug)]
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// What the log says of an observation.
#[must_use]
pub fn seen(observation: &Observation) -> Option<Event> {
    Some(match observation {
        Observation::Submitted { task, answer, .. } => Event::Client {
            task: *task,
            what: match answer {
                SubmitAnswer::Acknowledged(_) => "submitted",
                SubmitAnswer::Refused => "submission refused",
                SubmitAnswer::Unknown => "submission without an answer",
            },
        },
        Observation::CancelAnswered { task, answer, .. } => Event::Client {
            task: *task,
            what: match answer {
                CancelAnswer::Acknowledged => "cancel acknowledged",
                CancelAnswer::Requested => "cancel requested",
                CancelAnswer::TooLate => "cancel too late",
                CancelAnswer::Unknown => "cancel without an answer",
            },
        },
        Observation::Entered { task, run, .. } => Event::Handler { task: *task, run: *run, what: "entered" },
        Observation::Left { task, run, how, .. } => Event::Handler {
            task: *task,
            run: *run,
            what: match how {
                Left::Returned(_) => "returns",
                Left::Failed => "fails",
                Left::Dropped => "is dropped",
            },
        },
        Observation::Died { .. } => return None,
    })
}
