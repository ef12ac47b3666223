//! The monitor service: the read side of the platform. Lists, live events, the worker registry, and the recorder.
//!
//! It reads SQL and asks the dispatcher. It writes only what it alone knows: the registry of workers, its own cursor, and the
//! facts that the journal of the dispatcher tells and nobody else has written yet (a run that is lost, a task that is poison),
//! with the same guarded steps that everybody uses.
//!
//! It must never stand on the path of a task that succeeds: without it, tasks run on and the audit of submission finds, later,
//! what the recorder would have written.

pub mod config;
mod error;
mod event_filter;
mod events;
mod explain;
mod grpc;
mod metrics;
mod queue_metrics;
mod queues;
mod recorder;
mod registry;
mod retention;
mod service;
mod watch;

pub use config::Config;
pub use service::{Deps, Monitor};
