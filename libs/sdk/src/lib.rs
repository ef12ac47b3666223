//! What users of Oxcart import: [`Client`] to submit tasks and see what becomes of them, [`Handlers`] and [`TaskContext`] to
//! run them.
//!
//! The crate knows the public contract and the domain, and nothing of the services behind them.

mod codec;

pub mod client;
pub mod context;
pub mod error;
pub mod handler;
pub mod handlers;
pub mod stop;

pub use client::{Client, ClientError, TaskHandle};
pub use context::{Detached, Reporter, RunInfo, TaskContext};
pub use error::{Class, TaskError, TaskResult};
pub use handler::{Handler, Task};
pub use handlers::{HandlerEntry, HandlerNameError, Handlers};
pub use oxcart_types as types;
pub use stop::{StopReason, StopSignal};
