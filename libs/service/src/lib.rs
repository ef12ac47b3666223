//! The chassis that every Oxcart service stands on.
//!
//! A service is a [`Component`]: gRPC services, a readiness, and background loops. [`Server`] runs components: it serves their
//! gRPC on one port with health and reflection, their metrics on another, and brings them down in order. Nothing in here knows
//! what a task is.
//!
//! * [`component`], [`server`], [`admin`], [`shutdown`]: the life of a process.
//! * [`channel`], [`local`]: how services reach each other, over the network or within a process, through the same contracts.
//! * [`status`]: the one way to make an error for the wire.
//! * [`reconcile`], [`coalesce`]: the two shapes that background work and hops have.
//! * [`config`], [`metrics`], [`telemetry`]: what operators meet.

pub mod admin;
pub mod channel;
pub mod coalesce;
pub mod component;
pub mod config;
mod error;
mod layers;
pub mod local;
pub mod metrics;
pub mod page;
pub mod reconcile;
pub mod server;
pub mod shutdown;
pub mod status;
pub mod telemetry;

pub use component::{Component, NotReady, Readiness};
pub use error::ServiceError;
pub use metrics::Metrics;
pub use server::{Server, ServerOptions};
