//! Pooled connections that cost no round trip to take.

use std::{future::Future, time::Duration};

use deadpool::managed::{self, Metrics, Object, Pool, RecycleResult, Timeouts};
use deadpool_redis::redis::{AsyncConnectionConfig, RedisError, RedisResult, aio::MultiplexedConnection};

use super::{
    error::{TimedOut, from_redis},
    options::RedisOptions,
};
use crate::engine::QueueError;

/// A connection that was idle for longer is asked whether it still works before it is used.
const FRESH: Duration = Duration::from_secs(1);

/// deadpool-redis's manager, less its PING before every use: one that failed is never put back (see [`Connections::call`]).
#[derive(Debug)]
struct Manager(deadpool_redis::Manager);

impl managed::Manager for Manager {
    type Type = MultiplexedConnection;
    type Error = RedisError;

    async fn create(&self) -> RedisResult<MultiplexedConnection> {
        managed::Manager::create(&self.0).await
    }

    async fn recycle(&self, connection: &mut MultiplexedConnection, metrics: &Metrics) -> RecycleResult<RedisError> {
        if metrics.last_used() < FRESH { Ok(()) } else { managed::Manager::recycle(&self.0, connection, metrics).await }
    }
}

/// The connections of an engine.
#[derive(Debug)]
pub(super) struct Connections {
    pool: Pool<Manager>,
    timeout: Duration,
}

impl Connections {
    /// Connects nothing yet.
    pub(super) fn new(options: &RedisOptions) -> Result<Self, QueueError> {
        let timeout = Some(options.timeout);
        let config = AsyncConnectionConfig::new().set_connection_timeout(timeout).set_response_timeout(timeout);
        let manager = deadpool_redis::Manager::new_with_config(options.url.as_str(), config).map_err(from_redis)?;
        let pool = Pool::builder(Manager(manager))
            .max_size(options.connections.max(1))
            .timeouts(Timeouts { wait: timeout, create: timeout, recycle: timeout })
            .runtime(deadpool_redis::Runtime::Tokio1)
            .build()
            .map_err(|error| QueueError::Unavailable(Box::new(error)))?;
        Ok(Self { pool, timeout: options.timeout })
    }

    /// Does something with a connection, within the time allowed.
    pub(super) async fn call<T, F>(&self, work: impl FnOnce(MultiplexedConnection) -> F + Send) -> Result<T, QueueError>
    where
        F: Future<Output = RedisResult<T>> + Send,
    {
        let connection = self.pool.get().await.map_err(|error| QueueError::Unavailable(Box::new(error)))?;
        // The clone shares the socket: replies are matched to requests, so an abandoned one cannot reach the next caller.
        let outcome = tokio::time::timeout(self.timeout, work((*connection).clone())).await;
        match outcome {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => {
                if error.is_connection_dropped() || error.is_io_error() || error.is_unrecoverable_error() {
                    drop(Object::take(connection));
                }
                Err(from_redis(error))
            }
            Err(_) => {
                drop(Object::take(connection));
                Err(TimedOut::error(self.timeout))
            }
        }
    }
}
