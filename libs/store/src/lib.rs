//! Oxcart's SQL: the chain of runs, the outbox, the agenda.
//!
//! One set of queries is compiled for MySQL and for SQLite; [`Store`] is the one handle for both. Every step is a batch: one
//! multi-row insert into slots that are written once, so that there is nothing to lock and nothing to lose in a race. A step
//! may be repeated by anyone at any time.
//!
//! What must not happen here: a network call, a decision about retries, a clock that is read (times are arguments).

// `queries` and `pool` are compiled once per backend; see `mysql` and `sqlite`.
#![expect(clippy::duplicate_mod, reason = "one set of queries for two databases")]

mod cancel_rule;
mod change;
mod codes;
mod columns;
pub mod error;
mod fault;
mod link;
pub mod model;
mod mysql;
mod operation;
mod plan;
mod rows;
mod schema;
mod sqlite;
mod store;
mod upsert;
mod usage;
mod versions;

pub use cancel_rule::{CancelRule, NewCancelRule, RuleMade, RuleSelector};
pub use error::StoreError;
#[cfg(feature = "simulation")]
pub use link::Wire;
pub use model::*;
pub use operation::*;
pub use store::{Store, StoreOptions};
pub use usage::PoolUsage;
