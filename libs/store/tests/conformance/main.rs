//! The contract of the store, on every database that it runs on.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod support;

mod agenda;
mod cancel_rules;
mod cancelling;
mod closing;
mod faults;
mod model;
mod operations;
mod queues;
mod random;
mod reading;
mod replaying;
mod retaining;
mod running;
mod submitting;
mod updating;
mod workers;
