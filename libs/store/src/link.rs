//! What lies between a step and the database: nothing, outside of a simulation.

#[cfg(feature = "simulation")]
use std::sync::Arc;

#[cfg(feature = "simulation")]
use futures_util::future::BoxFuture;

use crate::StoreError;

/// A way to the database that may be slow and may fail.
#[cfg(feature = "simulation")]
pub trait Wire: Send + Sync + 'static {
    /// A step is on its way. An error keeps it from the database.
    fn request(&self) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Its answer is on its way. An error takes the place of the answer; the step was taken all the same.
    fn answer(&self) -> BoxFuture<'_, Result<(), StoreError>>;
}

/// The way of the steps of one handle.
#[derive(Clone, Default)]
pub(crate) struct Link {
    #[cfg(feature = "simulation")]
    wire: Option<Arc<dyn Wire>>,
}

impl Link {
    /// Over a wire.
    #[cfg(feature = "simulation")]
    pub(crate) fn over(wire: Arc<dyn Wire>) -> Self {
        Self { wire: Some(wire) }
    }

    /// Takes a step to the database.
    pub(crate) async fn request(&self) -> Result<(), StoreError> {
        #[cfg(feature = "simulation")]
        if let Some(wire) = &self.wire {
            return wire.request().await;
        }
        Ok(())
    }

    /// Brings its answer back.
    pub(crate) async fn answer<T>(&self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        #[cfg(feature = "simulation")]
        if let Some(wire) = &self.wire {
            wire.answer().await?;
        }
        answer
    }
}
