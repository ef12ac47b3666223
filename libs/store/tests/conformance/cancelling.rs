//! Cancels of many tasks in one step.

use oxcart_store::{AgendaWhy, CancelOutcome, CancelTask, StartOutcome};
use oxcart_types::{EndKind, Failure, FailureKind, LeaseToken, TaskId, TaskState};
use rstest::rstest;

use crate::support::{Database, Fixture, at, cancel, end, run, start, task, task_id, token};

fn wanted(task: TaskId, by: LeaseToken) -> CancelTask {
    CancelTask { task, by, cancel: cancel(), failure: Failure::new(FailureKind::CANCELLED, "not needed").with_detail("by test") }
}

fn shape(outcome: &CancelOutcome) -> String {
    match outcome {
        CancelOutcome::Closed { run, .. } => format!("closed {run}"),
        CancelOutcome::Requested(_) => "requested".to_owned(),
        CancelOutcome::Ended(kind) => format!("ended {kind}"),
        CancelOutcome::NoTask => "no task".to_owned(),
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn each_task_of_a_batch_gets_what_its_chain_allows(
    #[values(Database::MariaDb, Database::SqliteFile, Database::SqliteMemory)] database: Database,
) {
    let store = Fixture::new(database).await;
    let waiting = store.submit_one(task()).await;
    let (running, running_token) = store.running().await;
    let released = store.ended_released().await;
    let (retrying, retrying_token) = store.running().await;
    store.end_one(end(retrying, 1, retrying_token, EndKind::Retry), at(2)).await;
    let succeeded = store.ended(EndKind::Succeeded).await;
    let unknown = task_id();
    let by = token();
    // One of them twice, and not in the order of their ids.
    let ids = [unknown, succeeded, retrying, waiting, released, running, waiting];
    let batch: Vec<CancelTask> = ids.iter().map(|id| wanted(*id, by)).collect();
    let expected = ["no task", "ended SUCCEEDED", "closed 2", "closed 1", "closed 2", "requested", "closed 1"];
    for time in ["first", "repeated"] {
        let outcomes = store.cancel_tasks(&batch).await.expect("cancel");
        assert_eq!(outcomes.iter().map(shape).collect::<Vec<_>>(), expected, "{time}");
    }
    for id in [retrying, waiting, released] {
        let record = store.get_one(id).await;
        assert_eq!(record.state, TaskState::Cancelled);
        let failure = record.failure.expect("why");
        assert_eq!((failure.message.as_str(), failure.detail.as_str()), ("not needed", "by test"));
        assert!(matches!(store.start_one(start(id, 2), at(20)).await, StartOutcome::Refused(_)));
    }
    // Another caller did not close them: for it they have ended.
    let other = store.cancel_tasks(&[wanted(waiting, token())]).await.expect("cancel");
    assert_eq!(other.iter().map(shape).collect::<Vec<_>>(), ["ended CANCELLED"]);
    // The run that is open is known to the agenda, and no other follows it.
    assert_eq!(store.get_one(running).await.cancel, Some(cancel()));
    let visits = store.claim_agenda(at(35), at(60), 10).await.expect("claim");
    assert!(visits.iter().any(|visit| visit.row.task == running && visit.row.why == AgendaWhy::CancelGrace));
    let outcome = store.end_one(end(running, 1, running_token, EndKind::Retry), at(36)).await;
    assert_eq!(outcome, oxcart_store::EndOutcome::Written(EndKind::Cancelled));
    assert_eq!(store.state(running).await, TaskState::Cancelled);
}

/// The closing slots of a batch and the starts of a batch race for the same keys: each task has one winner, and what either of
/// them was told is what stands.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_cancels_and_a_batch_of_starts_share_no_task(
    #[values(Database::MariaDb, Database::SqliteFile)] database: Database,
) {
    let store = Fixture::new(database).await;
    for _ in 0..10 {
        let mut ids = Vec::new();
        for _ in 0..20 {
            ids.push(store.submit_one(task()).await);
        }
        let starts: Vec<_> = ids.iter().map(|id| start(*id, 1)).collect();
        let by = token();
        let cancels: Vec<_> = ids.iter().rev().map(|id| wanted(*id, by)).collect();
        let (started, cancelled) = tokio::join!(store.start(&starts, at(1)), store.cancel_tasks(&cancels));
        let cancelled = cancelled.expect("cancel");
        for (started, outcome) in started.expect("start").iter().zip(cancelled.iter().rev()) {
            match outcome {
                CancelOutcome::Closed { run: closed, .. } => {
                    assert_eq!(*closed, run(1));
                    assert!(matches!(started, StartOutcome::Refused(_)));
                }
                CancelOutcome::Requested(_) => assert!(matches!(started, StartOutcome::Started { .. })),
                other => panic!("{other:?}"),
            }
        }
    }
}
