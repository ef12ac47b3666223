//! The store on MySQL and MariaDB.

pub(crate) mod dialect;
mod errors;
mod migrate;
#[path = "../pool.rs"]
mod pool;
#[path = "../queries/mod.rs"]
pub(crate) mod queries;
mod setup;

use diesel_async::{AsyncConnection as _, AsyncMysqlConnection};
use futures_util::future::BoxFuture;

use self::pool::{Lease, Pool};
use crate::{
    StoreError, StoreOptions,
    fault::{Class, Fault, Step, TRIES, pause, report},
};

pub(crate) use migrate::migrate;

/// Connection.
pub(crate) type Conn = AsyncMysqlConnection;
/// Backend of diesel.
pub(crate) type Db = diesel::mysql::Mysql;

/// The database.
#[derive(Clone)]
pub(crate) struct Backend {
    pool: Pool,
}

impl Backend {
    /// Connects and checks the schema.
    pub(crate) async fn connect(options: &StoreOptions) -> Result<Self, StoreError> {
        setup::check_url(&options.url)?;
        let pool =
            Pool::new(&options.url, options.max_connections, options.acquire_timeout, |url| Box::pin(setup::establish(url)))?;
        let backend = Self { pool };
        backend.read(|conn| Box::pin(migrate::check(conn))).await?;
        Ok(backend)
    }

    /// Runs a step that only reads, outside of a transaction. In a task of its own: a caller that goes away in the middle of an
    /// answer would give a connection back on which the rest of the answer is still to come, for the next one to read.
    pub(crate) async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut Conn) -> BoxFuture<'c, Step<T>> + Send + Sync + 'static,
    {
        let backend = self.clone();
        let task = tokio::spawn(async move {
            let mut lease = backend.pool.acquire().await?;
            match work(lease.conn()).await {
                Ok(value) => Ok(value),
                Err(Fault::Store(error)) => Err(error),
                Err(Fault::Sql(error)) => Err(give_up(lease, error)),
            }
        });
        task.await.map_err(|error| StoreError::Unavailable(Box::new(error)))?
    }

    /// Runs a step in a transaction and in a task of its own, so that a caller that goes away cannot leave the transaction
    /// open. Deadlocks, lock timeouts and lost races for a key are tried again.
    pub(crate) async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut Conn) -> BoxFuture<'c, Step<T>> + Send + Sync + 'static,
    {
        let backend = self.clone();
        let task = tokio::spawn(async move { backend.transaction(&work).await });
        task.await.map_err(|error| StoreError::Unavailable(Box::new(error)))?
    }

    async fn transaction<T, F>(&self, work: &F) -> Result<T, StoreError>
    where
        T: Send,
        F: for<'c> Fn(&'c mut Conn) -> BoxFuture<'c, Step<T>> + Send + Sync,
    {
        let mut lease = self.pool.acquire().await?;
        let mut tries = 1;
        loop {
            let error = match lease.conn().transaction(async |conn: &mut Conn| work(conn).await).await {
                Ok(value) => return Ok(value),
                Err(Fault::Store(error)) => return Err(error),
                Err(Fault::Sql(error)) => error,
            };
            match errors::classify(&error) {
                Class::Conflict | Class::Duplicate if tries < TRIES => {
                    tracing::debug!(tries, %error, "the transaction is tried again");
                    pause(tries).await;
                    tries += 1;
                }
                Class::Conflict | Class::Duplicate | Class::Unavailable | Class::Defect => return Err(give_up(lease, error)),
            }
        }
    }
}

/// Reports an error, and drops the connection when it may be the cause.
fn give_up(lease: Lease, error: diesel::result::Error) -> StoreError {
    let class = errors::classify(&error);
    if class == Class::Unavailable {
        lease.discard();
    }
    report(class, error)
}
