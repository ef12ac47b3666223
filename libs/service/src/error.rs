//! What stops a service.

use std::io;

/// Why a service could not start or had to end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// The gRPC server failed.
    #[error("the gRPC server failed")]
    Transport(#[from] tonic::transport::Error),
    /// Sockets or signals failed.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The descriptors for reflection do not fit together.
    #[error("the descriptors for reflection do not fit together")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// An address of another service cannot be used.
    #[error("{address:?} is not the address of a service: {reason}")]
    Address {
        /// As configured.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A component failed.
    #[error("{component} failed")]
    Component {
        /// Its name.
        component: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A component panicked.
    #[error("{component} panicked")]
    Panicked {
        /// Its name.
        component: &'static str,
    },
    /// Components or connections were still open at the end of the time for draining.
    #[error("not drained within {0:?}")]
    DrainTimeout(std::time::Duration),
}

impl ServiceError {
    /// An error of a component.
    pub fn component(component: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Component { component, source: source.into() }
    }

    pub(crate) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}
