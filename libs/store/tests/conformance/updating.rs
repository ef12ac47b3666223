//! Changing tasks that have not started.

use std::time::Duration;

use oxcart_store::{AgendaWhy, StartOutcome, UpdateOutcome};
use oxcart_types::{EndKind, LeaseToken, Priority, TaskChanges, TaskId, TaskState};
use rstest::rstest;

use crate::support::{Database, Fixture, at, attempts, end, handoff, run, start, task, task_id, task_with, token};

async fn change(store: &Fixture, id: TaskId, changes: &TaskChanges, etag: Option<&str>, by: LeaseToken) -> UpdateOutcome {
    store.update(id, changes, etag, by, handoff(), at(5), at(900)).await.expect("update")
}

fn priority(number: i64) -> TaskChanges {
    TaskChanges { priority: Some(Priority::try_from(number).expect("a priority")), ..TaskChanges::default() }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_task_is_changed_and_handed_out_anew(
    #[values(Database::MariaDb, Database::SqliteFile, Database::SqliteMemory)] database: Database,
) {
    let store = Fixture::new(database).await;
    let id = store.submit_one(task_with(|spec| spec.tags = vec!["old".parse().expect("a tag")])).await;
    let changes = TaskChanges {
        queue: Some("other".parse().expect("a queue")),
        priority: Some(Priority::MAX),
        tags: Some(vec!["new".parse().expect("a tag")]),
        start_timeout: Some(Some(Duration::from_secs(400))),
        timeout: Some(Some(Duration::from_secs(3))),
        heartbeat_timeout: Some(Some(Duration::from_secs(2))),
        deadline: Some(Some(Duration::from_secs(600))),
        retry: Some(attempts(7)),
        expires_at: Some(Some(at(300))),
        run_at: Some(Some(at(6))),
    };
    let outcome = change(&store, id, &changes, None, token()).await;
    let UpdateOutcome::Updated { closed, before, after, handoff: Some(outbox) } = outcome else { panic!("{outcome:?}") };
    assert_eq!((closed, before.run, after.run), (run(1), run(1), run(2)));
    assert_eq!((before.queue.as_str(), after.queue.as_str()), ("default", "other"));
    assert_eq!((after.priority, after.due_at), (Priority::MAX, Some(at(6))));
    let mut expected = store.load(&[id]).await.expect("load")[0].spec.clone();
    changes.apply(&mut expected);
    let loaded = store.load(&[id]).await.expect("load").remove(0).spec;
    assert_eq!(loaded, expected);
    assert_eq!(loaded.tags[0].as_str(), "new");
    assert_eq!(store.state(id).await, TaskState::Pending);
    assert_eq!(store.start_one(start(id, 2), at(6)).await, StartOutcome::Started { attempt: 1, checkpoint: None, budget: None });
    store.confirm_handoffs(&[outbox], &[]).await.expect("confirm");
    let visits = store.claim_agenda(at(300), at(400), 10).await.expect("claim");
    assert_eq!((visits.len(), visits[0].row.why, visits[0].row.run), (1, AgendaWhy::Expiry, run(2)));
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_far_run_time_goes_to_the_agenda(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let id = store.submit_one(task()).await;
    let far = TaskChanges { run_at: Some(Some(at(2000))), ..TaskChanges::default() };
    let outcome = change(&store, id, &far, None, token()).await;
    assert!(matches!(outcome, UpdateOutcome::Updated { handoff: None, .. }), "{outcome:?}");
    // The horizon is 895 s ahead, so it is due 895 s before its time.
    assert!(store.claim_agenda(at(1104), at(1200), 10).await.expect("claim").is_empty());
    let visits = store.claim_agenda(at(1105), at(1200), 10).await.expect("claim");
    let entry = &visits[0].task.as_ref().expect("a task").entry;
    assert_eq!((visits[0].row.why, entry.run, entry.due_at), (AgendaWhy::Time, run(2), Some(at(2000))));
    // And back.
    let now = TaskChanges { run_at: Some(None), ..TaskChanges::default() };
    let outcome = change(&store, id, &now, None, token()).await;
    assert!(matches!(outcome, UpdateOutcome::Updated { handoff: Some(_), .. }), "{outcome:?}");
    assert!(store.claim_agenda(at(9999), at(9999), 10).await.expect("claim").is_empty());
    assert!(matches!(store.start_one(start(id, 3), at(6)).await, StartOutcome::Started { .. }));
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_backoff_is_not_cut_short(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let (id, mine) = store.running().await;
    store.end_one(end(id, 1, mine, EndKind::Retry), at(2)).await;
    let UpdateOutcome::Updated { after, .. } = change(&store, id, &priority(9), None, token()).await else { panic!("waits") };
    assert_eq!((after.run, after.due_at), (run(3), Some(at(10))));
    assert!(matches!(store.start_one(start(id, 3), at(9)).await, StartOutcome::Refused(_)));
    assert_eq!(store.start_one(start(id, 3), at(10)).await, StartOutcome::Started { attempt: 2, checkpoint: None, budget: None });
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_changes_nothing_more(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let id = store.submit_one(task()).await;
    let (by, etag, outbox) = (token(), store.get_one(id).await.etag(), handoff());
    let update = || store.update(id, &CHANGES, Some(&etag), by, outbox, at(5), at(900));
    const CHANGES: TaskChanges = TaskChanges {
        queue: None,
        priority: Some(Priority::MIN),
        tags: None,
        run_at: None,
        expires_at: None,
        start_timeout: None,
        timeout: None,
        heartbeat_timeout: None,
        deadline: None,
        retry: None,
    };
    for _ in 0..2 {
        let outcome = update().await.expect("update");
        let UpdateOutcome::Updated { closed, after, handoff, .. } = outcome else { panic!("{outcome:?}") };
        assert_eq!((closed, after.run, after.priority, handoff), (run(1), run(2), Priority::MIN, Some(outbox)));
    }
    assert_eq!(store.runs(id, None, 10).await.expect("runs").expect("a task").len(), 1);
}

/// The answer to an update was lost, and the task has run since: the repeat finds what the first try did.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_late_repeat_changes_nothing_more(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let id = store.submit_one(task()).await;
    let (by, outbox) = (token(), handoff());
    let update = async || store.update(id, &priority(9), None, by, outbox, at(5), at(900)).await.expect("update");
    assert!(matches!(update().await, UpdateOutcome::Updated { closed, .. } if closed == run(1)));
    for kind in [EndKind::Released, EndKind::Succeeded] {
        let number = if kind == EndKind::Released { 2 } else { 3 };
        let token = store.begin(id, number, at(20)).await;
        store.end_one(end(id, number, token, kind), at(21)).await;
        let repeated = update().await;
        assert!(matches!(repeated, UpdateOutcome::Updated { closed, .. } if closed == run(1)), "{repeated:?}");
        let chain = store.runs(id, None, 10).await.expect("runs").expect("a task");
        assert_eq!(chain.len(), number as usize);
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn what_runs_or_has_ended_or_changed_is_left_alone(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let (open, _) = store.running().await;
    assert_eq!(change(&store, open, &priority(9), None, token()).await, UpdateOutcome::Running);
    let done = store.ended(EndKind::Succeeded).await;
    assert_eq!(change(&store, done, &priority(9), None, token()).await, UpdateOutcome::Ended(EndKind::Succeeded));
    assert_eq!(change(&store, task_id(), &priority(9), None, token()).await, UpdateOutcome::NoTask);
    let id = store.submit_one(task()).await;
    let etag = store.get_one(id).await.etag();
    assert_eq!(change(&store, id, &priority(9), Some("other"), token()).await, UpdateOutcome::Changed);
    assert!(matches!(change(&store, id, &priority(9), Some(&etag), token()).await, UpdateOutcome::Updated { .. }));
    assert_eq!(change(&store, id, &priority(9), Some(&etag), token()).await, UpdateOutcome::Changed);
    assert_eq!(store.get_one(open).await.spec.priority, Priority::default());
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_start_and_an_update_cannot_both_win(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    for _ in 0..20 {
        let id = store.submit_one(task()).await;
        let starts = [start(id, 1)];
        let changes = priority(9);
        let update = change(&store, id, &changes, None, token());
        let (started, updated) = tokio::join!(store.start(&starts, at(1)), update);
        let started = matches!(started.expect("start")[0], StartOutcome::Started { .. });
        assert_eq!(matches!(updated, UpdateOutcome::Updated { .. }), !started, "{updated:?}");
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn values_that_do_not_agree_with_those_that_stay_change_nothing(
    #[values(Database::MariaDb, Database::SqliteFile)] database: Database,
) {
    let store = Fixture::new(database).await;
    let id = store.submit_one(task_with(|spec| spec.run_at = Some(at(600)))).await;
    for (changes, field) in [
        (TaskChanges { expires_at: Some(Some(at(500))), ..TaskChanges::default() }, "expires_at"),
        (TaskChanges { deadline: Some(Some(Duration::from_secs(20))), ..TaskChanges::default() }, "deadline"),
    ] {
        let outcome = change(&store, id, &changes, None, token()).await;
        let UpdateOutcome::Invalid(bad) = outcome else { panic!("{outcome:?}") };
        assert_eq!(bad.as_slice().iter().map(|v| v.field.as_str()).collect::<Vec<_>>(), [field]);
    }
    let spec = store.load(&[id]).await.expect("load").remove(0).spec;
    assert_eq!((spec.expires_at, spec.deadline), (None, None));
    assert_eq!(store.start_one(start(id, 1), at(600)).await, StartOutcome::Started { attempt: 1, checkpoint: None, budget: None });
}
