//! The whole system in one process on simulated time, under every fault; see docs/simulation.md.
//!
//! A [`world`] runs the real code of the four services, several replicas of each, over a simulated network, with the queue
//! engine and the database in memory. Every process has a runtime of its own whose clock is driven from here: it can be
//! killed wherever it is, paused, and set wrong. Everything follows from the seed.

pub mod client;
pub mod double;
pub mod engine;
pub mod handler;
pub mod host;
pub mod log;
pub mod many;
pub mod net;
pub mod plan;
pub mod process;
pub mod rng;
pub mod shared;
pub mod sql;
pub mod time;
pub mod world;
