//! Bad input for every RPC and every parser: nothing panics, nothing allocates without bound, and every refusal is one that a
//! caller can act on.
//!
//! By itself each target takes the corpus and a fixed number of inputs that follow from a fixed seed. `OXCART_FUZZ_SECONDS=n`
//! goes on for so long, with seeds of its own; `OXCART_FUZZ_SEED=n` begins with that one. A failure names its seed.

#![expect(clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking, and says by which seed")]

mod memory;
mod parsers;
mod plan;
mod services;
mod words;
