//! The queue engine: what is ready, delayed and leased, per queue partition.
//!
//! [`QueueEngine`] is implemented twice: [`redis`] keeps the entries in Redis and moves them only by scripts, [`memory`] keeps
//! them in this process. Both pass the same conformance suite and the same model test, entry by entry and reply by reply.
//!
//! What must not happen here: a payload, a specification or a result becomes a fact. The engine is a working set that may be
//! lost at any time; SQL is the truth.

mod check;
pub mod engine;
pub mod memory;
mod record;
pub mod redis;
mod rules;

pub use engine::*;
pub use memory::MemoryEngine;
pub use redis::{RedisEngine, RedisOptions};
