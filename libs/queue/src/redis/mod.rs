//! The engine of production: entries in Redis, moved only by scripts.
//!
//! Each operation is one script over one partition, and so one atomic step; what it keeps where stands on top of
//! `scripts/lib.lua`, what each script takes and returns on top of its own file.

mod connection;
mod engine;
mod error;
mod keys;
mod options;
mod page;
mod reply;
mod safety;
mod scripts;
mod wakeups;
mod wire;

pub use engine::RedisEngine;
pub use options::RedisOptions;
