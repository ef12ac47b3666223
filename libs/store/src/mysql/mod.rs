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

use self::pool::Pool;
use crate::{PoolUsage, StoreError, StoreOptions, fault::Step};

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
        let place = setup::place(&options.url)?;
        let establish = |url| Box::pin(setup::establish(url)) as _;
        let pool = Pool::new(&options.url, place, options.max_connections, options.acquire_timeout, establish)?;
        pool.read(|conn| Box::pin(migrate::check(conn))).await?;
        Ok(Self { pool })
    }

    /// How its pool is used.
    pub(crate) fn usage(&self) -> Vec<PoolUsage> {
        vec![self.pool.usage("all")]
    }

    /// Where steps that only read run.
    pub(crate) fn reads(&self) -> &Pool {
        &self.pool
    }

    /// Where steps that write run.
    pub(crate) fn writes(&self) -> &Pool {
        &self.pool
    }
}

/// Runs a step in a transaction.
async fn transaction<T, F>(conn: &mut Conn, work: &F) -> Step<T>
where
    T: Send,
    F: for<'c> Fn(&'c mut Conn) -> BoxFuture<'c, Step<T>> + Send + Sync,
{
    conn.transaction(async |conn: &mut Conn| work(conn).await).await
}
