//! What was seen from outside while the system ran.

use oxcart_types::{Run, TaskId, Timestamp, WorkerId};

/// Something that was seen. Times are of one clock, or of clocks that agree to within [`crate::Expect::clocks`].
#[derive(Debug, Clone, PartialEq)]
pub enum Observation {
    /// A client submitted a task under an id of its choice. One entry per try; any acknowledgement counts.
    Submitted {
        /// The id chosen.
        task: TaskId,
        /// The idempotency key, when there was one.
        key: Option<String>,
        /// What it heard.
        answer: SubmitAnswer,
        /// When it heard it.
        at: Timestamp,
    },
    /// A client asked for a cancel.
    CancelAnswered {
        /// Task.
        task: TaskId,
        /// What it heard.
        answer: CancelAnswer,
        /// When it heard it.
        at: Timestamp,
    },
    /// A handler was entered: noted before it does anything.
    Entered {
        /// Task.
        task: TaskId,
        /// Run that the handler was told.
        run: Run,
        /// Process that it runs in.
        worker: WorkerId,
        /// When.
        at: Timestamp,
    },
    /// A handler is about to return, or was dropped.
    Left {
        /// Task.
        task: TaskId,
        /// Run.
        run: Run,
        /// With what.
        how: Left,
        /// When.
        at: Timestamp,
    },
    /// A process was killed: its handlers are gone without leaving.
    Died {
        /// Which.
        worker: WorkerId,
        /// When.
        at: Timestamp,
    },
}

/// What a client heard of a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubmitAnswer {
    /// Accepted; the id is another one than was asked for when the key had a task already.
    Acknowledged(TaskId),
    /// Refused for good: nothing was written.
    Refused,
    /// No answer, or one that leaves the outcome open.
    Unknown,
}

/// What a client heard of a cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelAnswer {
    /// CANCELLED: no run starts any more.
    Acknowledged,
    /// A run is open; it is asked to stop.
    Requested,
    /// The task had ended otherwise, or there is none.
    TooLate,
    /// No answer, or one that leaves the outcome open.
    Unknown,
}

/// How a handler was left.
#[derive(Debug, Clone, PartialEq)]
pub enum Left {
    /// It returned this result, as bytes. Results must differ from run to run for the check to see whose it is.
    Returned(Vec<u8>),
    /// It returned an error.
    Failed,
    /// It was dropped.
    Dropped,
}
