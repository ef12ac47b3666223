//! The pure domain of Oxcart.
//!
//! Everything here is plain data and pure functions: no runtime, no wire format, no database. Values are parsed once, at the
//! edge, into types that cannot be wrong; the rest of the system only meets those.
//!
//! * [`state`]: the states of a task and the one function that moves between them.
//! * [`chain`]: a task as a chain of runs, and how its state follows from the chain.
//! * [`replay`]: how a finished task is run again.
//! * [`retry`]: retry policies and the verdict on a failure.
//! * [`time_limit`]: the limits that time sets to a task.
//! * [`spec`]: what a client asks to run; [`record`]: a task as it is read.
//! * [`filter`]: the language in which lists, bulk operations and cancel rules pick tasks.
//! * [`limits`]: every bound that outside input meets.

pub mod chain;
pub mod clock;
mod digest;
pub mod failure;
pub mod filter;
pub mod id;
pub mod limits;
pub mod name;
pub mod payload;
pub mod record;
pub mod replay;
pub mod retry;
pub mod spec;
pub mod state;
pub mod time_limit;
pub mod violation;

pub use chain::{ChainHead, EndKind, Run, WaitReason};
pub use clock::{Clock, IdSource, ManualClock, SystemClock, SystemIds, Timestamp};
pub use failure::{Failure, FailureKind};
pub use id::{CancelRuleId, HandoffId, LeaseToken, OperationId, RequestId, TaskId, WorkerId};
pub use limits::Limits;
pub use name::{FairnessKey, QueueName, Tag, TaskName};
pub use payload::Payload;
pub use replay::ReplaySpec;
pub use retry::{RetryPolicy, Verdict};
pub use spec::{Idempotency, IdempotencyPolicy, Priority, TaskChanges, TaskSpec};
pub use state::{TaskEvent, TaskState, transition};
pub use time_limit::{OutOfTime, StartBy, TimeLimit};
pub use violation::{Violation, Violations};
