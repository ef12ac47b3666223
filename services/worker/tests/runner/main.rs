//! The worker on the real store, with a scripted dispatcher: what becomes of tasks, and of every kind of trouble.

#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]
#![expect(unreachable_pub, reason = "the modules of a test are its own")]

mod logs;
mod support;

use std::{sync::atomic::Ordering, time::Duration};

use oxcart_proto::pb::{
    common::v1::{LeaseKey, WorkerState},
    dispatcher::v1::{CancelNotice, open_session_response::Message},
    worker::v1::{DrainWorkerRequest, GetWorkerRequest, ListRunningTasksRequest},
};
use oxcart_store::model::{Cancel, Replay, ReplayOutcome, Start, StartOutcome, TakeOver, TakeOverOutcome};
use oxcart_types::{
    Clock as _, EndKind, IdSource as _, LeaseToken, ReplaySpec, Run, SystemClock, SystemIds, TaskSpec, TaskState, WorkerId,
};
use oxcart_worker::config::LinkMode;
use support::{Rig, config, dispatcher::Dispatcher};

fn ends(record: &oxcart_store::model::TaskRecord) -> Vec<EndKind> {
    record.runs.iter().filter_map(|run| run.end.as_ref().map(|end| end.kind)).collect()
}

fn kind(record: &oxcart_store::model::TaskRecord) -> &str {
    record.failure.as_ref().map_or("", |failure| failure.kind.as_str())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_succeeds_and_its_lease_is_settled_after_its_end() {
    let rig = Rig::start().await;
    let id = rig.run("echo", r#"{"n":1.50}"#, 1).await;
    assert_eq!(rig.settles(id, 1).await, ["done"]);
    // No waiting here: the end was written before the settle.
    let record = rig.record(id).await;
    assert_eq!(record.state, TaskState::Succeeded);
    assert_eq!(record.result.as_ref().map(oxcart_types::Payload::as_bytes), Some(br#"{"n":1.50}"#.as_slice()));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_judged_and_tried_again() {
    let rig = Rig::start().await;
    let retried = rig.run("flaky", r#"{"times":2}"#, 5).await;
    let record = rig.wait_state(retried, TaskState::Succeeded).await;
    assert_eq!(ends(&record), [EndKind::Retry, EndKind::Retry, EndKind::Succeeded]);
    assert_eq!(rig.settles(retried, 3).await, ["failed Flaky next 2", "failed Flaky next 3", "done"]);
    let fatal = rig.run("flaky", r#"{"times":2,"fatal":true,"kind":"Bad"}"#, 5).await;
    assert_eq!(kind(&rig.wait_state(fatal, TaskState::Failed).await), "Bad");
    assert_eq!(rig.settles(fatal, 1).await, ["failed Bad next 0"]);
    let panics = rig.run("panics", "null", 1).await;
    assert_eq!(kind(&rig.wait_state(panics, TaskState::Failed).await), "PANIC");
    let misfit = rig.run("gated", "[1]", 3).await;
    assert_eq!(kind(&rig.wait_state(misfit, TaskState::Failed).await), "INVALID_PAYLOAD");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_run_gets_the_checkpoint_of_the_last() {
    let rig = Rig::start().await;
    let id = rig.run("steps", "null", 2).await;
    let record = rig.wait_state(id, TaskState::Succeeded).await;
    assert_eq!(record.result.as_ref().map(oxcart_types::Payload::as_bytes), Some(b"7".as_slice()));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_that_take_too_long_are_stopped() {
    let rig = Rig::start().await;
    let timeout = Some(Duration::from_millis(50));
    let polite = rig.submit(oxcart_types::TaskSpec { timeout, ..Rig::spec("sleep", r#"{"ms":60000}"#, 1) }).await;
    let deaf = rig.submit(oxcart_types::TaskSpec { timeout, ..Rig::spec("gated", "null", 1) }).await;
    for id in [polite, deaf] {
        rig.dispatcher.grant(id, 1);
        assert_eq!(kind(&rig.wait_state(id, TaskState::Failed).await), "TIMEOUT");
    }
    // Neither says that it is at work.
    let heartbeat_timeout = Some(Duration::from_millis(50));
    for (name, input) in [("sleep", r#"{"ms":60000}"#), ("gated", "null")] {
        let id = rig.submit(oxcart_types::TaskSpec { heartbeat_timeout, ..Rig::spec(name, input, 1) }).await;
        rig.dispatcher.grant(id, 1);
        assert_eq!(kind(&rig.wait_state(id, TaskState::Failed).await), "HEARTBEAT_TIMEOUT");
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_costs_no_attempt() {
    let rig = Rig::start().await;
    let id = rig.run("releases", "null", 1).await;
    let record = rig.wait_state(id, TaskState::Succeeded).await;
    assert_eq!(ends(&record), [EndKind::Released, EndKind::Succeeded]);
    assert_eq!(record.result.as_ref().map(oxcart_types::Payload::as_bytes), Some(b"1".as_slice()));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_gives_back_for_ever_fails_in_the_end() {
    let rig = Rig::start_with(oxcart_worker::Config { max_releases: 2, ..config() }, Dispatcher::default()).await;
    let id = rig.run("never", "null", 2).await;
    let record = rig.wait_state(id, TaskState::Failed).await;
    assert_eq!(ends(&record), [EndKind::Released, EndKind::Released, EndKind::Retry, EndKind::Failed]);
    assert_eq!(kind(&record), "RELEASE_LIMIT");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_task_is_cancelled_by_notice_or_by_sql() {
    let rig = Rig::start().await;
    let cancel = Cancel { reason: "enough".to_owned(), requested_at: SystemClock.now(), grace: Duration::from_millis(50) };
    for notified in [true, false] {
        let id = rig.run("gated", "null", 3).await;
        rig.wait_state(id, TaskState::Running).await;
        rig.store.store.request_cancel(id, &cancel).await.expect("a cancel");
        if notified {
            let leases = vec![LeaseKey { task_id: id.to_string(), run: 1, lease_token: Vec::new() }];
            rig.dispatcher.tell(Message::Cancel(CancelNotice { leases, ..Default::default() }));
        }
        rig.wait_state(id, TaskState::Cancelled).await;
        assert_eq!(rig.settles(id, 1).await, ["cancelled"]);
    }
    rig.stop().await;
}

/// Ends a task as its worker would, and opens it again.
async fn replayed(rig: &Rig, spec: oxcart_types::TaskSpec, replay: ReplaySpec) -> oxcart_types::TaskId {
    let id = rig.submit(spec).await;
    rig.dispatcher.grant(id, 1);
    rig.wait_state(id, TaskState::Failed).await;
    rig.settles(id, 1).await;
    let replay = Replay { task: id, by: LeaseToken::from_bytes([9; 16]), spec: replay, request: None };
    let outcome = rig.store.store.replay(&[replay], SystemIds.handoff_id(), SystemClock.now()).await.expect("an answer");
    assert!(matches!(outcome.as_slice(), [ReplayOutcome::Replayed(_)]), "{outcome:?}");
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_has_a_budget_of_its_own() {
    let rig = Rig::start().await;
    let spec = ReplaySpec { max_attempts: Some(3), ..ReplaySpec::default() };
    // One attempt by its policy, then three.
    let id = replayed(&rig, Rig::spec("flaky", r#"{"times":9}"#, 1), spec).await;
    rig.dispatcher.grant(id, 2);
    let record = rig.wait_state(id, TaskState::Failed).await;
    assert_eq!(ends(&record), [EndKind::Failed, EndKind::Retry, EndKind::Retry, EndKind::Failed]);
    assert_eq!(record.runs.iter().map(|run| run.attempt).collect::<Vec<_>>(), [1, 1, 2, 3]);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deadline_of_a_replay_counts_from_the_replay() {
    let rig = Rig::start().await;
    let deadline = Duration::from_secs(60);
    let spec = oxcart_types::TaskSpec { deadline: Some(deadline), ..Rig::spec("again", "null", 1) };
    let id = replayed(&rig, spec, ReplaySpec::default()).await;
    rig.dispatcher.grant(id, 2);
    rig.wait_state(id, TaskState::Running).await;
    rig.gate.notify_one();
    let record = rig.wait_state(id, TaskState::Succeeded).await;
    let told: i64 = serde_json::from_slice(record.result.expect("a result").as_bytes()).expect("a number");
    let first_end = record.runs[0].end.as_ref().expect("an end").at;
    assert!(told >= (first_end + deadline).timestamp_micros(), "the handler is told of the new deadline");
    rig.stop().await;
}

/// † An old cancel must not kill a replay.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_notice_that_comes_late_does_not_stop_a_replay() {
    let rig = Rig::start().await;
    let id = replayed(&rig, Rig::spec("again", "null", 1), ReplaySpec::default()).await;
    rig.dispatcher.grant(id, 2);
    rig.wait_state(id, TaskState::Running).await;
    let bystander = rig.run("gated", "null", 1).await;
    rig.wait_state(bystander, TaskState::Running).await;
    let leases = [(id, 1), (bystander, 1)].map(|(task, run)| LeaseKey { task_id: task.to_string(), run, lease_token: Vec::new() });
    rig.dispatcher.tell(Message::Cancel(CancelNotice { leases: leases.to_vec(), ..Default::default() }));
    // Heard, and acted upon for the run that it names.
    rig.wait_state(bystander, TaskState::Cancelled).await;
    rig.gate.notify_one();
    rig.wait_state(id, TaskState::Succeeded).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_start_is_given_back_closed_or_dropped() {
    let rig = Rig::start().await;
    let unknown = rig.run("nobody.has.this", "null", 1).await;
    assert_eq!(rig.settles(unknown, 1).await, ["released next 1 uncounted true"]);
    assert_eq!(rig.record(unknown).await.runs, []);
    let at = |seconds: i64| Some(SystemClock.now() + chrono::TimeDelta::seconds(seconds));
    let expired = rig.submit(oxcart_types::TaskSpec { expires_at: at(-1), ..Rig::spec("echo", "1", 1) }).await;
    rig.dispatcher.grant(expired, 1);
    assert_eq!(rig.settles(expired, 1).await, ["dropped TASK_STATE_EXPIRED"]);
    let record = rig.record(expired).await;
    assert_eq!((record.state, kind(&record)), (TaskState::Expired, "EXPIRED"));
    let early = rig.submit(oxcart_types::TaskSpec { run_at: at(60), ..Rig::spec("echo", "1", 1) }).await;
    rig.dispatcher.grant(early, 1);
    assert_eq!(rig.settles(early, 1).await, ["released next 1 uncounted true"]);
    let done = rig.run("echo", "1", 1).await;
    rig.wait_state(done, TaskState::Succeeded).await;
    rig.dispatcher.grant(done, 1);
    assert_eq!(rig.settles(done, 2).await, ["done", "dropped TASK_STATE_SUCCEEDED"]);
    let gone = Rig::spec("echo", "1", 1).id;
    rig.dispatcher.grant(gone, 1);
    assert_eq!(rig.settles(gone, 1).await, ["dropped TASK_STATE_UNSPECIFIED"]);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_run_is_taken_over_and_a_lively_one_is_not() {
    let rig = Rig::start().await;
    let id = rig.submit(Rig::spec("echo", "1", 3)).await;
    let dead = Start { task: id, run: Run::FIRST, token: LeaseToken::from_bytes([99; 16]), worker: WorkerId::from_bytes([99; 16]) };
    let started = rig.store.store.start(&[dead], SystemClock.now()).await.expect("a start");
    assert!(matches!(started.as_slice(), [StartOutcome::Started { .. }]));
    // Granted again at once: the run is younger than a lease, so the grant comes back until it is not.
    rig.dispatcher.grant(id, 1);
    let record = rig.wait_state(id, TaskState::Succeeded).await;
    assert_eq!(ends(&record), [EndKind::Lost, EndKind::Succeeded]);
    let settles = rig.settles(id, 2).await;
    assert_eq!(settles.first().map(String::as_str), Some("released next 1 uncounted true"), "{settles:?}");
    assert_eq!(settles.last().map(String::as_str), Some("done"), "{settles:?}");
    rig.stop().await;
}

/// It did start in time: what expires while its worker is dead is run again, not left to wait for a start that it has had.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_run_is_taken_over_after_the_task_would_have_expired() {
    let rig = Rig::start().await;
    let expires_at = Some(SystemClock.now() + chrono::TimeDelta::milliseconds(300));
    let id = rig.submit(TaskSpec { expires_at, ..Rig::spec("echo", "1", 3) }).await;
    let dead = Start { task: id, run: Run::FIRST, token: LeaseToken::from_bytes([99; 16]), worker: WorkerId::from_bytes([99; 16]) };
    let started = rig.store.store.start(&[dead], SystemClock.now()).await.expect("a start");
    assert!(matches!(started.as_slice(), [StartOutcome::Started { .. }]));
    rig.dispatcher.grant(id, 1);
    let record = rig.wait_state(id, TaskState::Succeeded).await;
    assert_eq!(ends(&record), [EndKind::Lost, EndKind::Succeeded]);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_comes_twice_runs_once() {
    let rig = Rig::start().await;
    let id = rig.submit(Rig::spec("gated", "null", 1)).await;
    let grant = rig.dispatcher.grant(id, 1);
    rig.wait_state(id, TaskState::Running).await;
    rig.dispatcher.send_grant(grant);
    rig.gate.notify_one();
    rig.wait_state(id, TaskState::Succeeded).await;
    assert_eq!(rig.settles(id, 1).await, ["done"]);
    rig.stop().await;
}

/// With one thread for everything else, too: a handler that took it would be seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_handler_that_blocks_its_thread_starves_no_heartbeat() {
    let rig = Rig::start_with(oxcart_worker::Config { handler_threads: 1, ..config() }, Dispatcher::default()).await;
    let id = rig.run("blocks", "null", 1).await;
    let is_it = |key: &&LeaseKey| key.task_id == id.to_string();
    rig.wait_heard("heartbeats for it", |heard| heard.extended.iter().filter(is_it).count() >= 5).await;
    assert!(rig.dispatcher.heard().settles.is_empty(), "it is blocked all the while");
    assert_eq!(rig.settles(id, 1).await, ["done"]);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_stream_is_opened_again_with_the_leases_held() {
    let rig = Rig::start().await;
    let id = rig.run("gated", "null", 1).await;
    rig.wait_state(id, TaskState::Running).await;
    rig.wait_heard("the start to be confirmed", |heard| !heard.confirmed.is_empty()).await;
    rig.dispatcher.break_stream();
    rig.wait_heard("a second session", |heard| heard.opens.len() == 2).await;
    let held: Vec<_> =
        rig.dispatcher.heard().opens[1].held.iter().filter_map(|held| held.lease.clone()).map(|key| key.task_id).collect();
    assert_eq!(held, [id.to_string()]);
    rig.gate.notify_one();
    assert_eq!(rig.settles(id, 1).await, ["done"]);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settle_without_an_answer_is_sent_again() {
    let rig = Rig::start().await;
    rig.dispatcher.heard().keep_settle_answers = true;
    let id = rig.run("echo", "1", 1).await;
    rig.settles(id, 1).await;
    rig.dispatcher.heard().keep_settle_answers = false;
    rig.dispatcher.break_stream();
    assert_eq!(rig.settles(id, 2).await, ["done", "done"]);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_waits_for_the_database_and_no_new_tasks_are_taken() {
    let rig = Rig::start().await;
    let id = rig.run("gated", "null", 1).await;
    rig.wait_state(id, TaskState::Running).await;
    rig.store.set_down(true);
    rig.gate.notify_one();
    rig.wait_heard("the window to close", |heard| heard.slots == 0).await;
    let beats = rig.dispatcher.heard().heartbeats;
    rig.wait_heard("the lease to be kept", |heard| heard.heartbeats > beats + 2).await;
    assert!(rig.dispatcher.heard().settles.is_empty());
    rig.store.set_down(false);
    rig.wait_state(id, TaskState::Succeeded).await;
    assert_eq!(rig.settles(id, 1).await, ["done"]);
    rig.wait_heard("the window to open", |heard| heard.slots > 0).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_the_database_refuses_holds_nobody_up_and_fails() {
    let rig = Rig::start().await;
    let bad = rig.submit(Rig::spec("echo", "1", 1)).await;
    rig.store.refuse_result_of(bad);
    let good = rig.submit(Rig::spec("echo", "2", 1)).await;
    rig.dispatcher.grant(bad, 1);
    rig.dispatcher.grant(good, 1);
    rig.wait_state(good, TaskState::Succeeded).await;
    let record = rig.wait_state(bad, TaskState::Failed).await;
    let failure = record.failure.expect("a failure");
    assert!(failure.message.contains("could not be stored") && failure.message.contains("refused by the test"), "{failure:?}");
    // The database is not taken for absent: work goes on.
    let next = rig.run("echo", "3", 1).await;
    rig.wait_state(next, TaskState::Succeeded).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_said_to_be_lost_stops_nothing_while_sql_disagrees() {
    let rig = Rig::start().await;
    rig.dispatcher.heard().say_lost = true;
    let id = rig.run("gated", "null", 1).await;
    rig.wait_heard("the start to be reported", |heard| !heard.confirmed.is_empty()).await;
    let beats = rig.dispatcher.heard().heartbeats;
    rig.wait_heard("some heartbeats", |heard| heard.heartbeats > beats + 3).await;
    rig.gate.notify_one();
    rig.wait_state(id, TaskState::Succeeded).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_somebody_took_over_is_stopped_and_writes_nothing() {
    // The drain would wait longer than the test does: only the loss stops the handler.
    let patient = oxcart_worker::Config { drain_timeout: 10 * support::PATIENCE, ..config() };
    let rig = Rig::start_with(patient, Dispatcher::default()).await;
    let id = rig.run("gated", "null", 3).await;
    rig.wait_heard("the start to be confirmed", |heard| !heard.confirmed.is_empty()).await;
    // Another worker that takes this one for silent.
    let (by, now) = (LeaseToken::from_bytes([98; 16]), SystemClock.now());
    let take_over = TakeOver { task: id, run: Run::FIRST, by, silent_since: now + chrono::TimeDelta::seconds(60) };
    let taken = rig.store.store.take_over(&[take_over], now).await.expect("an answer");
    assert_eq!(taken, [TakeOverOutcome::Ended(EndKind::Lost)]);
    rig.dispatcher.heard().say_lost = true;
    let (dispatcher, store, metrics) = (rig.dispatcher.clone(), rig.store.clone(), rig.metrics.clone());
    rig.stop().await;
    // Once, however often the dispatcher says it.
    let text = metrics.encode().expect("a text");
    assert!(text.contains("\noxcart_worker_leases_lost_total 1\n"), "{text}");
    let record = store.store.get(&[id], oxcart_store::model::View::Full).await.expect("an answer").remove(0).expect("a task");
    assert_eq!(ends(&record), [EndKind::Lost]);
    assert_eq!(dispatcher.heard().settles, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_took_long_is_looked_at_again_before_the_handler_is_entered() {
    let rig = Rig::start().await;
    let long = Duration::from_millis(2100);
    // Taken over meanwhile: not entered at all. Still this worker's, and too late to begin: given back.
    for taken_over in [true, false] {
        rig.store.hold_starts(true);
        let granted = std::time::Instant::now();
        let id = rig.run("counts", "null", 1).await;
        rig.wait_state(id, TaskState::Running).await;
        if taken_over {
            let (by, now) = (LeaseToken::from_bytes([97; 16]), SystemClock.now());
            let take_over = TakeOver { task: id, run: Run::FIRST, by, silent_since: now + chrono::TimeDelta::seconds(60) };
            rig.store.store.take_over(&[take_over], now).await.expect("an answer");
        }
        oxcart_testkit::wait_for("the claim to grow old", support::PATIENCE, async || (granted.elapsed() > long).then_some(()))
            .await
            .expect("time passes");
        rig.store.hold_starts(false);
        if taken_over {
            assert_eq!(rig.settles(id, 1).await, ["dropped TASK_STATE_UNSPECIFIED"]);
            assert_eq!(rig.entered.load(Ordering::SeqCst), 0);
        } else {
            let record = rig.wait_state(id, TaskState::Succeeded).await;
            assert_eq!((ends(&record), record.head.attempts_used()), (vec![EndKind::Released, EndKind::Succeeded], 1));
            assert_eq!(rig.entered.load(Ordering::SeqCst), 1);
        }
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_with_unknown_outcome_are_repeated_and_count_once() {
    let rig = Rig::start().await;
    rig.store.lose_answers(2);
    let id = rig.run("releases", "null", 1).await;
    let record = rig.wait_state(id, TaskState::Succeeded).await;
    assert_eq!(ends(&record), [EndKind::Released, EndKind::Succeeded]);
    assert_eq!(rig.settles(id, 2).await, ["released next 2 uncounted false", "done"]);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_gives_back_what_runs_without_using_an_attempt() {
    let rig = Rig::start().await;
    let polite = rig.run("sleep", r#"{"ms":60000}"#, 1).await;
    let deaf = rig.run("gated", "null", 1).await;
    for id in [polite, deaf] {
        rig.wait_state(id, TaskState::Running).await;
    }
    let (dispatcher, store) = (rig.dispatcher.clone(), rig.store.clone());
    rig.stop().await;
    for id in [polite, deaf] {
        let found = store.store.get(&[id], oxcart_store::model::View::Full).await.expect("an answer");
        let record = found.into_iter().next().flatten().expect("a task");
        assert_eq!((ends(&record), record.head.attempts_used()), (vec![EndKind::Released], 0), "{record:?}");
    }
    let heard = dispatcher.heard();
    assert_eq!((heard.slots, heard.settles.len(), heard.goodbyes), (0, 2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_what_runs_and_drain_by_call() {
    let rig = Rig::start().await;
    let mut control = rig.control.clone();
    let mut ids = Vec::new();
    for _ in 0..3 {
        let id = rig.run("sleep", r#"{"ms":60000}"#, 1).await;
        rig.wait_state(id, TaskState::Running).await;
        ids.push(id.to_string());
    }
    let first = ListRunningTasksRequest { page_size: 2, ..Default::default() };
    let first = control.list_running_tasks(first).await.expect("a page").into_inner();
    let second = ListRunningTasksRequest { page_size: 2, page_token: first.next_page_token };
    let second = control.list_running_tasks(second).await.expect("a page").into_inner();
    let listed: Vec<_> = first.tasks.into_iter().chain(second.tasks).map(|task| task.task_id).collect();
    assert_eq!((listed, second.next_page_token.as_str()), (ids, ""));
    for bad in [
        ListRunningTasksRequest { page_size: -1, ..Default::default() },
        ListRunningTasksRequest { page_token: "x".to_owned(), ..Default::default() },
    ] {
        assert_eq!(control.list_running_tasks(bad).await.expect_err("refused").code(), tonic::Code::InvalidArgument);
    }
    let timeout = Some(prost_types::Duration { seconds: -1, nanos: 0 });
    let refused = control.drain_worker(DrainWorkerRequest { timeout, wait: true }).await.expect_err("refused");
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    let timeout = Some(prost_types::Duration::default());
    let drained = control.drain_worker(DrainWorkerRequest { timeout, wait: true }).await.expect("drained").into_inner();
    assert_eq!(drained.released_count, 3);
    let worker = control.get_worker(GetWorkerRequest {}).await.expect("a worker").into_inner();
    assert_eq!(worker.worker.map(|worker| worker.state()), Some(WorkerState::Draining));
    assert!(worker.handlers.iter().any(|handler| handler.task_name == "echo"));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_polls_do_where_streams_do_not_pass() {
    for link in [LinkMode::Unary, LinkMode::Auto] {
        let dispatcher = Dispatcher::default();
        dispatcher.heard().refuse_streams = true;
        let rig = Rig::start_with(oxcart_worker::Config { link, ..config() }, dispatcher).await;
        let id = rig.run("flaky", r#"{"times":1}"#, 2).await;
        rig.wait_state(id, TaskState::Succeeded).await;
        assert_eq!(rig.settles(id, 2).await, ["failed Flaky next 2", "done"]);
        rig.stop().await;
    }
}
