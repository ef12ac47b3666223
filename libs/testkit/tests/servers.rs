//! The servers start, keep what they should over a crash, and freeze.

use std::time::Duration;

use oxcart_testkit::{MariaDbServer, RedisOptions, RedisServer, wait_for};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn mariadb_keeps_committed_rows_over_a_crash() {
    let server = MariaDbServer::start().await.unwrap();
    let url = server.create_database().await.unwrap();
    let database = url.rsplit('/').next().unwrap();
    server.execute(&format!("CREATE TABLE {database}.t (a INT); INSERT INTO {database}.t VALUES (7)")).await.unwrap();
    server.process().kill().unwrap();
    assert!(server.execute("SELECT 1").await.is_err());
    server.restart().await.unwrap();
    assert_eq!(server.execute(&format!("SELECT a FROM {database}.t")).await.unwrap().trim(), "7");
    assert_eq!(server.execute("SELECT @@innodb_flush_log_at_trx_commit").await.unwrap().trim(), "1");
    assert_ne!(server.create_database().await.unwrap(), url);
}

#[tokio::test]
async fn redis_forgets_or_keeps_as_asked() {
    let server = RedisServer::start(RedisOptions { append_only: true, max_memory_mib: Some(64) }).await.unwrap();
    server.command("SET a 7").await.unwrap();
    // Flushed each second at the latest; the append-only file is written, if not flushed, before the reply.
    server.restart().await.unwrap();
    assert_eq!(server.command("STRLEN a").await.unwrap(), "1");
    server.flush_all().await.unwrap();
    assert_eq!(server.command("DBSIZE").await.unwrap(), "0");
    assert!(server.command("NO-SUCH-COMMAND").await.is_err());
}

#[tokio::test]
async fn a_paused_server_is_silent_until_resumed() {
    let server = RedisServer::start(RedisOptions::default()).await.unwrap();
    server.process().pause().unwrap();
    assert!(wait_for("a paused server", Duration::from_millis(200), || async { server.command("PING").await.ok() }).await.is_err());
    server.process().resume().unwrap();
    wait_for("the reply", SOON, || async { server.command("PING").await.ok() }).await.unwrap();
}

#[tokio::test]
async fn a_shared_server_is_started_once() {
    let first = RedisServer::shared().await.unwrap();
    let second = RedisServer::shared().await.unwrap();
    assert_eq!(first.process().id(), second.process().id());
}
