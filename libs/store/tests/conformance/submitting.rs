//! Submission: group commits, ids, request ids, idempotency keys.

use std::time::Duration;

use oxcart_store::{Accepted, Conflict, NewTask, SubmitUnit, UnitOutcome};
use oxcart_types::{EndKind, Idempotency, IdempotencyPolicy, RequestId, TaskId, TaskState};
use rstest::rstest;

use crate::support::{Database, Fixture, accepted, at, deduplicated, handoff, new_task, run, task, task_id, task_with, unit};

fn chosen(mut task: NewTask) -> NewTask {
    task.id_chosen = true;
    task
}

fn keyed(policy: IdempotencyPolicy, name: &str) -> NewTask {
    task_with(|spec| {
        spec.name = name.parse().expect("a name");
        spec.idempotency = Some(Idempotency { key: "k".to_owned(), policy, ttl: Duration::from_secs(100) });
    })
}

/// The same request under another id.
fn again(task: &NewTask) -> NewTask {
    let mut spec = task.spec.clone();
    spec.id = task_id();
    new_task(spec)
}

fn key_taken(holder: TaskId) -> UnitOutcome {
    UnitOutcome::Refused(Conflict::KeyTaken { index: 0, key: "k".to_owned(), holder })
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_refuses_its_unit_alone(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let taken = chosen(task());
    store.submit_one(taken.clone()).await;
    let mut other = taken.clone();
    other.spec.name = "other".parse().expect("a name");
    other.digest = other.spec.digest();
    let (a, b, dragged_down) = (task(), task(), task());
    let (a_id, b_id, dragged_id) = (a.spec.id, b.spec.id, dragged_down.spec.id);
    let outcomes = store.submit_units(vec![unit(vec![a]), unit(vec![dragged_down, other]), unit(vec![b])]).await;
    let conflict = Conflict::TaskIdTaken { index: 1, id: taken.spec.id };
    assert_eq!(outcomes, [accepted(&[a_id]), UnitOutcome::Refused(conflict), accepted(&[b_id])]);
    assert!(store.load(&[dragged_id]).await.expect("load").is_empty());
    assert_eq!(store.load(&[a_id, b_id]).await.expect("load").len(), 2);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_finds_what_was_committed(
    #[values(Database::MariaDb, Database::SqliteFile, Database::SqliteMemory)] database: Database,
    #[values(true, false)] id_chosen: bool,
) {
    let store = Fixture::new(database).await;
    let mut tasks = vec![task_with(|spec| spec.tags = vec!["x".parse().expect("a tag")]), task()];
    tasks.iter_mut().for_each(|task| task.id_chosen = id_chosen);
    let ids: Vec<TaskId> = tasks.iter().map(|task| task.spec.id).collect();
    let outbox = handoff();
    let first = store.submit(vec![unit(tasks.clone())], outbox, at(0)).await.expect("submit");
    assert_eq!(first, [accepted(&ids)]);
    let second = store.submit(vec![unit(tasks)], outbox, at(0)).await.expect("submit");
    assert_eq!(second, [deduplicated(&ids)]);
    assert_eq!(store.count_unconfirmed(10).await.expect("count"), 2);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_remembers_its_answer(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let request = RequestId::from_bytes([9; 16]);
    let call = |tasks: Vec<NewTask>| vec![SubmitUnit { tasks, request: Some((request, at(100))) }];
    let (first, second) = (task(), task_with(|spec| spec.queue = "other".parse().expect("a queue")));
    let ids = [first.spec.id, second.spec.id];
    assert_eq!(store.submit_units(call(vec![first.clone(), second.clone()])).await, [accepted(&ids)]);
    let repeated = call(vec![again(&first), again(&second)]);
    assert_eq!(store.submit_units(repeated).await, [deduplicated(&ids)]);
    for other in [vec![again(&first)], vec![again(&first), again(&first)]] {
        let refused = UnitOutcome::Refused(Conflict::RequestReused { request });
        assert_eq!(store.submit_units(call(other)).await, [refused]);
    }
    let anew = again(&first);
    let id = anew.spec.id;
    let units = vec![SubmitUnit { tasks: vec![anew], request: Some((request, at(300))) }];
    let after_its_life = store.submit(units, handoff(), at(100)).await.expect("submit");
    assert_eq!(after_its_life, [accepted(&[id])]);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_key_answers_with_its_holder_or_refuses(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let first = keyed(IdempotencyPolicy::ReturnExisting, "a");
    let holder = store.submit_one(first.clone()).await;
    assert_eq!(store.submit_units(vec![unit(vec![again(&first)])]).await, [deduplicated(&[holder])]);
    let other = keyed(IdempotencyPolicy::ReturnExisting, "b");
    assert_eq!(store.submit_units(vec![unit(vec![other])]).await, [key_taken(holder)]);
    let reject = keyed(IdempotencyPolicy::Reject, "a");
    assert_eq!(store.submit_units(vec![unit(vec![reject])]).await, [key_taken(holder)]);
    // The key lives 100 s from its submission, however often it is asked for.
    let late = again(&first);
    let id = late.spec.id;
    let outcomes = store.submit(vec![unit(vec![late])], handoff(), at(100)).await.expect("submit");
    assert_eq!(outcomes, [accepted(&[id])]);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_is_not_in_its_own_way(
    #[values(Database::MariaDb, Database::SqliteFile)] database: Database,
    #[values(IdempotencyPolicy::ReturnExisting, IdempotencyPolicy::Reject, IdempotencyPolicy::Replace)] policy: IdempotencyPolicy,
    #[values(true, false)] id_chosen: bool,
) {
    let store = Fixture::new(database).await;
    let mut task = keyed(policy, "a");
    task.id_chosen = id_chosen;
    let id = store.submit_one(task.clone()).await;
    assert_eq!(store.submit_units(vec![unit(vec![task])]).await, [deduplicated(&[id])]);
    assert_eq!(store.state(id).await, TaskState::Pending);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn one_commit_sees_its_own_keys_and_ids(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let first = keyed(IdempotencyPolicy::ReturnExisting, "a");
    let holder = first.spec.id;
    let chosen = chosen(task());
    let chosen_id = chosen.spec.id;
    let units = vec![
        unit(vec![first.clone()]),
        unit(vec![again(&first)]),
        unit(vec![keyed(IdempotencyPolicy::Replace, "b")]),
        unit(vec![chosen.clone()]),
        unit(vec![chosen]),
    ];
    let expected =
        [accepted(&[holder]), deduplicated(&[holder]), key_taken(holder), accepted(&[chosen_id]), deduplicated(&[chosen_id])];
    assert_eq!(store.submit_units(units).await, expected);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_holder_is_replaced_until_it_starts(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let first = store.submit_one(keyed(IdempotencyPolicy::Replace, "a")).await;
    let second = keyed(IdempotencyPolicy::Replace, "b");
    let outcome = |id, replaced| [UnitOutcome::Accepted(vec![Accepted { id, deduplicated: false, replaced, cancelled: false }])];
    let replaced = Some((first, run(1)));
    assert_eq!(store.submit_units(vec![unit(vec![second.clone()])]).await, outcome(second.spec.id, replaced));
    assert_eq!(store.state(first).await, TaskState::Cancelled);
    store.begin(second.spec.id, 1, at(1)).await;
    let third = keyed(IdempotencyPolicy::Replace, "c");
    assert_eq!(store.submit_units(vec![unit(vec![third.clone()])]).await, [key_taken(second.spec.id)]);
    assert_eq!(store.state(second.spec.id).await, TaskState::Running);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_or_deleted_holder_makes_room(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let first = store.submit_one(keyed(IdempotencyPolicy::Replace, "a")).await;
    store.close(&crate::support::close(first, EndKind::Cancelled)).await.expect("close");
    let second = store.submit_one(keyed(IdempotencyPolicy::Replace, "b")).await;
    let token = store.begin(second, 1, at(1)).await;
    store.end_one(crate::support::end(second, 1, token, EndKind::Succeeded), at(2)).await;
    store.delete(second).await.expect("delete");
    // The key outlives its task: it still refuses, and it may still be replaced.
    let reject = keyed(IdempotencyPolicy::Reject, "c");
    assert_eq!(store.submit_units(vec![unit(vec![reject])]).await, [key_taken(second)]);
    store.submit_one(keyed(IdempotencyPolicy::Replace, "c")).await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_want_a_key_one_gets_it(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let tasks: Vec<NewTask> = (0..12).map(|_| keyed(IdempotencyPolicy::ReturnExisting, "a")).collect();
    let submits = tasks.iter().map(|keyed| {
        let (store, keyed, plain) = (store.store.clone(), keyed.clone(), task());
        tokio::spawn(async move { store.submit(vec![unit(vec![plain]), unit(vec![keyed])], handoff(), at(0)).await })
    });
    let submits: Vec<_> = submits.collect();
    let mut holders = Vec::new();
    let mut new = 0;
    for submit in submits {
        let outcomes = submit.await.expect("a task").expect("submit");
        let UnitOutcome::Accepted(accepted) = &outcomes[1] else { panic!("{outcomes:?}") };
        holders.push(accepted[0].id);
        new += usize::from(!accepted[0].deduplicated);
    }
    assert_eq!(new, 1);
    assert!(holders.iter().all(|holder| *holder == holders[0]), "{holders:?}");
    let ids: Vec<TaskId> = tasks.iter().map(|task| task.spec.id).collect();
    assert_eq!(store.load(&ids).await.expect("load").len(), 1);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_large_commit_is_one_commit(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let large = "x".repeat(200 * 1024);
    let limits = oxcart_types::Limits::default();
    let payload = oxcart_types::Payload::json(format!("\"{large}\""), &limits).expect("JSON");
    let mut tasks: Vec<NewTask> = (0..1100).map(|_| task()).collect();
    tasks.extend((0..30).map(|_| task_with(|spec| spec.payload = payload.clone())));
    let ids: Vec<TaskId> = tasks.iter().map(|task| task.spec.id).collect();
    assert_eq!(store.submit_units(vec![unit(tasks)]).await, [accepted(&ids)]);
    assert_eq!(store.load(&ids).await.expect("load").len(), 1130);
    assert_eq!(store.stale_handoffs(at(1), 10).await.expect("stale").len(), 1);
    assert_eq!(store.count_unconfirmed(10).await.expect("count"), 1130);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_refused_and_nothing_stored(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let mut long_key = keyed(IdempotencyPolicy::ReturnExisting, "a");
    long_key.spec.idempotency.as_mut().expect("a key").key = "k".repeat(129);
    let fine = task();
    let id = fine.spec.id;
    let refused = store.submit(vec![unit(vec![fine]), unit(vec![long_key])], handoff(), at(0)).await;
    assert!(matches!(refused, Err(oxcart_store::StoreError::Refused(_))), "{refused:?}");
    assert!(store.load(&[id]).await.expect("load").is_empty());
}
