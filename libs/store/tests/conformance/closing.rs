//! Closing slots, cancels of open runs, deletion.

use oxcart_store::{AgendaWhy, CloseOutcome, DeleteOutcome, EndOutcome, StartOutcome};
use oxcart_types::{EndKind, TaskState, record::View};
use rstest::rstest;

use crate::support::{Database, Fixture, at, cancel, close, end, run, start, task, task_id, task_with};

#[rstest]
#[case(EndKind::Cancelled, TaskState::Cancelled)]
#[case(EndKind::Expired, TaskState::Expired)]
#[case(EndKind::Failed, TaskState::Failed)]
#[tokio::test(flavor = "multi_thread")]
async fn a_closed_slot_lets_no_run_begin(
    #[values(Database::MariaDb, Database::SqliteFile, Database::SqliteMemory)] database: Database,
    #[case] kind: EndKind,
    #[case] state: TaskState,
) {
    let store = Fixture::new(database).await;
    let id = store.submit_one(task()).await;
    let first = close(id, kind);
    assert_eq!(store.close(&first).await.expect("close"), CloseOutcome::Closed(run(1)));
    assert_eq!(store.close(&first).await.expect("close"), CloseOutcome::Closed(run(1)), "repeated");
    assert_eq!(store.close(&close(id, EndKind::Cancelled)).await.expect("close"), CloseOutcome::Ended(kind));
    assert!(matches!(store.start_one(start(id, 1), at(9)).await, StartOutcome::Refused(_)));
    assert!(matches!(store.start_one(start(id, 2), at(9)).await, StartOutcome::Refused(_)));
    // Nor does the closer own a run that it could end.
    let outcome = store.end_one(end(id, 1, first.by, EndKind::Succeeded), at(9)).await;
    assert_eq!(outcome, EndOutcome::NotMine);
    let record = store.get_one(id).await;
    assert_eq!((record.state, record.started_at, record.worker), (state, None, None));
    assert_eq!(record.failure.expect("why").message, "closed");
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn an_open_run_is_not_closed_over(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let (id, token) = store.running().await;
    let CloseOutcome::Running(open) = store.close(&close(id, EndKind::Cancelled)).await.expect("close") else { panic!("open") };
    assert_eq!(open.started_at, Some(at(1)));
    store.end_one(end(id, 1, token, EndKind::Retry), at(2)).await;
    let closed = store.close(&close(id, EndKind::Cancelled)).await.expect("close");
    assert_eq!(closed, CloseOutcome::Closed(run(2)));
    assert_eq!(store.state(id).await, TaskState::Cancelled);
    assert_eq!(store.close(&close(task_id(), EndKind::Cancelled)).await.expect("close"), CloseOutcome::NoTask);
    let done = store.ended(EndKind::Succeeded).await;
    assert_eq!(store.close(&close(done, EndKind::Failed)).await.expect("close"), CloseOutcome::Ended(EndKind::Succeeded));
}

#[rstest]
#[case(EndKind::Succeeded)]
#[case(EndKind::Retry)]
#[case(EndKind::Released)]
#[case(EndKind::Lost)]
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_is_closed_only_for_an_end_that_needs_no_run(
    #[values(Database::MariaDb, Database::SqliteFile)] database: Database,
    #[case] kind: EndKind,
) {
    let store = Fixture::new(database).await;
    let id = store.submit_one(task()).await;
    assert!(store.close(&close(id, kind)).await.is_err());
    assert_eq!(store.state(id).await, TaskState::Pending);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_start_and_a_cancel_cannot_both_win(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    for _ in 0..20 {
        let id = store.submit_one(task()).await;
        let starts = [start(id, 1)];
        let close = close(id, EndKind::Cancelled);
        let (started, closed) = tokio::join!(store.start(&starts, at(1)), store.close(&close));
        let started = matches!(started.expect("start")[0], StartOutcome::Started { .. });
        match closed.expect("close") {
            CloseOutcome::Closed(_) => assert!(!started),
            CloseOutcome::Running(_) => assert!(started),
            other => panic!("{other:?}"),
        }
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_is_looked_at_when_its_grace_is_over(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let (id, _) = store.running().await;
    store.request_cancel(id, &cancel()).await.expect("cancel");
    let later = oxcart_store::Cancel { reason: "again".to_owned(), ..cancel() };
    store.request_cancel(id, &later).await.expect("cancel");
    assert_eq!(store.get_one(id).await.cancel, Some(cancel()), "the first stands");
    assert!(store.claim_agenda(at(34), at(60), 10).await.expect("claim").is_empty());
    let visits = store.claim_agenda(at(35), at(60), 10).await.expect("claim");
    assert_eq!((visits.len(), visits[0].row.why), (1, AgendaWhy::CancelGrace));
    let open = visits[0].task.as_ref().expect("a task");
    assert_eq!((open.cancel.as_ref(), open.started_at), (Some(&cancel()), Some(at(1))));
    let done = store.ended(EndKind::Succeeded).await;
    store.request_cancel(done, &cancel()).await.expect("cancel");
    assert_eq!(store.get_one(done).await.cancel, None, "too late");
    store.request_cancel(task_id(), &cancel()).await.expect("cancel of nothing");
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_finished_task_goes_with_all_that_is_its_own(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let task = task_with(|spec| {
        spec.tags = vec!["t".parse().expect("a tag")];
        spec.expires_at = Some(at(50));
    });
    let id = store.submit_one(task).await;
    assert_eq!(store.delete(id).await.expect("delete"), DeleteOutcome::NotFinished);
    let token = store.begin(id, 1, at(1)).await;
    assert_eq!(store.delete(id).await.expect("delete"), DeleteOutcome::NotFinished);
    store.request_cancel(id, &cancel()).await.expect("cancel");
    store.end_one(end(id, 1, token, EndKind::Failed), at(2)).await;
    assert_eq!(store.delete(id).await.expect("delete"), DeleteOutcome::Deleted);
    assert_eq!(store.delete(id).await.expect("delete"), DeleteOutcome::NoTask);
    assert_eq!(store.get(&[id], View::Full).await.expect("get"), [None]);
    assert_eq!(store.runs(id, None, 10).await.expect("runs"), None);
    assert!(store.claim_agenda(at(99), at(100), 10).await.expect("claim").is_empty());
    assert!(store.cancels(&[id]).await.expect("cancels").is_empty());
    assert_eq!(store.start_one(start(id, 1), at(9)).await, StartOutcome::NoTask);
    assert_eq!(store.end_one(end(id, 1, token, EndKind::Succeeded), at(9)).await, EndOutcome::NotMine);
    let stale = store.stale_handoffs(at(99), 10).await.expect("stale");
    assert!(stale.iter().all(|row| row.entries.is_empty()), "{stale:?}");
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_being_deleted_does_not_start(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    for _ in 0..60 {
        let id = store.submit_one(task()).await;
        store.close(&close(id, EndKind::Cancelled)).await.expect("close");
        let starts = [start(id, 1)];
        let (started, deleted) = tokio::join!(store.start(&starts, at(1)), store.delete(id));
        let started = started.expect("start");
        assert!(!matches!(started[0], StartOutcome::Started { .. }), "{started:?}");
        assert_eq!(deleted.expect("delete"), DeleteOutcome::Deleted);
    }
}
