//! Oxcart as a library: the composition of its services, and [`System`], all of them in this process.
//!
//! ```no_run
//! use oxcart::{Storage, System};
//! use oxcart_sdk::{Handlers, TaskContext};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let handlers = Handlers::new().handle_fn("math.add", |_: TaskContext, (a, b): (i64, i64)| async move { Ok(a + b) })?;
//! let system = System::embedded(Storage::InMemory).handlers(handlers).start().await?;
//! let sum: i64 = system.client().task("math.add").payload(&(1, 2))?.submit_as().await?.result().await?;
//! assert_eq!(sum, 3);
//! system.stop().await?;
//! # Ok(())
//! # }
//! ```
//!
//! This crate only puts parts together. Whatever decides something belongs into a service or a library below.

pub mod compose;
pub mod config;
mod pool_metrics;
mod storage;
pub mod system;

pub use config::Config;
pub use storage::{LockError, Storage};
pub use system::{Addresses, System, SystemBuilder, SystemError};

/// The README's Rust code is compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
