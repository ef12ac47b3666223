//! The submission service: the public task API and every sweeper.
//!
//! It commits tasks to SQL and hands them to the dispatcher; it cancels, updates and deletes them; it answers those who wait. Its
//! sweepers bring back whatever should be with the dispatcher and is not: they are the one path for a dispatcher that was down, a
//! Redis that was lost, a backlog over the window and a time that is far away.
//!
//! What must not happen here: a call to Redis, a handler that runs, a state that is decided without SQL.

mod admission;
mod backlog;
mod cancel;
mod commit;
mod config;
mod core;
mod dispatcher;
mod error;
mod grpc;
mod handoff;
pub mod metrics;
mod operation;
mod pick;
mod queues;
mod reader;
mod replay;
mod service;
mod sweep;
mod update;
mod verify;
mod wait;

pub use config::Config;
pub use service::{Deps, Submission};
pub use sweep::end_orphans;
