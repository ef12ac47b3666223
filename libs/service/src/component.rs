//! What a service brings to the process that runs it.

use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;

use crate::error::ServiceError;

/// Why a component cannot serve right now, in words for an operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotReady(pub String);

/// Says whether a component can serve. Asked about once a second, also while the component runs, so it must be cheap.
#[async_trait]
pub trait Readiness: Send + Sync + 'static {
    /// `Ok` when calls would be served.
    ///
    /// # Errors
    /// The reason why they would not.
    async fn check(&self) -> Result<(), NotReady>;
}

/// The readiness of a component that can serve whenever it runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct AlwaysReady;

#[async_trait]
impl Readiness for AlwaysReady {
    async fn check(&self) -> Result<(), NotReady> {
        Ok(())
    }
}

/// A service, ready to be run by a [`crate::Server`].
#[async_trait]
pub trait Component: Send + 'static {
    /// Short name for logs and errors, for example `submission`.
    fn name(&self) -> &'static str;

    /// Full names of its gRPC services, each of which gets a health of its own.
    fn grpc_services(&self) -> &'static [&'static str];

    /// Adds its gRPC services.
    fn register(&self, routes: &mut RoutesBuilder);

    /// Its readiness, to be asked while it runs.
    fn readiness(&self) -> Arc<dyn Readiness> {
        Arc::new(AlwaysReady)
    }

    /// Runs its background loops. Once `shutdown` is cancelled it takes no new work, finishes what it has, and returns. A return
    /// before that ends the process.
    ///
    /// # Errors
    /// What stopped it.
    async fn run(self: Box<Self>, shutdown: CancellationToken) -> Result<(), ServiceError>;
}
