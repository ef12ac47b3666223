//! The dispatcher over its contracts: a tonic client, the in-process transport, the in-memory engine.

mod calls;
mod harness;
mod journal;
mod sessions;
