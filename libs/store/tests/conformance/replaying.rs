//! Replays: finished tasks run again under their own ids, with a budget of their own.

use std::time::Duration;

use oxcart_store::{
    AgendaWhy, Budget, Cancel, CloseOutcome, DeleteOutcome, EndOutcome, Live, Replay, ReplayOutcome, ReplayRecord, StartOutcome,
    TakeOver, TakeOverOutcome, TaskFilter,
};
use oxcart_types::{
    EndKind, IdSource as _, Limits, Payload, ReplaySpec, RequestId, StartBy, SystemIds, TaskId, TaskState, TimeLimit, WaitReason,
};
use rstest::rstest;

use crate::support::{Database, Fixture, at, attempts, cancel, close, end, handoff, replay, run, start, task, task_id, task_with};

/// Replays a task that must be replayable.
async fn replayed(store: &Fixture, replay: Replay) {
    let outcome = store.replay_one(replay, at(20)).await;
    assert!(matches!(outcome, ReplayOutcome::Replayed(_)), "{outcome:?}");
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_finished_task_runs_again_with_a_new_budget(
    #[values(Database::MariaDb, Database::SqliteFile, Database::SqliteMemory)] database: Database,
) {
    let store = Fixture::new(database).await;
    let id = store.ended(EndKind::Failed).await;
    let (first, outbox) = (replay(id), handoff());
    let outcomes = store.replay(std::slice::from_ref(&first), outbox, at(20)).await.expect("replay");
    let [ReplayOutcome::Replayed(entry)] = outcomes.as_slice() else { panic!("{outcomes:?}") };
    assert_eq!((entry.run, entry.due_at), (run(2), None));
    // The answer was lost: the same replay again. Another one finds the task open.
    assert_eq!(store.replay_one(first, at(21)).await, outcomes[0]);
    assert_eq!(store.replay_one(replay(id), at(21)).await, ReplayOutcome::NotFinished);

    let record = store.get_one(id).await;
    assert_eq!((record.state, record.head.waiting, record.ended_at), (TaskState::Pending, Some(WaitReason::Handoff), None));
    let undone = ReplayRecord { at: at(20), max_attempts: None, reason: "once more".to_owned() };
    assert_eq!(record.runs[0].end.as_ref().and_then(|end| end.replay.clone()), Some(undone));
    let stale = store.stale_handoffs(at(99), 10).await.expect("stale");
    let offered: Vec<_> = stale.iter().filter(|row| row.id == outbox).flat_map(|row| &row.entries).collect();
    assert_eq!(offered, [entry.as_ref()], "whoever dies before the hand-off leaves it to the sweeper");
    store.confirm_handoffs(&[outbox], &[]).await.expect("confirmed");
    assert_eq!(store.state(id).await, TaskState::Queued);

    let budget = Some(Budget { after: run(1), max_attempts: None, began_at: at(20) });
    let second = start(id, 2);
    let started = StartOutcome::Started { attempt: 1, checkpoint: None, budget };
    assert_eq!(store.start_one(second, at(21)).await, started);
    assert_eq!(store.start_one(second, at(21)).await, started, "repeated");
    let ended = oxcart_store::End { attempts_used: 1, ..end(id, 2, second.token, EndKind::Retry) };
    store.end_one(ended, at(22)).await;
    assert!(matches!(store.start_one(start(id, 3), at(30)).await, StartOutcome::Started { attempt: 2, .. }));
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn the_new_budget_has_its_own_number_of_attempts(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let id = store.submit_one(task_with(|spec| spec.retry = attempts(3))).await;
    let token = store.begin(id, 1, at(1)).await;
    store.end_one(end(id, 1, token, EndKind::Failed), at(2)).await;
    let spec = ReplaySpec { max_attempts: Some(1), ..ReplaySpec::default() };
    replayed(&store, Replay { spec, ..replay(id) }).await;
    store.begin(id, 2, at(21)).await;
    // Its only attempt was lost with its worker.
    let lost = TakeOver { task: id, run: run(2), by: crate::support::token(), silent_since: at(100) };
    assert_eq!(store.take_over(&[lost], at(100)).await.expect("taken over"), [TakeOverOutcome::Ended(EndKind::Failed)]);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn only_what_has_ended_is_replayed_and_a_success_only_on_purpose(
    #[values(Database::MariaDb, Database::SqliteFile)] database: Database,
) {
    let store = Fixture::new(database).await;
    let (waiting, (running, _)) = (store.submit_one(task()).await, store.running().await);
    let released = store.ended_released().await;
    let succeeded = store.ended(EndKind::Succeeded).await;
    let expired = store.submit_one(task()).await;
    store.close(&close(expired, EndKind::Expired)).await.expect("closed");
    let careful = Replay { spec: ReplaySpec::default(), ..replay(succeeded) };
    let wanted = [
        replay(waiting),
        replay(running),
        replay(released),
        careful,
        replay(succeeded),
        replay(succeeded),
        replay(expired),
        replay(task_id()),
    ];
    let outcomes = store.replay(&wanted, handoff(), at(20)).await.expect("replay");
    use ReplayOutcome::{NoTask, NotFinished, Replayed, Succeeded};
    assert_eq!(outcomes[..4], [NotFinished, NotFinished, NotFinished, Succeeded]);
    assert!(matches!(&outcomes[4..], [Replayed(_), NotFinished, Replayed(_), NoTask]), "{outcomes:?}");
    assert_eq!((store.get_one(succeeded).await.result, store.state(succeeded).await), (None, TaskState::Pending));
    assert_eq!(store.delete(succeeded).await.expect("an answer"), DeleteOutcome::NotFinished);
    assert_eq!(store.state(waiting).await, TaskState::Pending);
}

/// † Cancels are keyed by budget.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_of_an_earlier_budget_does_not_end_a_replay(
    #[values(Database::MariaDb, Database::SqliteFile)] database: Database,
) {
    let store = Fixture::new(database).await;
    let (id, token) = store.running().await;
    store.request_cancel(id, &cancel()).await.expect("cancel");
    store.end_one(end(id, 1, token, EndKind::Failed), at(6)).await;
    assert_eq!(store.state(id).await, TaskState::Cancelled);
    replayed(&store, replay(id)).await;
    let record = store.get_one(id).await;
    assert_eq!((record.state, record.cancel), (TaskState::Pending, None));
    assert!(store.cancels(&[id]).await.expect("cancels").is_empty());
    assert!(store.claim_agenda(at(1000), at(1001), 10).await.expect("claim").is_empty(), "nor is its grace looked at");
    let token = store.begin(id, 2, at(21)).await;
    let retry = oxcart_store::End { attempts_used: 1, ..end(id, 2, token, EndKind::Retry) };
    assert_eq!(store.end_one(retry, at(22)).await, EndOutcome::Written(EndKind::Retry));
    let token = store.begin(id, 3, at(30)).await;
    // A cancel of this budget counts, though there is an older one.
    let later = Cancel { reason: "now".to_owned(), ..cancel() };
    store.request_cancel(id, &later).await.expect("cancel");
    assert_eq!(store.cancels(&[id]).await.expect("cancels"), [(id, later)]);
    assert_eq!(store.end_one(end(id, 3, token, EndKind::Failed), at(31)).await, EndOutcome::Written(EndKind::Cancelled));
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn what_was_decided_before_a_replay_does_not_close_it(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let id = store.submit_one(task()).await;
    let poison = oxcart_store::Close { run: Some(run(1)), ..close(id, EndKind::Failed) };
    assert_eq!(store.close(&poison).await.expect("closed"), CloseOutcome::Closed(run(1)));
    replayed(&store, replay(id)).await;
    let late = oxcart_store::Close { run: Some(run(1)), ..close(id, EndKind::Failed) };
    assert_eq!(store.close(&late).await.expect("an answer"), CloseOutcome::Moved(run(2)));
    store.begin(id, 2, at(21)).await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_does_not_expire_and_its_deadline_counts_from_now(
    #[values(Database::MariaDb, Database::SqliteFile)] database: Database,
) {
    let store = Fixture::new(database).await;
    let task = task_with(|spec| {
        spec.expires_at = Some(at(5));
        spec.start_timeout = Some(Duration::from_secs(5));
        spec.deadline = Some(Duration::from_secs(10));
    });
    let id = store.submit_one(task).await;
    store.close(&close(id, EndKind::Expired)).await.expect("closed");
    replayed(&store, replay(id)).await;
    let visits = store.claim_agenda(at(30), at(60), 10).await.expect("claim");
    assert_eq!((visits.len(), visits[0].row.why, visits[0].row.run), (1, AgendaWhy::Expiry, run(2)));
    let open = visits[0].task.as_ref().expect("a task");
    let start_by = StartBy { at: at(30), limit: TimeLimit::Deadline };
    assert_eq!((open.start_by, open.deadline_at), (Some(start_by), Some(at(30))));
    assert!(matches!(store.start_one(start(id, 2), at(30)).await, StartOutcome::Refused(_)), "too late");
    store.begin(id, 2, at(29)).await;
}

#[rstest]
#[case::kept(false)]
#[case::forgotten(true)]
#[tokio::test(flavor = "multi_thread")]
async fn the_checkpoint_is_kept_unless_it_is_to_be_forgotten(
    #[values(Database::MariaDb, Database::SqliteFile)] database: Database,
    #[case] reset_checkpoint: bool,
) {
    let store = Fixture::new(database).await;
    let (id, token) = store.running().await;
    let checkpoint = Payload::json("7".to_owned(), &Limits::default()).expect("JSON");
    let live = |number, n: &str| {
        let checkpoint = Payload::json(n.to_owned(), &Limits::default()).expect("JSON");
        Live { task: id, run: run(number), progress: None, checkpoint: Some(checkpoint) }
    };
    store.set_live(&[live(1, "7")], at(2)).await.expect("live");
    store.end_one(end(id, 1, token, EndKind::Failed), at(3)).await;
    let spec = ReplaySpec { reset_checkpoint, ..ReplaySpec::default() };
    replayed(&store, Replay { spec, ..replay(id) }).await;
    if reset_checkpoint {
        // A zombie of the first run reports once more.
        store.set_live(&[live(1, "8")], at(21)).await.expect("live");
    }
    let StartOutcome::Started { checkpoint: restored, .. } = store.start_one(start(id, 2), at(21)).await else { panic!("refused") };
    assert_eq!(restored, (!reset_checkpoint).then_some(checkpoint));
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_names_one_replay(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let (id, other) = (store.ended(EndKind::Failed).await, store.ended(EndKind::Failed).await);
    let request = RequestId::from_uuid(SystemIds.task_id().as_uuid());
    let named = |id: TaskId| Replay { request: Some((request, at(1000))), ..replay(id) };
    replayed(&store, named(id)).await;
    let token = store.begin(id, 2, at(21)).await;
    let failed = oxcart_store::End { attempts_used: 1, ..end(id, 2, token, EndKind::Failed) };
    store.end_one(failed, at(22)).await;
    // The first answer was lost, and the task has ended again meanwhile: it is not replayed twice.
    assert_eq!(store.replay_one(named(id), at(30)).await, ReplayOutcome::Known);
    assert_eq!(store.replay_one(named(other), at(30)).await, ReplayOutcome::RequestReused(request));
    assert_eq!((store.state(id).await, store.state(other).await), (TaskState::Failed, TaskState::Failed));
    // Two of one name in one batch: the second is a repeat.
    let fresh = RequestId::from_uuid(SystemIds.task_id().as_uuid());
    let twice = Replay { request: Some((fresh, at(1000))), ..replay(other) };
    let outcomes = store.replay(&[twice.clone(), twice], handoff(), at(30)).await.expect("replay");
    assert!(matches!(outcomes.as_slice(), [ReplayOutcome::Replayed(_), ReplayOutcome::Known]), "{outcomes:?}");
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn of_two_replays_at_once_one_counts(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    for _ in 0..20 {
        let id = store.ended(EndKind::Failed).await;
        let (one, two) = ([replay(id)], [replay(id)]);
        let (one, two, deleted) =
            tokio::join!(store.replay(&one, handoff(), at(20)), store.replay(&two, handoff(), at(20)), store.delete(id));
        let outcomes = [one.expect("replay"), two.expect("replay")].concat();
        let counted = outcomes.iter().filter(|outcome| matches!(outcome, ReplayOutcome::Replayed(_))).count();
        match deleted.expect("delete") {
            DeleteOutcome::Deleted => assert_eq!(outcomes, [ReplayOutcome::NoTask, ReplayOutcome::NoTask]),
            DeleteOutcome::NotFinished => assert_eq!(counted, 1, "{outcomes:?}"),
            DeleteOutcome::NoTask => panic!("nobody else deletes"),
        }
    }
}

/// † A replayed task may lie below the mark where the walk over tasks begins.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn open_replays_are_walked_by_their_time(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let mut ids = Vec::new();
    for second in [20, 30, 40, 50] {
        let id = store.ended(EndKind::Failed).await;
        let outcome = store.replay_one(replay(id), at(second)).await;
        assert!(matches!(outcome, ReplayOutcome::Replayed(_)), "{outcome:?}");
        ids.push(id);
    }
    store.close(&close(ids[0], EndKind::Cancelled)).await.expect("closed");
    let (mut after, mut open, mut first_open) = (None, Vec::new(), None);
    loop {
        let walk = store.walk_replays(after, at(50), 1).await.expect("a walk");
        open.extend(walk.open.iter().map(|task| (task.entry.task, task.entry.run)));
        first_open = first_open.or(walk.first_open);
        after = walk.next_after;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(open, [(ids[1], run(2)), (ids[2], run(2))], "what has ended and what is young is left out");
    assert_eq!(first_open, Some(at(30)));
    let rest = store.walk_replays(Some((at(30), ids[1])), at(50), 10).await.expect("a walk");
    assert_eq!(rest.open.iter().map(|task| task.entry.task).collect::<Vec<_>>(), [ids[2]]);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn lists_show_a_replayed_task_once_and_as_what_it_is(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let twice = store.ended(EndKind::Failed).await;
    replayed(&store, replay(twice)).await;
    let again = store.begin(twice, 2, at(21)).await;
    let failed = oxcart_store::End { attempts_used: 1, ..end(twice, 2, again, EndKind::Failed) };
    store.end_one(failed, at(22)).await;
    let open = store.ended(EndKind::Failed).await;
    replayed(&store, replay(open)).await;
    let filter = TaskFilter { states: vec![TaskState::Failed], ..TaskFilter::default() };
    let page = store.list(&filter, None, 10).await.expect("a page");
    assert_eq!(page.tasks.iter().map(|task| task.spec.id).collect::<Vec<_>>(), [twice]);
    assert_eq!(store.delete(twice).await.expect("deleted"), DeleteOutcome::Deleted);
    assert!(store.walk_replays(None, at(99), 10).await.expect("a walk").open.iter().all(|task| task.entry.task == open));
}
