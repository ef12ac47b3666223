//! How a connection is made and what is set on it.

use diesel::{Connection as _, ConnectionError, ConnectionResult, SqliteConnection, connection::SimpleConnection as _};
use diesel_async::sync_connection_wrapper::{SpawnBlocking as _, SyncConnectionWrapper};

use super::{Conn, executor::Executor};
use crate::StoreError;

/// WAL lets readers and the writer work side by side. FULL flushes at each commit: acknowledged means durable.
const SESSION: &str = "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
     PRAGMA temp_store = MEMORY; PRAGMA cache_size = -16000; PRAGMA wal_autocheckpoint = 4000;";

/// SQLite's name of a database in memory.
const MEMORY: &str = ":memory:";

/// Where the database is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Of this process, gone with its last connection.
    Memory,
    /// A file.
    File(String),
}

impl Place {
    /// Reads `sqlite::memory:` and `sqlite:path/to/file.db`.
    pub(super) fn parse(url: &str) -> Result<Self, StoreError> {
        match url.strip_prefix("sqlite:") {
            Some(MEMORY) => Ok(Self::Memory),
            Some("") | None => Err(StoreError::Configuration("use sqlite:path/to/file.db or sqlite::memory:".to_owned())),
            Some(path) => Ok(Self::File(path.to_owned())),
        }
    }

    /// What SQLite calls it.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Memory => MEMORY,
            Self::File(path) => path,
        }
    }
}

/// Makes a connection whose calls run where they may.
pub(super) async fn establish(name: String) -> ConnectionResult<Conn> {
    let mut executor = if name == MEMORY { Executor::Here } else { Executor::Threads };
    let made = executor.spawn_blocking(move || establish_here(&name)).await;
    let conn = made.map_err(|error| ConnectionError::BadConnection(error.to_string()))??;
    Ok(SyncConnectionWrapper::with_runtime(conn, executor))
}

/// Makes a connection, on this thread.
pub(super) fn establish_here(name: &str) -> ConnectionResult<SqliteConnection> {
    let mut conn = SqliteConnection::establish(name)?;
    conn.batch_execute(SESSION).map_err(ConnectionError::CouldntSetupConfiguration)?;
    Ok(conn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_apart() {
        assert_eq!(Place::parse("sqlite::memory:").ok(), Some(Place::Memory));
        assert_eq!(Place::parse("sqlite:/a/b.db").ok(), Some(Place::File("/a/b.db".to_owned())));
        assert!(Place::parse("sqlite:").is_err());
        assert!(Place::parse("postgres://x").is_err());
    }
}
