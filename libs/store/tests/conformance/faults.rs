//! What happens when callers go away, connections run out, the schema is missing or the database stops.

use std::time::Duration;

use oxcart_store::{Store, StoreError, StoreOptions};
use oxcart_testkit::{MariaDbServer, wait_for};
use oxcart_types::{EndKind, TaskState};
use rstest::rstest;

use crate::support::{Database, Fixture, Unmigrated, at, close, end, handoff, start, task, unit};

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_schema_is_asked_for_and_made_once(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let Unmigrated { options, directory: _directory } = Unmigrated::new(database).await;
    let missing = Store::connect(options.clone()).await;
    let Err(missing @ StoreError::Schema { .. }) = missing else { panic!("no schema is an error") };
    let told = missing.to_string();
    assert!(told.contains("has no schema") && told.contains("run `oxcart migrate up`"), "{told}");
    let migrate = || {
        let options = options.clone();
        tokio::spawn(async move { Store::migrate(&options).await })
    };
    let (a, b, c) = (migrate(), migrate(), migrate());
    let mut applied = 0;
    for versions in [a, b, c] {
        applied += versions.await.expect("a task").expect("migrate").len();
    }
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations/sqlite");
    let versions = std::fs::read_dir(folder).expect("the migrations").count();
    assert_eq!(applied, versions, "several at once apply each version once");
    Store::connect(options).await.expect("connect").ping().await.expect("ping");
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_named_without_its_password() {
    // Nobody listens on port 1, which only root may.
    let url = "mysql://user:secret@127.0.0.1:1/oxcart".to_owned();
    let options = StoreOptions { url, max_connections: 1, acquire_timeout: Duration::from_secs(1) };
    for failed in [Store::connect(options.clone()).await.map(drop), Store::migrate(&options).await.map(drop)] {
        let Err(error @ StoreError::Unavailable(_)) = failed else { panic!("unreachable is unavailable: {failed:?}") };
        let told = error.to_string();
        assert!(told.contains("cannot connect to 127.0.0.1:1/oxcart") && !told.contains("secret"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_in_memory_are_apart_and_shared_by_clones() {
    let (a, b) = (Fixture::new(Database::SqliteMemory).await, Fixture::new(Database::SqliteMemory).await);
    let id = a.submit_one(task()).await;
    assert_eq!(a.store.clone().load(&[id]).await.expect("load").len(), 1);
    assert!(b.load(&[id]).await.expect("load").is_empty());
}

#[rstest]
#[case("postgres://localhost/x")]
#[case("nonsense")]
#[case("mysql://localhost")]
#[case("sqlite:")]
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_url_is_told_and_not_quoted(#[case] url: &str) {
    let options = StoreOptions { url: url.to_owned(), max_connections: 1, acquire_timeout: Duration::from_secs(1) };
    for error in [Store::connect(options.clone()).await.err(), Store::migrate(&options).await.err()] {
        let error = error.expect("an error");
        assert!(matches!(error, StoreError::Configuration(_)), "{error:?}");
        assert!(!error.to_string().contains("//localhost"), "{error}");
    }
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let look = || async { holds().await.then_some(()) };
    wait_for(what, Duration::from_secs(20), look).await.expect("a condition");
}

/// Steps of every kind, so that each is dropped somewhere.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_leaves_nothing_open(
    #[values(Database::MariaDb, Database::SqliteFile, Database::SqliteMemory)] database: Database,
) {
    let store = Fixture::new(database).await;
    for micros in (0..4000).step_by(100) {
        let new = task();
        let id = new.spec.id;
        let starting = [start(id, 1)];
        let steps = async {
            store.submit(vec![unit(vec![new])], handoff(), at(0)).await.expect("submit");
            store.get_one(id).await;
            store.start(&starting, at(1)).await.expect("start");
            store.end(&[end(id, 1, starting[0].token, EndKind::Retry)], at(2)).await.expect("end");
            store.close(&close(id, EndKind::Cancelled)).await.expect("close");
        };
        // Dropped wherever it stands; that it may also finish is part of the test.
        let _ = tokio::time::timeout(Duration::from_micros(micros), steps).await;
    }
    // Whatever was in flight ends by itself, and every connection works.
    let ids = store.submit_one(task()).await;
    let all = (0..16).map(|_| {
        let store = store.store.clone();
        tokio::spawn(async move { store.load(&[ids]).await })
    });
    for load in all.collect::<Vec<_>>() {
        assert_eq!(load.await.expect("a task").expect("load").len(), 1);
    }
    if database == Database::MariaDb {
        let server = MariaDbServer::shared().await.expect("a server");
        let schema = store.options.url.rsplit_once('/').expect("a database").1;
        let open = format!(
            "SELECT COUNT(*) FROM information_schema.innodb_trx t JOIN information_schema.processlist p \
             ON p.id = t.trx_mysql_thread_id WHERE p.db = '{schema}'"
        );
        until("no transaction is open", async || server.execute(&open).await.expect("query").trim() == "0").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_waits_for_a_connection_only_so_long() {
    let fixture = Fixture::new(Database::MariaDb).await;
    let id = fixture.submit_one(task()).await;
    let options = StoreOptions { max_connections: 1, acquire_timeout: Duration::from_millis(50), ..fixture.options.clone() };
    let store = Store::connect(options).await.expect("connect");
    let server = MariaDbServer::shared().await.expect("a server");
    let schema = fixture.options.url.rsplit_once('/').expect("a database").1.to_owned();
    // Another session holds the tasks, so that the only connection waits in a start.
    let hold = format!("USE {schema}; START TRANSACTION; SELECT id FROM tasks FOR UPDATE; SELECT SLEEP(2); COMMIT");
    let held = tokio::spawn(async move { server.execute(&hold).await });
    let locked = async || {
        let sessions = server.execute("SHOW PROCESSLIST").await.expect("query");
        sessions.lines().any(|line| line.contains(&schema) && line.contains("SLEEP"))
    };
    until("the tasks are held", locked).await;
    let starting = [start(id, 1)];
    let starter = store.clone();
    let blocked = tokio::spawn(async move { starter.start(&starting, at(1)).await });
    let busy = async || matches!(store.ping().await, Err(StoreError::Busy));
    until("the only connection is taken", busy).await;
    let [pool] = store.pools()[..] else { panic!("one pool: {:?}", store.pools()) };
    assert_eq!((pool.pool, pool.size, pool.in_use, pool.waiting), ("all", 1, 1, 0));
    assert!(pool.timed_out > 0 && pool.waited >= Duration::from_millis(50), "{pool:?}");
    held.await.expect("a task").expect("held");
    blocked.await.expect("a task").expect("start");
    let [free] = store.pools()[..] else { panic!("one pool: {:?}", store.pools()) };
    assert_eq!((free.in_use, free.waiting, free.timed_out), (0, 0, pool.timed_out));
    assert_eq!(fixture.state(id).await, TaskState::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_database_is_told_and_comes_back() {
    // A server of its own, since it is killed.
    let server = MariaDbServer::start().await.expect("a server");
    let url = server.create_database().await.expect("a database");
    let options = StoreOptions { url, max_connections: 2, acquire_timeout: Duration::from_secs(5) };
    Store::migrate(&options).await.expect("migrate");
    let store = Store::connect(options.clone()).await.expect("connect");
    let committed = task();
    let id = committed.spec.id;
    store.submit(vec![unit(vec![committed])], handoff(), at(0)).await.expect("submit");

    server.process().kill().expect("kill");
    for _ in 0..3 {
        assert!(matches!(store.load(&[id]).await, Err(StoreError::Unavailable(_))));
        let started = store.start(&[start(id, 1)], at(1)).await;
        assert!(matches!(started, Err(StoreError::Unavailable(_))), "{started:?}");
    }
    assert!(matches!(Store::connect(options).await, Err(StoreError::Unavailable(_))));
    server.restart().await.expect("restart");
    until("the store answers again", async || store.ping().await.is_ok()).await;
    assert_eq!(store.load(&[id]).await.expect("load").len(), 1, "what was acknowledged is there");
}
