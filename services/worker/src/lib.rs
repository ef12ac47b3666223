//! The worker service: takes leases from a dispatcher, asks SQL for the start of each run, runs handlers, writes what they
//! came to, and settles the leases.
//!
//! A grant only permits to ask SQL to start. The end of a run is written before its lease is settled, so that whatever is
//! lost on the way is found again. The parts, in the order of a task's way:
//!
//! * `session`: one connection to a dispatcher, opened again when it breaks; nothing that must arrive is forgotten.
//! * `start`: grants to starts, in batches; what SQL refuses is decided by `refusal`, a pure function.
//! * `run`: handlers on a runtime of their own; a blocked one starves no heartbeat.
//! * `finish`: conclusions to verdicts, ends and settles, in batches; what a run came to is decided by `conclude`, a pure
//!   function.
//! * `watch`: cancels, uncertain leases and signs of life of runs that take long.
//! * `drain`: leaving without anything left open.
//!
//! What must never happen here: a connection to Redis; a decision whether a failure is retried (the dispatcher's); a handler
//! that is entered before SQL has its start.

mod attempt;
pub mod builtin;
mod conclude;
pub mod config;
mod core;
mod drain;
mod error;
mod finish;
mod gate;
mod grant;
mod grpc;
mod held;
mod load;
pub mod metrics;
mod moment;
mod refusal;
mod run;
mod service;
mod session;
mod start;
pub mod store;
mod watch;

pub use config::Config;
pub use error::WorkerError;
pub use service::{Deps, WorkerService};
