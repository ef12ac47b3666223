//! A pool of connections; compiled once per backend.

use std::{sync::Arc, time::Duration};

use diesel_async::pooled_connection::{
    AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod,
    deadpool::{self, Object},
};
use futures_util::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Conn;
use crate::StoreError;

/// A bounded number of connections, made when they are needed.
#[derive(Clone)]
pub(crate) struct Pool {
    connections: deadpool::Pool<Conn>,
    /// As many permits as connections: a wait for a free connection is told apart from a slow connect.
    permits: Arc<Semaphore>,
    acquire_timeout: Duration,
}

/// A connection that goes back to the pool when it is dropped.
pub(crate) struct Lease {
    connection: Object<Conn>,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    /// At most `size` connections, made by `establish`.
    pub(crate) fn new(
        url: &str,
        size: usize,
        acquire_timeout: Duration,
        establish: fn(String) -> BoxFuture<'static, diesel::ConnectionResult<Conn>>,
    ) -> Result<Self, StoreError> {
        let size = size.max(1);
        let mut config = ManagerConfig::default();
        config.recycling_method = RecyclingMethod::Fast;
        config.custom_setup = Box::new(move |url| establish(url.to_owned()));
        let manager = AsyncDieselConnectionManager::new_with_config(url, config);
        let connections = deadpool::Pool::builder(manager).max_size(size).build();
        let connections = connections.map_err(|error| StoreError::Configuration(error.to_string()))?;
        Ok(Self { connections, permits: Arc::new(Semaphore::new(size)), acquire_timeout })
    }

    /// A free connection.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when none became free in time, [`StoreError::Unavailable`] when none could be made.
    pub(crate) async fn acquire(&self) -> Result<Lease, StoreError> {
        let permit = tokio::time::timeout(self.acquire_timeout, Arc::clone(&self.permits).acquire_owned()).await;
        let Ok(Ok(permit)) = permit else { return Err(StoreError::Busy) };
        let connection = self.connections.get().await.map_err(|error| StoreError::Unavailable(Box::new(error)))?;
        Ok(Lease { connection, _permit: permit })
    }
}

impl Lease {
    /// The connection.
    pub(crate) fn conn(&mut self) -> &mut Conn {
        &mut self.connection
    }

    /// Closes the connection instead of giving it back.
    pub(crate) fn discard(self) {
        drop(Object::take(self.connection));
    }
}
