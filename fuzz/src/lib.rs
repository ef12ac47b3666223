//! Bad input: where it comes from. What it is put into is in `tests/`.
//!
//! Inputs follow from a seed alone, so that a failure is repeated by its number. They begin as something well-formed, an entry of
//! the corpus or a random message of a contract, and are then damaged: input that is random from the first byte on is refused by
//! the first check and never reaches the others.

#![expect(clippy::expect_used, reason = "what fails here fails a test")]

pub mod bytes;
pub mod corpus;
pub mod message;
