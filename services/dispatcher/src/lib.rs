//! The dispatcher service: queues, leases, retries; the only owner of the queue engine.
//!
//! Submission hands entries over, worker sessions are granted leases on them, and every transition is served as a journal.
//! What is ready, delayed and leased lives in the engine; this process only keeps what belongs to open connections, so any
//! replica can extend or settle any lease, and a replica that vanishes loses nothing.
//!
//! It must never touch SQL, keep a payload, or make a fact: a verdict has no effect until the worker writes it.
//!
//! * `grpc`: the contracts, one file per service: decode, call, encode.
//! * `session`: what a worker may be granted and what it holds.
//! * `partition`: coalesced engine calls, the granter and the reconciler of each queue partition.
//! * `retry_budget`: how many of a queue's grants may be retries.
//! * `journal`: the resumable stream of transitions.

mod config;
mod core;
mod error;
mod grpc;
mod journal;
mod metrics;
mod partition;
mod retry_budget;
mod service;
mod session;

pub use config::Config;
pub use service::{Deps, Dispatcher};
