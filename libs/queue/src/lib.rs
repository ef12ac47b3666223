//! The queue engine: what is ready, delayed and leased, per queue partition.
//!
//! [`QueueEngine`] is implemented twice: [`redis`] keeps the entries in Redis and moves them only by scripts, [`memory`] keeps
//! them in this process. Both pass the same conformance suite and the same model test, entry by entry and reply by reply.
//!
//! What must not happen here: a payload, a specification or a result becomes a fact. The engine is a working set that may be
//! lost at any time; SQL is the truth.

pub mod engine;

pub use engine::*;
