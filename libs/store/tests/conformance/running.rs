//! Starts, ends, takeovers and signs of life.

use std::time::Duration;

use chrono::TimeDelta;
use oxcart_store::{EndOutcome, Live, Progress, RunKey, StartOutcome, TakeOver, TakeOverOutcome};
use oxcart_types::{
    EndKind, Failure, Limits, Payload, RetryPolicy, StartBy, TaskState, TimeLimit, WorkerId, retry::RetryPolicyParts,
};
use rstest::rstest;

use crate::support::{Database, Fixture, at, attempts, cancel, end, replay, run, start, task, task_id, task_with, token};

const FIRST: StartOutcome = StartOutcome::Started { attempt: 1, checkpoint: None, budget: None };

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_run_starts_once(#[values(Database::MariaDb, Database::SqliteFile, Database::SqliteMemory)] database: Database) {
    let store = Fixture::new(database).await;
    let id = store.submit_one(task()).await;
    assert_eq!(store.state(id).await, TaskState::Pending);
    let first = start(id, 1);
    assert_eq!(store.start_one(first, at(1)).await, FIRST);
    // The answer was lost: the same start again.
    assert_eq!(store.start_one(first, at(9)).await, FIRST);
    assert_eq!(store.get_one(id).await.started_at, Some(at(1)));
    let StartOutcome::Refused(refused) = store.start_one(start(id, 1), at(1)).await else { panic!("two tokens") };
    assert_eq!(refused.task.started_at, Some(at(1)));
    assert_eq!(refused.task.head.latest.expect("a run").run, run(1));
    assert_eq!(store.state(id).await, TaskState::Running);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn of_two_starts_in_one_batch_one_wins(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let (a, b) = (store.submit_one(task()).await, store.submit_one(task()).await);
    let batch = [start(b, 1), start(a, 1), start(a, 1), start(task_id(), 1), start(b, 2)];
    let outcomes = store.start(&batch, at(1)).await.expect("start");
    assert_eq!(outcomes[0], FIRST);
    let started = outcomes[1..3].iter().filter(|outcome| **outcome == FIRST).count();
    assert_eq!(started, 1, "{outcomes:?}");
    assert_eq!(outcomes[3], StartOutcome::NoTask);
    assert!(matches!(outcomes[4], StartOutcome::Refused(_)));
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_first_run_waits_for_its_time_and_not_for_ever(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let later = store.submit_one(task_with(|spec| spec.run_at = Some(at(10)))).await;
    let expiring = store.submit_one(task_with(|spec| spec.expires_at = Some(at(10)))).await;
    let deadline = store.submit_one(task_with(|spec| spec.deadline = Some(Duration::from_secs(10)))).await;
    let start_timeout = task_with(|spec| {
        spec.run_at = Some(at(4));
        spec.start_timeout = Some(Duration::from_secs(6));
    });
    let start_timeout = store.submit_one(start_timeout).await;
    let StartOutcome::Refused(refused) = store.start_one(start(later, 1), at(9)).await else { panic!("too early") };
    assert_eq!(refused.task.entry.due_at, Some(at(10)));
    let limits = [(expiring, TimeLimit::Expiry), (deadline, TimeLimit::Deadline), (start_timeout, TimeLimit::StartTimeout)];
    for (id, limit) in limits {
        let StartOutcome::Refused(refused) = store.start_one(start(id, 1), at(10)).await else { panic!("too late") };
        assert_eq!(refused.task.start_by, Some(StartBy { at: at(10), limit }));
        assert_eq!(store.start_one(start(id, 1), at(9)).await, FIRST);
    }
    assert_eq!(store.start_one(start(later, 1), at(10)).await, FIRST);
}

#[rstest]
#[case::released_before_it_expired(EndKind::Released, 10)]
#[case::failed_before_its_deadline(EndKind::Retry, 60)]
#[tokio::test(flavor = "multi_thread")]
async fn a_later_run_does_not_start_too_late(
    #[values(Database::MariaDb, Database::SqliteFile)] database: Database,
    #[case] kind: EndKind,
    #[case] last_moment: i64,
) {
    let store = Fixture::new(database).await;
    let task = task_with(|spec| {
        spec.expires_at = Some(at(10));
        spec.deadline = Some(Duration::from_secs(60));
    });
    let id = store.submit_one(task).await;
    let token = store.begin(id, 1, at(1)).await;
    let end = oxcart_store::End { next_run_at: Some(at(2)), ..end(id, 1, token, kind) };
    store.end_one(end, at(2)).await;
    assert!(matches!(store.start_one(start(id, 2), at(last_moment)).await, StartOutcome::Refused(_)));
    store.begin(id, 2, at(last_moment - 1)).await;
}

#[rstest]
#[case::retry(EndKind::Retry, TaskState::Retrying, 2)]
#[case::released(EndKind::Released, TaskState::Queued, 1)]
#[tokio::test(flavor = "multi_thread")]
async fn the_next_run_follows_the_end_of_the_one_before(
    #[values(Database::MariaDb, Database::SqliteFile)] database: Database,
    #[case] kind: EndKind,
    #[case] state: TaskState,
    #[case] attempt: u32,
) {
    let store = Fixture::new(database).await;
    let (id, token) = store.running().await;
    let refused = store.start_one(start(id, 2), at(20)).await;
    assert!(matches!(refused, StartOutcome::Refused(_)), "the first is open: {refused:?}");
    assert_eq!(store.end_one(end(id, 1, token, kind), at(2)).await, EndOutcome::Written(kind));
    assert_eq!(store.state(id).await, state);
    for (number, now) in [(1, 20), (3, 20), (2, 9)] {
        let refused = store.start_one(start(id, number), at(now)).await;
        assert!(matches!(refused, StartOutcome::Refused(_)), "{number} at {now}: {refused:?}");
    }
    let second = start(id, 2);
    let started = StartOutcome::Started { attempt, checkpoint: None, budget: None };
    assert_eq!(store.start_one(second, at(10)).await, started);
    assert_eq!(store.start_one(second, at(10)).await, started, "repeated");
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn no_start_without_an_attempt_left(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let id = store.submit_one(task_with(|spec| spec.retry = attempts(1))).await;
    let token = store.begin(id, 1, at(1)).await;
    store.end_one(end(id, 1, token, EndKind::Retry), at(2)).await;
    assert!(matches!(store.start_one(start(id, 2), at(20)).await, StartOutcome::Refused(_)));
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn an_end_is_written_once_and_by_the_owner(
    #[values(Database::MariaDb, Database::SqliteFile, Database::SqliteMemory)] database: Database,
) {
    let store = Fixture::new(database).await;
    let (id, mine) = store.running().await;
    assert_eq!(store.end_one(end(id, 1, token(), EndKind::Succeeded), at(2)).await, EndOutcome::NotMine);
    assert_eq!(store.end_one(end(id, 2, mine, EndKind::Succeeded), at(2)).await, EndOutcome::NotMine);
    let success = end(id, 1, mine, EndKind::Succeeded);
    assert_eq!(store.end_one(success.clone(), at(2)).await, EndOutcome::Written(EndKind::Succeeded));
    assert_eq!(store.end_one(success, at(9)).await, EndOutcome::Written(EndKind::Succeeded));
    // Another end by the same owner changes nothing either.
    assert_eq!(store.end_one(end(id, 1, mine, EndKind::Failed), at(9)).await, EndOutcome::Written(EndKind::Succeeded));
    let record = store.get_one(id).await;
    assert_eq!((record.state, record.ended_at), (TaskState::Succeeded, Some(at(2))));
    assert_eq!(record.result.expect("a result").as_bytes(), b"[1]");
    assert!(matches!(store.start_one(start(id, 2), at(20)).await, StartOutcome::Refused(_)));
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_ends_is_told_apart(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let (a, a_token) = store.running().await;
    let (b, b_token) = store.running().await;
    let (c, c_token) = store.running().await;
    let lost = TakeOver { task: c, run: run(1), by: token(), silent_since: at(100) };
    store.take_over(&[lost], at(100)).await.expect("take over");
    let ends = [
        end(b, 1, b_token, EndKind::Failed),
        end(c, 1, c_token, EndKind::Succeeded),
        end(a, 1, b_token, EndKind::Succeeded),
        end(a, 1, a_token, EndKind::Retry),
        end(task_id(), 1, a_token, EndKind::Succeeded),
    ];
    let expected = [
        EndOutcome::Written(EndKind::Failed),
        EndOutcome::Fenced(EndKind::Lost),
        EndOutcome::NotMine,
        EndOutcome::Written(EndKind::Retry),
        EndOutcome::NotMine,
    ];
    assert_eq!(store.end(&ends, at(200)).await.expect("end"), expected);
    let failure = store.get_one(b).await.failure.expect("a failure");
    assert_eq!(failure, Failure::new("SMTP", "no route").with_detail("line 1"));
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_began_cannot_expire(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let (id, token) = store.running().await;
    assert!(store.end(&[end(id, 1, token, EndKind::Expired)], at(2)).await.is_err());
    assert_eq!(store.state(id).await, TaskState::Running);
}

#[rstest]
#[case(EndKind::Failed)]
#[case(EndKind::Retry)]
#[case(EndKind::Released)]
#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_not_done_gives_way_to_a_cancel(
    #[values(Database::MariaDb, Database::SqliteFile)] database: Database,
    #[case] kind: EndKind,
) {
    let store = Fixture::new(database).await;
    let (id, token) = store.running().await;
    store.request_cancel(id, &cancel()).await.expect("cancel");
    assert_eq!(store.get_one(id).await.cancel, Some(cancel()));
    assert_eq!(store.cancels(&[id, task_id()]).await.expect("cancels"), [(id, cancel())]);
    for _ in 0..2 {
        assert_eq!(store.end_one(end(id, 1, token, kind), at(6)).await, EndOutcome::Written(EndKind::Cancelled));
    }
    let record = store.get_one(id).await;
    assert_eq!((record.state, record.next_run_at), (TaskState::Cancelled, None));
    assert_eq!(record.failure.expect("why").message, "not needed");
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_success_stands_against_a_cancel(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let (id, token) = store.running().await;
    store.request_cancel(id, &cancel()).await.expect("cancel");
    let outcome = store.end_one(end(id, 1, token, EndKind::Succeeded), at(6)).await;
    assert_eq!(outcome, EndOutcome::Written(EndKind::Succeeded));
    assert_eq!(store.state(id).await, TaskState::Succeeded);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_that_came_between_two_runs_stops_the_next(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let (id, token) = store.running().await;
    store.end_one(end(id, 1, token, EndKind::Retry), at(2)).await;
    store.request_cancel(id, &cancel()).await.expect("cancel");
    let StartOutcome::Refused(refused) = store.start_one(start(id, 2), at(20)).await else { panic!("cancelled") };
    assert_eq!(refused.task.cancel, Some(cancel()));
    let fresh = store.submit_one(task()).await;
    store.request_cancel(fresh, &cancel()).await.expect("cancel");
    assert!(matches!(store.start_one(start(fresh, 1), at(20)).await, StartOutcome::Refused(_)));
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn only_the_silent_are_taken_over(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let (id, worker) = store.running().await;
    let take = |silent_since| TakeOver { task: id, run: run(1), by: token(), silent_since: at(silent_since) };
    let one = |outcomes: Vec<TakeOverOutcome>| outcomes[0];
    assert_eq!(one(store.take_over(&[take(1)], at(1)).await.expect("take")), TakeOverOutcome::TooYoung, "started at 1");
    store.set_live(&[Live { task: id, run: run(1), progress: None, checkpoint: None }], at(50)).await.expect("live");
    assert_eq!(one(store.take_over(&[take(40)], at(60)).await.expect("take")), TakeOverOutcome::TooYoung, "seen at 50");
    let mine = take(51);
    assert_eq!(one(store.take_over(&[mine], at(90)).await.expect("take")), TakeOverOutcome::Ended(EndKind::Lost));
    assert_eq!(one(store.take_over(&[mine], at(91)).await.expect("take")), TakeOverOutcome::Ended(EndKind::Lost), "repeated");
    assert_eq!(one(store.take_over(&[take(51)], at(91)).await.expect("take")), TakeOverOutcome::Over(EndKind::Lost));
    // The zombie comes back.
    assert_eq!(store.end_one(end(id, 1, worker, EndKind::Succeeded), at(92)).await, EndOutcome::Fenced(EndKind::Lost));
    assert_eq!(store.state(id).await, TaskState::Queued);
    assert_eq!(store.start_one(start(id, 2), at(92)).await, StartOutcome::Started { attempt: 2, checkpoint: None, budget: None });
    let nothing = TakeOver { task: task_id(), run: run(1), by: token(), silent_since: at(99) };
    assert_eq!(one(store.take_over(&[nothing], at(99)).await.expect("take")), TakeOverOutcome::NoRun);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_counts_an_attempt_and_heeds_a_cancel(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let last = store.submit_one(task_with(|spec| spec.retry = attempts(1))).await;
    store.begin(last, 1, at(1)).await;
    let (cancelled, _) = store.running().await;
    store.request_cancel(cancelled, &cancel()).await.expect("cancel");
    let done = store.ended(EndKind::Succeeded).await;
    let take = |id| TakeOver { task: id, run: run(1), by: token(), silent_since: at(60) };
    let outcomes = store.take_over(&[take(done), take(last), take(cancelled)], at(60)).await.expect("take");
    let expected = [
        TakeOverOutcome::Over(EndKind::Succeeded),
        TakeOverOutcome::Ended(EndKind::Failed),
        TakeOverOutcome::Ended(EndKind::Cancelled),
    ];
    assert_eq!(outcomes, expected);
    assert_eq!(store.get_one(last).await.failure.expect("why").kind.as_str(), "LEASE_LOST");
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn owners_are_known(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let (open, mine) = store.running().await;
    let (ended, other) = store.running().await;
    store.end_one(end(ended, 1, other, EndKind::Released), at(2)).await;
    let key = |task, token, number| RunKey { task, run: run(number), token };
    let keys = [key(open, mine, 1), key(open, token(), 1), key(open, mine, 2), key(ended, other, 1)];
    assert_eq!(store.still_mine(&keys).await.expect("still mine"), [true, false, false, false]);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn signs_of_life_are_kept_and_never_go_back(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let (id, token) = store.running().await;
    let progress = |current| Progress { current, total: 9, message: "half".to_owned(), at: at(4) + TimeDelta::microseconds(1) };
    let checkpoint = Payload::bytes(vec![0, 255], "application/x-state", &Limits::default()).expect("a payload");
    let live = |number, progress, checkpoint| Live { task: id, run: run(number), progress, checkpoint };
    store.set_live(&[live(1, Some(progress(4)), Some(checkpoint.clone()))], at(4)).await.expect("live");
    store.set_live(&[live(1, None, None)], at(5)).await.expect("live");
    assert_eq!(store.get_one(id).await.progress, Some(progress(4)));
    store.end_one(end(id, 1, token, EndKind::Retry), at(6)).await;
    let second = start(id, 2);
    let started = StartOutcome::Started { attempt: 2, checkpoint: Some(checkpoint), budget: None };
    assert_eq!(store.start_one(second, at(10)).await, started);
    assert_eq!(store.start_one(second, at(10)).await, started);
    store.set_live(&[live(2, Some(progress(1)), None)], at(11)).await.expect("live");
    store.set_live(&[live(1, Some(progress(8)), None)], at(12)).await.expect("live");
    assert_eq!(store.get_one(id).await.progress, Some(progress(1)));
    let StartOutcome::Refused(refused) = store.start_one(start(id, 2), at(12)).await else { panic!("taken") };
    assert_eq!(refused.heartbeat_at, Some(at(11)));
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn tasks_are_loaded_as_they_were_submitted(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let sent = task_with(|spec| {
        spec.payload = Payload::bytes((0..=255).collect(), "image/png", &Limits::default()).expect("bytes");
        spec.priority = oxcart_types::Priority::MAX;
        spec.tags = vec!["vip kunde ✓".parse().expect("a tag"), "x".parse().expect("a tag")];
        spec.metadata = [("traceparent".to_owned(), "00-1".to_owned()), ("ü".to_owned(), "\u{0}\"'\\".to_owned())].into();
        spec.run_at = Some(at(0) + TimeDelta::microseconds(123_456));
        spec.expires_at = Some(at(5) + TimeDelta::microseconds(1));
        spec.start_timeout = Some(Limits::HORIZON);
        spec.timeout = Some(Duration::from_nanos(1_500_000_001));
        spec.heartbeat_timeout = Some(Duration::from_nanos(7));
        spec.deadline = Some(Limits::DEADLINE);
        spec.retry = oxcart_types::RetryPolicy::new(oxcart_types::retry::RetryPolicyParts {
            max_attempts: Some(1000),
            initial_backoff: Some(Duration::from_nanos(1)),
            multiplier: Some(1.1 + f64::EPSILON),
            max_backoff: Some(Limits::BACKOFF),
            jitter: Some(1.0 / 3.0),
            non_retryable_kinds: vec!["BAD_INPUT".to_owned()],
            max_crashes: Some(7),
        })
        .expect("a policy");
        spec.idempotency = Some(oxcart_types::Idempotency {
            key: "Schlüssel".to_owned(),
            policy: oxcart_types::IdempotencyPolicy::Reject,
            ttl: Limits::IDEMPOTENCY_TTL,
        });
        spec.fairness_key = Some("mieter ö".parse().expect("a key"));
    });
    let plain = task();
    store.submit_units(vec![crate::support::unit(vec![plain.clone(), sent.clone()])]).await;
    let mut loaded = store.load(&[sent.spec.id, plain.spec.id, task_id()]).await.expect("load");
    loaded.sort_by_key(|row| row.spec.id == sent.spec.id);
    assert_eq!(loaded.len(), 2);
    assert_eq!(loaded[0].spec, plain.spec);
    assert_eq!(loaded[1].spec, sent.spec);
    assert_eq!(loaded[1].created_at, at(0));
    assert_eq!(loaded[1].spec.digest(), sent.digest);
    store.begin(sent.spec.id, 1, at(1)).await;
    assert_eq!(store.get_one(sent.spec.id).await.worker, Some(WorkerId::from_bytes([7; 16])));
}

/// Steps insert with "ignore", which on MySQL turns a value that does not fit into one that does: so the largest values that
/// are let through must come back whole, and larger ones must be errors.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn no_step_loses_a_column(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let id = store.submit_one(task_with(|spec| spec.retry = attempts(9))).await;
    let token = store.begin(id, 1, at(1)).await;
    let text = |bytes: usize| "ü".repeat(bytes / 2);
    let hard = Limits { payload_bytes: Limits::PAYLOAD_HARD_BYTES };
    let mut failure = Failure::new(text(Limits::ERROR_KIND_BYTES), "").retry_after(Limits::BACKOFF).fatal();
    failure.message = text(65_534);
    failure.detail = text(65_534);
    let moment = at(10) + TimeDelta::microseconds(999_999);
    let largest = oxcart_store::End {
        attempts_used: i32::MAX as u32,
        result: Some(
            Payload::bytes(vec![255; Limits::PAYLOAD_HARD_BYTES], &"t".repeat(Limits::CONTENT_TYPE_BYTES), &hard).expect("bytes"),
        ),
        failure: Some(failure.clone()),
        next_run_at: Some(moment),
        ..end(id, 1, token, EndKind::Retry)
    };
    let longer = |change: &dyn Fn(&mut Failure)| {
        let mut failure = failure.clone();
        change(&mut failure);
        oxcart_store::End { failure: Some(failure), ..largest.clone() }
    };
    let too_large = [
        longer(&|failure| failure.message = text(65_536)),
        longer(&|failure| failure.detail = text(65_536)),
        longer(&|failure| failure.retry_after = Some(Duration::MAX)),
        oxcart_store::End { attempts_used: u32::MAX, ..largest.clone() },
        oxcart_store::End {
            result: Some(Payload::from_stored("t".repeat(Limits::CONTENT_TYPE_BYTES + 1), vec![])),
            ..largest.clone()
        },
        oxcart_store::End { result: Some(Payload::from_stored("t".to_owned(), vec![0; 1 << 24])), ..largest.clone() },
    ];
    for end in too_large {
        let refused = store.end(&[end], at(2)).await;
        assert!(matches!(refused, Err(oxcart_store::StoreError::Refused(_))), "{refused:?}");
    }
    let beyond = oxcart_store::Start { run: run(u32::MAX), ..start(id, 1) };
    assert!(store.start(&[beyond], at(2)).await.is_err());
    let endless = oxcart_store::Cancel { grace: Duration::MAX, ..cancel() };
    assert!(store.request_cancel(id, &endless).await.is_err());
    let talkative = oxcart_store::Cancel { reason: text(65_536), ..cancel() };
    assert!(store.request_cancel(id, &talkative).await.is_err());
    assert_eq!(store.state(id).await, TaskState::Running, "nothing of all this was written");

    let ended_at = at(2) + TimeDelta::microseconds(1);
    assert_eq!(store.end_one(largest.clone(), ended_at).await, EndOutcome::Written(EndKind::Retry));
    let record = store.get_one(id).await;
    let link = record.runs[0].end.as_ref().expect("an end");
    assert_eq!((link.at, link.next_run_at, &link.failure), (ended_at, Some(moment), &Some(failure)));
    assert_eq!(record.head.attempts_used(), i32::MAX as u32);
    assert_eq!(record.result, largest.result);
    let last = oxcart_store::Cancel { reason: text(65_534), grace: Duration::from_nanos(1), ..cancel() };
    store.request_cancel(id, &last).await.expect("cancel");
    assert_eq!(store.get_one(id).await.cancel, Some(last));
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn crashes_are_counted_apart_from_failures(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let parts = RetryPolicyParts { max_attempts: Some(100), max_crashes: Some(2), ..RetryPolicyParts::default() };
    let retry = RetryPolicy::new(parts).expect("a policy");
    let id = store.submit_one(task_with(|spec| spec.retry = retry.clone())).await;
    assert_eq!(store.load(&[id]).await.expect("load")[0].spec.retry, retry);
    let lost = |number| TakeOver { task: id, run: run(number), by: token(), silent_since: at(1000) };
    let crash = async |number: u32| {
        store.begin(id, number, at(100)).await;
        store.take_over(&[lost(number)], at(100)).await.expect("taken over").remove(0)
    };
    assert_eq!(crash(1).await, TakeOverOutcome::Ended(EndKind::Lost));
    // A failure between does not forgive a crash, nor does it count as one.
    let token = store.begin(id, 2, at(100)).await;
    store.end_one(end(id, 2, token, EndKind::Retry), at(100)).await;
    assert_eq!(crash(3).await, TakeOverOutcome::Ended(EndKind::Failed));
    let record = store.get_one(id).await;
    let failure = record.failure.expect("why");
    assert_eq!((record.state, failure.kind.as_str(), failure.fatal), (TaskState::Failed, "POISON", true));
    // A replay begins with a clean slate.
    store.replay_one(replay(id), at(101)).await;
    assert_eq!(crash(4).await, TakeOverOutcome::Ended(EndKind::Lost));
}
