//! Records, chains and lists.

use oxcart_store::{StoreError, TaskFilter};
use oxcart_types::{EndKind, Payload, TaskId, TaskState, WorkerId, chain::StartKind, record::View};
use rstest::rstest;

use crate::support::{Database, Fixture, at, attempts, close, end, run, task, task_id, task_with, unit};

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn records_come_in_the_order_asked(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let (a, b) = (store.submit_one(task()).await, store.ended(EndKind::Succeeded).await);
    let records = store.get(&[b, task_id(), a, b], View::Basic).await.expect("get");
    let ids: Vec<_> = records.iter().map(|record| record.as_ref().map(|record| record.spec.id)).collect();
    assert_eq!(ids, [Some(b), None, Some(a), Some(b)]);
    let basic = records[0].as_ref().expect("a task");
    assert_eq!((basic.spec.payload.clone(), basic.result.clone(), basic.runs.len()), (Payload::null(), None, 0));
    let full = store.get_one(b).await;
    assert_eq!(full.spec.payload.as_bytes(), b"{\"to\":1}");
    assert_eq!((full.worker, full.started_at, full.ended_at), (Some(WorkerId::from_bytes([7; 16])), Some(at(1)), Some(at(2))));
    assert_eq!(basic.etag(), full.etag());
    assert!(store.get(&[], View::Full).await.expect("get").is_empty());
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn standings_tell_open_and_ended_tasks_apart(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let (waiting, released) = (store.submit_one(task()).await, store.ended_released().await);
    let (running, _) = store.running().await;
    let ended = store.ended(EndKind::Succeeded).await;
    let standings = store.standings(&[ended, waiting, task_id(), running, released]).await.expect("read");
    let told = |id| standings.get(&id).map(|one| (one.task.entry.run, one.terminal(), one.ended_at));
    assert_eq!(told(waiting), Some((run(1), None, None)));
    assert_eq!(told(running), Some((run(1), None, None)));
    assert_eq!(told(released), Some((run(2), None, Some(at(2)))));
    assert_eq!(told(ended), Some((run(1), Some(EndKind::Succeeded), Some(at(2)))));
    assert_eq!(standings.len(), 4, "an unknown task is left out");
    assert!(standings[&running].task.started_at.is_some() && standings[&waiting].task.started_at.is_none());
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_chain_is_the_history_of_its_task(
    #[values(Database::MariaDb, Database::SqliteFile, Database::SqliteMemory)] database: Database,
) {
    let store = Fixture::new(database).await;
    let id = store.submit_one(task_with(|spec| spec.retry = attempts(100))).await;
    for number in 1..=60 {
        let token = store.begin(id, number, at(20)).await;
        store.end_one(end(id, number, token, EndKind::Retry), at(21)).await;
    }
    store.close(&close(id, EndKind::Cancelled)).await.expect("close");
    let record = store.get_one(id).await;
    assert_eq!((record.state, record.head.latest.expect("a run").run), (TaskState::Cancelled, run(61)));
    let numbers: Vec<u32> = record.runs.iter().map(|link| link.run.get()).collect();
    assert_eq!(numbers, (12..=61).collect::<Vec<_>>());
    let last = record.runs.last().expect("a run");
    assert_eq!((last.kind, last.worker, last.attempt), (StartKind::Closer, None, 60));
    let page = store.runs(id, Some(run(58)), 2).await.expect("runs").expect("a task");
    assert_eq!(page, record.runs[47..49]);
    let link = page[0].end.as_ref().expect("an end");
    assert_eq!((link.kind, link.at, link.next_run_at), (EndKind::Retry, at(21), Some(at(10))));
    assert_eq!(link.failure.as_ref().expect("a failure").detail, "line 1");
    assert_eq!(store.runs(task_id(), None, 2).await.expect("runs"), None);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn the_latest_failure_is_shown_until_a_success(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let (id, token) = store.running().await;
    store.end_one(end(id, 1, token, EndKind::Retry), at(2)).await;
    let record = store.get_one(id).await;
    assert_eq!((record.state, record.next_run_at), (TaskState::Retrying, Some(at(10))));
    assert_eq!(record.failure.expect("a failure").kind.as_str(), "SMTP");
    let token = store.begin(id, 2, at(10)).await;
    assert_eq!(store.get_one(id).await.failure.expect("a failure").detail, "line 1");
    store.end_one(end(id, 2, token, EndKind::Succeeded), at(11)).await;
    assert_eq!(store.get_one(id).await.failure, None);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn lists_are_filtered_and_paged(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let done = store.ended(EndKind::Succeeded).await;
    let failed = store.ended(EndKind::Failed).await;
    let tagged = store.submit_one(task_with(|spec| spec.tags = vec!["vip".parse().expect("a tag")])).await;
    let other = store
        .submit_one(task_with(|spec| {
            spec.queue = "other".parse().expect("a queue");
            spec.name = "report".parse().expect("a name");
        }))
        .await;
    let mut young = task();
    young.created_at = at(60);
    let young = store.submit_one(young).await;
    let list = async |filter: TaskFilter| -> Vec<TaskId> {
        let page = store.list(&filter, None, 10).await.expect("list");
        assert_eq!(page.next_before, None);
        page.tasks.iter().map(|task| task.spec.id).collect()
    };
    let filter = TaskFilter::default;
    assert_eq!(list(filter()).await, [young, other, tagged, failed, done]);
    assert_eq!(list(TaskFilter { states: vec![TaskState::Succeeded, TaskState::Failed], ..filter() }).await, [failed, done]);
    assert_eq!(list(TaskFilter { states: vec![TaskState::Pending, TaskState::Failed], ..filter() }).await.len(), 4);
    assert_eq!(list(TaskFilter { states: vec![TaskState::Expired], ..filter() }).await, []);
    assert_eq!(list(TaskFilter { tag: "vip".parse().ok(), ..filter() }).await, [tagged]);
    assert_eq!(list(TaskFilter { queue: "other".parse().ok(), ..filter() }).await, [other]);
    assert_eq!(list(TaskFilter { name: "report".parse().ok(), ..filter() }).await, [other]);
    assert_eq!(list(TaskFilter { worker: Some(WorkerId::from_bytes([7; 16])), ..filter() }).await, [failed, done]);
    assert_eq!(list(TaskFilter { failure_kind: Some("SMTP".to_owned()), ..filter() }).await, [failed]);
    assert_eq!(list(TaskFilter { created_from: Some(at(60)), ..filter() }).await, [young]);
    assert_eq!(list(TaskFilter { created_before: Some(at(60)), ..filter() }).await.len(), 4);

    let mut seen = Vec::new();
    let mut before = None;
    loop {
        let page = store.list(&filter(), before, 2).await.expect("list");
        seen.extend(page.tasks.iter().map(|task| task.spec.id));
        before = page.next_before;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(seen, [young, other, tagged, failed, done]);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn one_call_looks_at_a_bounded_number_of_rows(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let wanted = store.submit_one(task_with(|spec| spec.queue = "other".parse().expect("a queue"))).await;
    let tasks: Vec<_> = (0..2100).map(|_| task()).collect();
    store.submit_units(vec![unit(tasks)]).await;
    let filter = TaskFilter { queue: "other".parse().ok(), ..TaskFilter::default() };
    let page = store.list(&filter, None, 10).await.expect("list");
    assert!(page.tasks.is_empty());
    let page = store.list(&filter, page.next_before, 10).await.expect("list");
    assert_eq!(page.tasks.iter().map(|task| task.spec.id).collect::<Vec<_>>(), [wanted]);
    assert_eq!(page.next_before, None);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_row_is_told_and_not_panicked_over(#[values(Database::MariaDb)] database: Database) {
    let store = Fixture::new(database).await;
    let id = store.submit_one(task()).await;
    let schema = store.options.url.rsplit_once('/').expect("a database").1.to_owned();
    let server = oxcart_testkit::MariaDbServer::shared().await.expect("a server");
    server.execute(&format!("UPDATE {schema}.tasks SET priority = 77")).await.expect("spoil");
    assert!(matches!(store.get(&[id], View::Basic).await, Err(StoreError::Corrupt(_))));
    assert!(matches!(store.load(&[id]).await, Err(StoreError::Corrupt(_))));
}
