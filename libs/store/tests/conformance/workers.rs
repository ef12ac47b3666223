//! Workers, cursors, and the end of keys.

use std::time::Duration;

use oxcart_store::{SubmitUnit, WorkerRow};
use oxcart_types::{Idempotency, IdempotencyPolicy, RequestId, WorkerId};
use rstest::rstest;

use crate::support::{Database, Fixture, at, task, task_with, unit};

fn worker(number: u8, seen: i64) -> WorkerRow {
    WorkerRow {
        id: WorkerId::from_bytes([number; 16]),
        seen_at: at(seen),
        first_seen_at: at(seen),
        stopped: false,
        info: vec![number, 0, 255],
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn workers_are_kept_as_last_heard_of(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    store.put_workers(&[worker(2, 1), worker(1, 1), worker(3, 5)]).await.expect("put");
    let again = WorkerRow { stopped: true, info: vec![9], ..worker(2, 7) };
    store.put_workers(std::slice::from_ref(&again)).await.expect("put");
    let kept = WorkerRow { first_seen_at: at(1), ..again };
    assert_eq!(store.workers(None, None, 9).await.expect("list"), [worker(1, 1), kept.clone(), worker(3, 5)]);
    assert_eq!(store.workers(Some(worker(1, 1).id), None, 1).await.expect("list"), std::slice::from_ref(&kept));
    assert_eq!(store.workers(None, Some(at(5)), 9).await.expect("list"), [kept.clone(), worker(3, 5)]);
    store.forget_workers(at(7)).await.expect("forget");
    assert_eq!(store.workers(None, None, 9).await.expect("list"), [kept]);
    store.put_workers(&[]).await.expect("put nothing");
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn cursors_are_kept(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    assert_eq!(store.cursor("audit").await.expect("read"), None);
    for value in ["1", "2 ü"] {
        store.set_cursor("audit", value).await.expect("write");
        assert_eq!(store.cursor("audit").await.expect("read").as_deref(), Some(value));
    }
    assert_eq!(store.cursor("Audit").await.expect("read"), None, "names are told apart by case");
    assert!(store.set_cursor(&"n".repeat(129), "x").await.is_err());
    store.ping().await.expect("ping");
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn keys_are_forgotten_when_they_expire(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    for seconds in [10, 20, 30] {
        let key = Idempotency { key: format!("k{seconds}"), policy: IdempotencyPolicy::Reject, ttl: Duration::from_secs(seconds) };
        store.submit_one(task_with(|spec| spec.idempotency = Some(key))).await;
    }
    let request = Some((RequestId::from_bytes([1; 16]), at(15)));
    store.submit_units(vec![SubmitUnit { request, ..unit(vec![task()]) }]).await;
    assert_eq!(store.forget_keys(at(10), 9).await.expect("forget"), 0);
    assert_eq!(store.forget_keys(at(21), 2).await.expect("forget"), 2);
    assert_eq!(store.forget_keys(at(21), 2).await.expect("forget"), 1);
    assert_eq!(store.forget_keys(at(21), 2).await.expect("forget"), 0);
    assert_eq!(store.forget_keys(at(99), 9).await.expect("forget"), 1);
}
