//! The dispatcher over its contracts: a tonic client, the in-process transport, the in-memory engine.

#![expect(clippy::expect_used, reason = "helpers of tests fail the test that calls them")]

mod calls;
mod harness;
mod journal;
mod sessions;
mod settings;
