//! A pool of connections, and how steps run on them; compiled once per backend.

use std::{sync::Arc, time::Duration};

use diesel_async::pooled_connection::{
    AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod,
    deadpool::{self, Object, PoolError},
};
use futures_util::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Conn, errors::classify, transaction};
use crate::{
    StoreError,
    error::Unreachable,
    fault::{Class, Fault, Step, TRIES, pause, report},
    usage::{Meter, PoolUsage},
};

/// Makes a connection to what a URL or path names.
pub(crate) type Establish = fn(String) -> BoxFuture<'static, diesel::ConnectionResult<Conn>>;

/// A bounded number of connections, made when they are needed.
#[derive(Clone)]
pub(crate) struct Pool {
    connections: deadpool::Pool<Conn>,
    /// Where connections go to, for people.
    place: Arc<str>,
    /// As many permits as connections: a wait for a free connection is told apart from a slow connect.
    permits: Arc<Semaphore>,
    size: usize,
    meter: Arc<Meter>,
    acquire_timeout: Duration,
}

/// A connection that goes back to the pool when it is dropped.
struct Lease {
    connection: Object<Conn>,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    /// At most `size` connections to `target`, made by `establish`. Errors call it `place`, since a target may hold a password.
    pub(crate) fn new(
        target: &str,
        place: String,
        size: usize,
        acquire_timeout: Duration,
        establish: Establish,
    ) -> Result<Self, StoreError> {
        let size = size.max(1);
        let mut config = ManagerConfig::default();
        config.recycling_method = RecyclingMethod::Fast;
        config.custom_setup = Box::new(move |target| establish(target.to_owned()));
        let manager = AsyncDieselConnectionManager::new_with_config(target, config);
        let connections = deadpool::Pool::builder(manager).max_size(size).build();
        let connections = connections.map_err(|error| StoreError::Configuration(error.to_string()))?;
        let (place, permits) = (place.into(), Arc::new(Semaphore::new(size)));
        Ok(Self { connections, place, permits, size, meter: Arc::default(), acquire_timeout })
    }

    /// Runs a step that only reads, outside of a transaction.
    ///
    /// In a task of its own: a caller that goes away in the middle of an answer would give a connection back on which the rest
    /// of the answer is still to come, for the next one to read, or on which a thread still works.
    pub(crate) async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut Conn) -> BoxFuture<'c, Step<T>> + Send + Sync + 'static,
    {
        let pool = self.clone();
        join(tokio::spawn(async move {
            let mut lease = pool.acquire().await?;
            match work(&mut lease.connection).await {
                Ok(value) => Ok(value),
                Err(Fault::Store(error)) => Err(error),
                Err(Fault::Sql(error)) => Err(lease.give_up(error)),
            }
        }))
        .await
    }

    /// Runs a step in a transaction, and in a task of its own, so that a caller that goes away cannot leave the transaction
    /// open. Deadlocks, lock timeouts and lost races for a key are tried again.
    pub(crate) async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut Conn) -> BoxFuture<'c, Step<T>> + Send + Sync + 'static,
    {
        let pool = self.clone();
        join(tokio::spawn(async move { pool.acquire().await?.write(&work).await })).await
    }

    /// How it is used, for metrics.
    pub(crate) fn usage(&self, name: &'static str) -> PoolUsage {
        self.meter.usage(name, self.size, self.permits.available_permits())
    }

    /// A free connection: [`StoreError::Busy`] when none became free in time, [`StoreError::Unavailable`] when none could be made.
    async fn acquire(&self) -> Result<Lease, StoreError> {
        let wait = self.meter.begin();
        let permit = tokio::time::timeout(self.acquire_timeout, Arc::clone(&self.permits).acquire_owned()).await;
        wait.end(permit.is_ok());
        let Ok(Ok(permit)) = permit else { return Err(StoreError::Busy) };
        let connection = self.connections.get().await.map_err(|error| {
            let reason = match error {
                PoolError::Backend(error) => error.to_string(),
                other => other.to_string(),
            };
            StoreError::Unavailable(Box::new(Unreachable { place: self.place.to_string(), reason }))
        })?;
        Ok(Lease { connection, _permit: permit })
    }
}

impl Lease {
    async fn write<T, F>(mut self, work: &F) -> Result<T, StoreError>
    where
        T: Send,
        F: for<'c> Fn(&'c mut Conn) -> BoxFuture<'c, Step<T>> + Send + Sync,
    {
        let mut tries = 1;
        loop {
            let error = match transaction(&mut self.connection, work).await {
                Ok(value) => return Ok(value),
                Err(Fault::Store(error)) => return Err(error),
                Err(Fault::Sql(error)) => error,
            };
            match classify(&error) {
                Class::Conflict | Class::Duplicate if tries < TRIES => {
                    tracing::debug!(tries, %error, "the transaction is tried again");
                    pause(tries).await;
                    tries += 1;
                }
                Class::Conflict | Class::Duplicate | Class::Unavailable | Class::Defect => return Err(self.give_up(error)),
            }
        }
    }

    /// Reports an error, and drops the connection when it may be the cause.
    fn give_up(self, error: diesel::result::Error) -> StoreError {
        let class = classify(&error);
        if class == Class::Unavailable {
            drop(Object::take(self.connection));
        }
        report(class, error)
    }
}

/// The result of a task; a task that panicked or was ended by the runtime says nothing about its effect.
async fn join<T>(task: tokio::task::JoinHandle<Result<T, StoreError>>) -> Result<T, StoreError> {
    task.await.map_err(|error| StoreError::Unavailable(Box::new(error)))?
}
