//! The store on SQLite: one writer and a few readers, or one connection to a database in memory.

pub(crate) mod dialect;
mod errors;
mod executor;
mod migrate;
#[path = "../pool.rs"]
mod pool;
#[path = "../queries/mod.rs"]
pub(crate) mod queries;
mod setup;

use diesel::{SqliteConnection, connection::AnsiTransactionManager};
use diesel_async::{
    TransactionManager as _,
    sync_connection_wrapper::{SyncConnectionWrapper, SyncTransactionManagerWrapper},
};
use futures_util::future::BoxFuture;

use self::{executor::Executor, pool::Pool, setup::Place};
use crate::{PoolUsage, StoreError, StoreOptions, fault::Step};

pub(crate) use migrate::migrate;

/// Connection.
pub(crate) type Conn = SyncConnectionWrapper<SqliteConnection, Executor>;
/// Backend of diesel.
pub(crate) type Db = diesel::sqlite::Sqlite;

/// The database.
#[derive(Clone)]
pub(crate) struct Backend {
    writer: Pool,
    readers: Pool,
    in_memory: bool,
}

impl Backend {
    /// Opens a file and checks its schema, or makes a database in memory.
    pub(crate) async fn connect(options: &StoreOptions) -> Result<Self, StoreError> {
        let place = Place::parse(&options.url)?;
        let pool = |size| {
            let (name, shown) = (place.name(), place.name().to_owned());
            Pool::new(name, shown, size, options.acquire_timeout, |name| Box::pin(setup::establish(name)))
        };
        let writer = pool(1)?;
        // A second connection to memory would be a second database.
        let in_memory = place == Place::Memory;
        let readers = if in_memory { writer.clone() } else { pool(options.max_connections)? };
        let ready = writer.read(move |conn| {
            Box::pin(async move {
                let ready = conn.spawn_blocking(move |conn| Ok(if in_memory { migrate::make(conn) } else { migrate::check(conn) }));
                Ok(ready.await??)
            })
        });
        ready.await?;
        Ok(Self { writer, readers, in_memory })
    }

    /// How its pools are used.
    pub(crate) fn usage(&self) -> Vec<PoolUsage> {
        if self.in_memory { vec![self.writer.usage("all")] } else { vec![self.readers.usage("read"), self.writer.usage("write")] }
    }

    /// Where steps that only read run.
    pub(crate) fn reads(&self) -> &Pool {
        &self.readers
    }

    /// Where steps that write run.
    pub(crate) fn writes(&self) -> &Pool {
        &self.writer
    }
}

/// Runs a step in a transaction that is a writer from its beginning: one that turns into a writer later may find that it cannot.
async fn transaction<T, F>(conn: &mut Conn, work: &F) -> Step<T>
where
    T: Send,
    F: for<'c> Fn(&'c mut Conn) -> BoxFuture<'c, Step<T>> + Send + Sync,
{
    type Transactions = SyncTransactionManagerWrapper<AnsiTransactionManager>;
    conn.spawn_blocking(|conn| AnsiTransactionManager::begin_transaction_sql(conn, "BEGIN IMMEDIATE")).await?;
    match work(conn).await {
        Ok(value) => {
            Transactions::commit_transaction(conn).await?;
            Ok(value)
        }
        Err(fault) => {
            Transactions::rollback_transaction(conn).await?;
            Err(fault)
        }
    }
}
