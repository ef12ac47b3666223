//! End-to-end tests of Oxcart. This library is what they share: starting a system, talking to it, and reading what it did.
//! The tests are in `tests/`.

#![expect(clippy::expect_used, reason = "what fails here fails a test")]

pub mod binary;
pub mod cancels;
pub mod chaos;
pub mod client;
pub mod dev;
pub mod exposition;
pub mod h2;
pub mod http;
pub mod processes;
pub mod replica;
pub mod scenarios;
