//! The service over its contract: SQLite under it, a scripted dispatcher beside it.

#![expect(clippy::expect_used, reason = "helpers of tests are tests too; clippy.toml allows it only in functions marked as such")]

mod api;
mod operations;
mod recovery;
mod refusals;
mod replays;
mod support;
