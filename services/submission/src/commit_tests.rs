//! Group commit, on a database in memory and without a dispatcher.

use std::time::Duration;

use futures_util::future::join_all;
use oxcart_proto::{
    convert::spec::{SpecContext, task_spec},
    pb::common::v1::{Payload, TaskSpec, payload::Content},
};
use oxcart_service::local;
use oxcart_store::{Conflict, StoreOptions};
use oxcart_types::{Limits, SystemClock, SystemIds, TaskId};

use super::*;
use crate::dispatcher::Dispatcher;

async fn store() -> Store {
    let acquire_timeout = Duration::from_secs(5);
    let options = StoreOptions { url: "sqlite::memory:".to_owned(), max_connections: 1, acquire_timeout };
    Store::connect(options).await.expect("a store")
}

fn committer(config: &Config, store: &Store) -> (Committer, Meters) {
    let (clock, meters) = (Arc::new(SystemClock), Meters::register(&oxcart_service::Metrics::new()));
    let (nobody, _) = local::transport();
    let dispatcher = Dispatcher::new(nobody.channel(), config.dispatcher_timeout);
    let handoffs = Handoffs::spawn(config, store.clone(), dispatcher, clock.clone(), meters.clone());
    let deps = CommitDeps { store: store.clone(), clock, ids: Arc::new(SystemIds), handoffs, meters: meters.clone() };
    (Committer::spawn(config, deps), meters)
}

/// A call that submits one task under this id, whose body is this number.
fn call(id: TaskId, body: u32) -> SubmitUnit {
    let now = SystemClock.now();
    let payload = Some(Payload { content: Some(Content::Json(body.to_string())), ..Payload::default() });
    let spec = TaskSpec { task_name: "echo".to_owned(), task_id: id.to_string(), payload, ..TaskSpec::default() };
    let context = SpecContext { limits: &Limits::default(), now, ids: &SystemIds };
    let (spec, id_chosen) = task_spec(spec, &context).expect("a good task");
    SubmitUnit { tasks: vec![NewTask { digest: spec.digest(), spec, id_chosen, created_at: now, set_aside: None }], request: None }
}

// On one thread all calls wait before the loop looks, so that they are one batch.
#[tokio::test]
async fn the_conflict_of_one_caller_refuses_only_that_caller() {
    let store = store().await;
    let (committer, meters) = committer(&Config::default(), &store);
    let ids: Vec<TaskId> = (0..3).map(|_| SystemIds.task_id()).collect();
    committer.commit(call(ids[1], 0)).await.expect("new");
    let calls = ids.iter().map(|id| committer.commit(call(*id, 1)));
    let answers = join_all(calls).await;
    assert_eq!(meters.commits.get(), 2, "all three were one commit");
    for (answer, id) in answers.iter().zip(&ids) {
        match answer {
            Ok(accepted) => assert_eq!((accepted.len(), accepted[0].id, *id == ids[1]), (1, *id, false)),
            Err(Error::Conflict(Conflict::TaskIdTaken { id: taken, .. })) => assert_eq!((*taken, *id), (ids[1], ids[1])),
            Err(other) => panic!("{id}: {other}"),
        }
    }
    assert_eq!(meters.committed.get(), 3);
    assert_eq!(store.load(&ids).await.expect("read").len(), 3);
}

#[tokio::test]
async fn a_call_is_not_split_and_a_commit_is_bounded() {
    let store = store().await;
    let (committer, meters) = committer(&Config { commit_tasks: 4, ..Config::default() }, &store);
    let call_of =
        |tasks: usize| SubmitUnit { tasks: (0..tasks).flat_map(|_| call(SystemIds.task_id(), 0).tasks).collect(), request: None };
    let answers = join_all([3, 1, 2, 5].map(|tasks| committer.commit(call_of(tasks)))).await;
    assert_eq!(answers.iter().map(|answer| answer.as_ref().map_or(0, Vec::len)).collect::<Vec<_>>(), [3, 1, 2, 5]);
    assert_eq!(meters.commits.get(), 3, "3 and 1, then 2, then 5");
}

#[tokio::test]
async fn what_does_not_fit_into_the_room_is_refused_at_once() {
    let store = store().await;
    let waiting_tasks = Limits::BATCH_ITEMS;
    let (committer, _) = committer(&Config { waiting_tasks, ..Config::default() }, &store);
    let calls = (0..=waiting_tasks).map(|_| committer.commit(call(SystemIds.task_id(), 0)));
    let answers = join_all(calls).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), waiting_tasks);
    assert!(matches!(answers.last(), Some(Err(Error::Busy))));
}

/// A call with one task, whose payload has this many bytes.
fn large(bytes: usize) -> SubmitUnit {
    let mut unit = call(SystemIds.task_id(), 0);
    unit.tasks[0].spec.payload = oxcart_types::Payload::from_stored("application/octet-stream".to_owned(), vec![0; bytes]);
    unit
}

#[tokio::test]
async fn bytes_are_bounded_as_tasks_are() {
    let store = store().await;
    let config = Config { waiting_bytes: Limits::MESSAGE_BYTES, commit_bytes: Limits::MESSAGE_BYTES / 2, ..Config::default() };
    let (committer, meters) = committer(&config, &store);
    let quarter = Limits::MESSAGE_BYTES / 4;
    let answers = join_all((0..5).map(|_| committer.commit(large(quarter)))).await;
    assert_eq!(answers.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, true, true, true, false]);
    assert!(matches!(answers.last(), Some(Err(Error::Busy))));
    assert_eq!(meters.commits.get(), 2, "two quarters a commit");
    committer.commit(large(Limits::MESSAGE_BYTES)).await.expect("the largest finds its place when it is alone");
}

#[tokio::test]
async fn a_single_writer_gets_one_commit_at_a_time() {
    let config = Config { commit_lanes: 3, ..Config::default() };
    assert_eq!(lanes(&config, &store().await), 1);
}
