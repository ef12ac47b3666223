//! The store on SQLite: one writer and a few readers, or one connection to a database in memory.

pub(crate) mod dialect;
mod errors;
mod migrate;
#[path = "../pool.rs"]
mod pool;
#[path = "../queries/mod.rs"]
pub(crate) mod queries;
mod setup;

use diesel::SqliteConnection;
use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;
use futures_util::future::BoxFuture;

use self::{
    pool::{Lease, Pool},
    setup::Place,
};
use crate::{
    StoreError, StoreOptions,
    fault::{Class, Fault, Step, TRIES, pause, report},
};

pub(crate) use migrate::migrate;

/// Connection.
pub(crate) type Conn = SyncConnectionWrapper<SqliteConnection>;
/// Backend of diesel.
pub(crate) type Db = diesel::sqlite::Sqlite;

/// The database.
#[derive(Clone)]
pub(crate) struct Backend {
    place: Place,
    writer: Pool,
    readers: Pool,
}

impl Backend {
    /// Opens a file and checks its schema, or makes a database in memory.
    pub(crate) async fn connect(options: &StoreOptions) -> Result<Self, StoreError> {
        let place = Place::parse(&options.url)?;
        let pool = |size| Pool::new(place.name(), size, options.acquire_timeout, |name| Box::pin(setup::establish(name)));
        let writer = pool(1)?;
        let readers = match place {
            Place::Memory => writer.clone(),
            Place::File(_) => pool(options.max_connections)?,
        };
        let in_memory = place == Place::Memory;
        let backend = Self { place, writer, readers };
        let mut lease = backend.writer.acquire().await?;
        let schema = lease
            .conn()
            .spawn_blocking(move |conn| Ok(if in_memory { migrate::apply(conn).map(|_| ()) } else { migrate::check(conn) }));
        schema.await.map_err(|error| report(errors::classify(&error), error))??;
        drop(lease);
        Ok(backend)
    }

    /// Runs a step that only reads, outside of a transaction; in a task of its own too, since a connection must not go back to
    /// its pool while a thread works on it.
    pub(crate) async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut Conn) -> BoxFuture<'c, Step<T>> + Send + Sync + 'static,
    {
        let backend = self.clone();
        let task = tokio::spawn(async move {
            let mut lease = backend.readers.acquire().await?;
            match work(lease.conn()).await {
                Ok(value) => Ok(value),
                Err(Fault::Store(error)) => Err(error),
                Err(Fault::Sql(error)) => Err(backend.give_up(lease, error)),
            }
        });
        task.await.map_err(|error| StoreError::Unavailable(Box::new(error)))?
    }

    /// Runs a step in a transaction and in a task of its own: a transaction of SQLite is not closed by dropping its future.
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
        let mut lease = self.writer.acquire().await?;
        let mut tries = 1;
        loop {
            let error = match lease.conn().immediate_transaction(async |conn: &mut Conn| work(conn).await).await {
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
                Class::Conflict | Class::Duplicate | Class::Unavailable | Class::Defect => return Err(self.give_up(lease, error)),
            }
        }
    }

    /// Reports an error, and drops the connection when it may be the cause, unless the database would go with it.
    fn give_up(&self, lease: Lease, error: diesel::result::Error) -> StoreError {
        let class = errors::classify(&error);
        if class == Class::Unavailable && self.place != Place::Memory {
            lease.discard();
        }
        report(class, error)
    }
}
