//! Retention: what ended long ago goes, with all that belongs to it, and nothing else does.

use std::time::Duration;

use oxcart_store::{DeleteOutcome, Live, ReplayOutcome, RetentionStep, UnitOutcome, View};
use oxcart_types::{EndKind, Idempotency, IdempotencyPolicy, Payload, TaskId, TaskState};
use rstest::rstest;

use crate::support::{Database, Fixture, at, cancel, close, end, handoff, replay, run, task, task_with, unit};

/// Everything that ended before second 100.
fn step() -> RetentionStep {
    RetentionStep {
        after: None,
        below: TaskId::from_bytes([0xff; 16]),
        succeeded_before: Some(at(100)),
        others_before: Some(at(100)),
        limit: 500,
    }
}

async fn there(store: &Fixture, ids: &[TaskId]) -> Vec<bool> {
    store.get(ids, View::Basic).await.expect("get").iter().map(Option::is_some).collect()
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn what_ended_long_ago_goes_with_all_that_is_its_own(
    #[values(Database::MariaDb, Database::SqliteFile, Database::SqliteMemory)] database: Database,
) {
    let store = Fixture::new(database).await;
    let full = task_with(|spec| {
        spec.tags = vec!["t".parse().expect("a tag")];
        spec.expires_at = Some(at(50));
    });
    let id = store.submit_one(full).await;
    let token = store.begin(id, 1, at(1)).await;
    let live = Live { task: id, run: run(1), progress: None, checkpoint: Some(Payload::null()) };
    store.set_live(&[live], at(2)).await.expect("live");
    store.request_cancel(id, &cancel()).await.expect("cancel");
    store.end_one(end(id, 1, token, EndKind::Failed), at(3)).await;
    store.replay_one(replay(id), at(4)).await;
    store.close(&close(id, EndKind::Cancelled)).await.expect("closed");
    let dropped = store.drop_finished(step()).await.expect("dropped");
    assert_eq!((dropped.tasks, dropped.next_after), (1, None));
    assert_eq!(there(&store, &[id]).await, [false]);
    assert_eq!(store.runs(id, None, 10).await.expect("runs"), None);
    assert!(store.cancels(&[id]).await.expect("cancels").is_empty());
    assert!(store.claim_agenda(at(999), at(1000), 10).await.expect("claim").is_empty());
    // A task of the same id would find nothing of the old one.
    assert_eq!(store.submit_one(task_with(|spec| spec.id = id)).await, id);
    let record = store.get_one(id).await;
    assert_eq!((record.state, record.runs.len(), record.cancel), (TaskState::Pending, 0, None));
    assert!(store.walk_replays(None, at(999), 10).await.expect("a walk").open.is_empty());
    assert_eq!(store.drop_finished(step()).await.expect("dropped").tasks, 0);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_or_ended_lately_stays(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let (waiting, (running, _)) = (store.submit_one(task()).await, store.running().await);
    let (retrying, token) = store.running().await;
    store.end_one(end(retrying, 1, token, EndKind::Retry), at(2)).await;
    let replayed = store.ended(EndKind::Failed).await;
    store.replay_one(replay(replayed), at(20)).await;
    let (late, token) = store.running().await;
    store.end_one(end(late, 1, token, EndKind::Failed), at(100)).await;
    let (succeeded, failed) = (store.ended(EndKind::Succeeded).await, store.ended(EndKind::Failed).await);
    let young = store.ended(EndKind::Failed).await;
    let all = [waiting, running, retrying, replayed, late, succeeded, failed, young];
    let kept = RetentionStep { succeeded_before: None, below: young, ..step() };
    assert_eq!(store.drop_finished(kept).await.expect("dropped").tasks, 1);
    assert_eq!(there(&store, &all).await, [true, true, true, true, true, true, false, true]);
    let succeeded_only = RetentionStep { others_before: None, ..step() };
    assert_eq!(store.drop_finished(succeeded_only).await.expect("dropped").tasks, 1);
    assert_eq!(there(&store, &all).await, [true, true, true, true, true, false, false, true]);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_walk_goes_in_steps_over_what_stays(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        store.ended(EndKind::Succeeded).await;
        open.push(store.submit_one(task()).await);
        store.ended(EndKind::Failed).await;
    }
    let (mut next, mut steps, mut dropped) = (RetentionStep { limit: 2, ..step() }, 0, 0);
    loop {
        let step = store.drop_finished(next).await.expect("dropped");
        assert!(step.tasks <= 2);
        (steps, dropped, next.after) = (steps + 1, dropped + step.tasks, step.next_after);
        if next.after.is_none() {
            break;
        }
    }
    assert_eq!((steps, dropped), (5, 6));
    assert_eq!(there(&store, &open).await, [true, true, true]);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_outlives_its_task(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let keyed = || {
        task_with(|spec| {
            let ttl = Duration::from_secs(1000);
            spec.idempotency = Some(Idempotency { key: "k".to_owned(), policy: IdempotencyPolicy::ReturnExisting, ttl });
        })
    };
    let id = store.submit_one(keyed()).await;
    store.close(&close(id, EndKind::Cancelled)).await.expect("closed");
    assert_eq!(store.drop_finished(step()).await.expect("dropped").tasks, 1);
    let again = store.submit_units(vec![unit(vec![keyed()])]).await;
    let [UnitOutcome::Accepted(accepted)] = again.as_slice() else { panic!("{again:?}") };
    assert_eq!((accepted[0].id, accepted[0].deduplicated), (id, true), "the work was done, and is not done again");
}

/// A replay opens the task again, or finds it gone: never does an open task go.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_replayed_or_dropped(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    for _ in 0..30 {
        let id = store.ended(EndKind::Failed).await;
        let wanted = [replay(id)];
        let (replayed, dropped) = tokio::join!(store.replay(&wanted, handoff(), at(20)), store.drop_finished(step()));
        let dropped = dropped.expect("dropped").tasks;
        match replayed.expect("replay").remove(0) {
            ReplayOutcome::Replayed(_) => assert_eq!((dropped, there(&store, &[id]).await), (0, vec![true])),
            ReplayOutcome::NoTask => assert_eq!((dropped, there(&store, &[id]).await), (1, vec![false])),
            other => panic!("{other:?}"),
        }
        store.close(&close(id, EndKind::Cancelled)).await.expect("closed");
        assert!(matches!(store.delete(id).await.expect("delete"), DeleteOutcome::Deleted | DeleteOutcome::NoTask));
    }
}
