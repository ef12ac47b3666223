//! What every engine does, told by both.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

#[path = "conformance/backlog.rs"]
mod backlog;
#[path = "conformance/bad_calls.rs"]
mod bad_calls;
#[path = "conformance/enqueue.rs"]
mod enqueue;
#[path = "conformance/journal.rs"]
mod journal;
#[path = "conformance/leases.rs"]
mod leases;
#[path = "conformance/lookups.rs"]
mod lookups;
#[path = "conformance/order.rs"]
mod order;
#[path = "conformance/pages.rs"]
mod pages;
#[path = "conformance/settings.rs"]
mod settings;
#[path = "conformance/time.rs"]
mod time;
#[path = "conformance/wakeups.rs"]
mod wakeups;

mod support;
