//! How a connection is made and what is set on it.

use std::time::Duration;

use diesel::{ConnectionError, ConnectionResult};
use mysql_async::{Opts, OptsBuilder};

use super::Conn;
use crate::StoreError;

/// Longest wait for a connection to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Nothing is left to the server's configuration: slots are decided under READ COMMITTED, and a value that does not fit must
/// be an error. A lock is waited for no longer than a caller would wait.
const SESSION: [&str; 4] = [
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "SET SESSION sql_mode = \
     'STRICT_TRANS_TABLES,STRICT_ALL_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'",
    "SET SESSION innodb_lock_wait_timeout = 5",
    // Errors are told apart by their text, see `errors`.
    "SET SESSION lc_messages = 'en_US'",
];

/// What may be shown of a URL: host, port and database. The URL itself holds a password.
pub(super) fn place(url: &str) -> Result<String, StoreError> {
    let opts = Opts::from_url(url).map_err(|error| StoreError::Configuration(error.to_string()))?;
    match opts.db_name() {
        Some(name) if !name.is_empty() => Ok(format!("{}:{}/{name}", opts.ip_or_hostname(), opts.tcp_port())),
        _ => Err(StoreError::Configuration("the database URL names no database".to_owned())),
    }
}

/// Makes a connection.
pub(super) async fn establish(url: String) -> ConnectionResult<Conn> {
    let opts = Opts::from_url(&url).map_err(|error| ConnectionError::InvalidConnectionUrl(error.to_string()))?;
    let opts = OptsBuilder::from_opts(opts)
        .init(SESSION.to_vec())
        // diesel-async keeps prepared statements itself.
        .stmt_cache_size(0)
        .client_found_rows(true);
    let connect = async {
        let conn = mysql_async::Conn::new(opts).await.map_err(|error| ConnectionError::BadConnection(error.to_string()))?;
        Conn::try_from(conn).await
    };
    tokio::time::timeout(CONNECT_TIMEOUT, connect)
        .await
        .unwrap_or_else(|_| Err(ConnectionError::BadConnection(format!("no answer within {CONNECT_TIMEOUT:?}"))))
}
