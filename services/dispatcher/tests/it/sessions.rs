//! Sessions.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use oxcart_dispatcher::Config;
use oxcart_proto::pb::common::v1 as common;
use oxcart_proto::pb::dispatcher::v1::{self as pb, open_session_request::Message as Request, open_session_response::Message};
use oxcart_queue::{EngineOptions, MemoryEngine};
use oxcart_types::{Clock as _, ManualClock, SystemClock, WorkerId};
use tokio::time::timeout;
use tonic::Code;

use crate::harness::{
    Faulty, PATIENCE, Served, Worker, done, engine, held, key, lease_key, new_worker, settle, to_duration, window, worker_info,
};

fn ids_of(grants: &[pb::Grant]) -> HashSet<String> {
    grants.iter().map(|grant| grant.task_id.clone()).collect()
}

#[tokio::test]
async fn a_task_lives_its_life_over_the_stream() {
    let served = Served::plain().await;
    let tasks = served.enqueue(1, None).await;
    let (mut worker, opened) = Worker::open(&served, new_worker(), 4, Vec::new()).await;
    assert_eq!((opened.protocol_version, opened.claim_ttl), (1, Some(to_duration(Duration::from_secs(10)))));
    let first = worker.grants(1).await;
    assert_eq!((first[0].task_id.as_str(), first[0].run, first[0].deliveries, first[0].priority), (tasks[0].as_str(), 1, 1, 4));

    worker.send(Request::Starts(pb::LeaseReport { sequence: 5, leases: vec![held(&first[0])] })).await;
    let Message::Extended(extended) = worker.next().await else { panic!("extended") };
    assert_eq!((extended.sequence, extended.exceptions.len(), extended.counted_leases), (5, 0, 1));

    let failure = pb::Failure { lease: Some(lease_key(&first[0])), queue: "default".into(), attempt: 1, ..Default::default() };
    worker.send(Request::Failures(pb::FailureReport { sequence: 6, failures: vec![failure] })).await;
    let Message::Verdicts(verdicts) = worker.next().await else { panic!("verdicts") };
    assert!(matches!(verdicts.verdicts[0].decision, Some(pb::verdict::Decision::RetryIn(_))), "{verdicts:?}");

    let retry = pb::SettleFailed { next_run: 2, retry_in: Some(to_duration(Duration::from_millis(50))), error: None };
    let report = pb::SettleReport { sequence: 8, settles: vec![settle(&first[0], pb::settle::Outcome::Failed(retry))] };
    worker.send(Request::Settle(report)).await;
    let Message::Settled(settled) = worker.next().await else { panic!("settled") };
    assert_eq!((settled.sequence, settled.exceptions), (8, Vec::new()));

    let second = worker.grants(1).await;
    assert_eq!((second[0].run, second[0].priority), (2, 4), "the next run keeps its place");
    worker.send(Request::Settle(done(&second))).await;
    let Message::Settled(settled) = worker.next().await else { panic!("settled") };
    assert_eq!(settled.exceptions, Vec::new());
    assert_eq!(served.counts().await, (0, 0, 0));

    worker.send(Request::Settle(done(&second))).await;
    let Message::Settled(again) = worker.next().await else { panic!("settled") };
    assert_eq!(again.exceptions[0].status(), pb::LeaseStatus::Unknown);
}

#[tokio::test]
async fn the_window_is_respected_and_settles_are_answered_with_grants() {
    let served = Served::plain().await;
    served.enqueue(10, None).await;
    let (mut worker, _) = Worker::open(&served, new_worker(), 3, Vec::new()).await;
    let first = worker.grants(3).await;
    worker.silent().await;
    worker.send(Request::Settle(done(&first[..2]))).await;
    let (mut settled, mut granted) = (false, 0);
    while !settled || granted < 2 {
        match worker.next().await {
            Message::Settled(_) => settled = true,
            Message::Grants(batch) => granted += batch.grants.len(),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(granted, 2);
    worker.send(Request::Window(window(2, 5))).await;
    worker.grants(2).await;
    worker.send(Request::Window(window(1, 9))).await;
    worker.silent().await;
    worker.send(Request::Goodbye(pb::SessionGoodbye::default())).await;
    worker.send(Request::Window(window(3, 9))).await;
    worker.silent().await;
}

#[tokio::test]
async fn leases_outlive_the_stream_and_count_in_the_next_one() {
    let served = Served::plain().await;
    served.enqueue(3, None).await;
    let id = new_worker();
    let (mut first, _) = Worker::open(&served, id, 2, Vec::new()).await;
    let grants = first.grants(2).await;
    let (mut second, opened) = Worker::open(&served, id, 2, grants.iter().map(held).collect()).await;
    let answer = opened.held.expect("what became of held");
    assert_eq!((answer.exceptions.len(), answer.counted_leases), (0, 2));
    let superseded = first.try_next().await.expect_err("the older stream ends");
    assert_eq!(superseded.code(), Code::Aborted);
    assert_eq!(oxcart_service::status::reason_of(&superseded).as_deref(), Some("SESSION_SUPERSEDED"));
    second.silent().await;
    second.send(Request::Settle(done(&grants))).await;
    let mut granted = 0;
    while granted < 1 {
        if let Message::Grants(batch) = second.next().await {
            granted += batch.grants.len();
        }
    }
}

#[tokio::test]
async fn a_session_must_be_opened_once() {
    let served = Served::plain().await;
    let refused = Worker::raw(&served, Request::Window(window(1, 1))).await.err().expect("not open");
    assert_eq!(
        (refused.code(), oxcart_service::status::reason_of(&refused).as_deref()),
        (Code::FailedPrecondition, Some("SESSION_NOT_OPEN"))
    );
    let (mut worker, _) = Worker::open(&served, new_worker(), 1, Vec::new()).await;
    worker.send(Request::Open(pb::SessionOpen { protocol_version: 1, ..Default::default() })).await;
    assert_eq!(worker.try_next().await.expect_err("second open").code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_poll_gets_what_a_stream_gets() {
    let served = Served::plain().await;
    let tasks = served.enqueue(3, None).await;
    let id = new_worker();
    let request = |held_leases| pb::PollGrantsRequest {
        protocol_version: 1,
        worker: Some(worker_info(id)),
        window: Some(window(1, 2)),
        held_leases,
        max_wait: Some(to_duration(Duration::from_millis(300))),
        held: Vec::new(),
    };
    let mut client = served.sessions();
    let first = client.poll_grants(request(0)).await.expect("polled").into_inner();
    assert_eq!(first.settings.expect("settings").protocol_version, 1);
    let grants: Vec<_> = first.grants.into_iter().flat_map(|batch| batch.grants).collect();
    assert_eq!(ids_of(&grants), tasks[..2].iter().cloned().collect());
    let none = client.poll_grants(request(2)).await.expect("polled").into_inner();
    assert_eq!(none.grants, Vec::new());

    let worker_id = id.to_string();
    let starts = Some(pb::LeaseReport { sequence: 1, leases: grants.iter().map(held).collect() });
    let confirmed =
        client.confirm_starts(pb::ConfirmStartsRequest { worker_id: worker_id.clone(), starts }).await.expect("confirmed");
    assert_eq!(confirmed.into_inner().result.expect("result").exceptions, Vec::new());
    let settled = client.settle_leases(pb::SettleLeasesRequest { worker_id, settle: Some(done(&grants)) }).await.expect("settled");
    assert_eq!(settled.into_inner().result.expect("result").exceptions, Vec::new());
    let rest = client.poll_grants(request(0)).await.expect("polled").into_inner();
    assert_eq!(rest.grants[0].grants[0].task_id, tasks[2]);
}

/// A poll of a worker with one slot.
fn poll(id: WorkerId, held: Vec<pb::HeldLease>) -> pb::PollGrantsRequest {
    pb::PollGrantsRequest {
        protocol_version: 1,
        worker: Some(worker_info(id)),
        window: Some(window(1, 1)),
        held_leases: 0,
        max_wait: Some(to_duration(PATIENCE * 3)),
        held,
    }
}

#[tokio::test]
async fn a_poll_without_a_free_slot_is_served_when_a_lease_that_it_named_is_settled() {
    let served = Served::plain().await;
    let tasks = served.enqueue(2, None).await;
    let id = new_worker();
    let mut client = served.sessions();
    let first = client.poll_grants(poll(id, Vec::new())).await.expect("polled").into_inner();
    let grants = first.grants[0].grants.clone();
    let second = tokio::spawn({
        let (mut client, request) = (served.sessions(), poll(id, grants.iter().map(held).collect()));
        async move { client.poll_grants(request).await.expect("polled").into_inner() }
    });
    // The poll is there before its lease is settled.
    let mut dispatcher = served.dispatcher();
    timeout(PATIENCE, async {
        loop {
            let seen = dispatcher.list_sessions(pb::ListSessionsRequest::default()).await.expect("sessions").into_inner();
            if seen.sessions.iter().any(|session| session.counted_leases == 1) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the poll is seen");
    let settle = pb::SettleLeasesRequest { worker_id: id.to_string(), settle: Some(done(&grants)) };
    client.settle_leases(settle).await.expect("settled");
    let answer = timeout(PATIENCE, second).await.expect("before the poll ends").expect("no panic");
    assert_eq!(answer.grants[0].grants[0].task_id, tasks[1]);
}

#[tokio::test]
async fn a_cancel_between_two_polls_is_told_by_the_next_heartbeat_or_poll() {
    let served = Served::plain().await;
    let tasks = served.enqueue(2, None).await;
    let id = new_worker();
    let mut client = served.sessions();
    let mut grants = Vec::new();
    for _ in 0..2 {
        let answer = client.poll_grants(poll(id, Vec::new())).await.expect("polled").into_inner();
        grants.extend(answer.grants.into_iter().flat_map(|batch| batch.grants));
    }
    let remove = pb::RemoveTasksRequest {
        keys: tasks.iter().map(|task| key(task, 1)).collect(),
        notify_holder: true,
        reason: "why".into(),
        ..Default::default()
    };
    served.dispatcher().remove_tasks(remove).await.expect("removed");
    let heartbeat = Some(pb::LeaseReport { sequence: 1, leases: vec![held(&grants[0])] });
    let request = pb::ExtendLeasesRequest { worker_id: id.to_string(), heartbeat };
    let told = client.extend_leases(request.clone()).await.expect("extended").into_inner().cancels;
    assert_eq!(told.iter().map(|notice| notice.leases[0].task_id.as_str()).collect::<Vec<_>>(), [grants[0].task_id.as_str()]);
    assert_eq!(told[0].reason, "why");
    assert_eq!(client.extend_leases(request).await.expect("extended").into_inner().cancels, [], "told once");
    // The slot is taken, so that only the cancel can end this poll before its time.
    let polled = timeout(PATIENCE, client.poll_grants(poll(id, vec![held(&grants[1])]))).await.expect("at once").expect("polled");
    let told = polled.into_inner().cancels;
    assert_eq!(told.iter().map(|notice| notice.leases[0].task_id.as_str()).collect::<Vec<_>>(), [grants[1].task_id.as_str()]);
}

#[tokio::test]
async fn grants_are_spread_over_sessions() {
    let served = Served::plain().await;
    let (mut a, _) = Worker::open(&served, new_worker(), 10, Vec::new()).await;
    let (mut b, _) = Worker::open(&served, new_worker(), 10, Vec::new()).await;
    let tasks = served.enqueue(10, None).await;
    let (mine, yours) = tokio::join!(a.grants(5), b.grants(5));
    assert_eq!(&ids_of(&mine) | &ids_of(&yours), tasks.into_iter().collect());
}

#[tokio::test]
async fn a_delayed_task_is_granted_at_its_time() {
    let config = Config { grant_poll: PATIENCE * 9, tick_period: PATIENCE * 9, ..Config::default() };
    let served = Served::start(engine(), config).await;
    let (mut worker, _) = Worker::open(&served, new_worker(), 1, Vec::new()).await;
    let began = std::time::Instant::now();
    served.enqueue(1, Some(Duration::from_millis(300))).await;
    worker.grants(1).await;
    assert!(began.elapsed() >= Duration::from_millis(290), "{:?}", began.elapsed());
}

#[tokio::test]
async fn what_another_replica_takes_in_is_granted_here() {
    let engine = engine();
    let config = Config { grant_poll: PATIENCE * 9, ..Config::default() };
    let here = Served::start(engine.clone(), config.clone()).await;
    let there = Served::start(engine, config).await;
    let (mut worker, _) = Worker::open(&here, new_worker(), 1, Vec::new()).await;
    let tasks = there.enqueue(1, None).await;
    assert_eq!(worker.grants(1).await[0].task_id, tasks[0]);
}

#[tokio::test]
async fn the_holder_of_a_removed_task_is_told() {
    let served = Served::plain().await;
    let (mut worker, _) = Worker::open(&served, new_worker(), 1, Vec::new()).await;
    let tasks = served.enqueue(1, None).await;
    worker.grants(1).await;
    let request =
        pb::RemoveTasksRequest { keys: vec![key(&tasks[0], 1)], notify_holder: true, reason: "why".into(), ..Default::default() };
    let answer = served.dispatcher().remove_tasks(request).await.expect("removed").into_inner();
    assert_eq!(answer.statuses, [i32::from(pb::RemoveStatus::Leased)]);
    let Message::Cancel(notice) = worker.next().await else { panic!("cancel") };
    assert_eq!((notice.leases[0].task_id.as_str(), notice.reason.as_str()), (tasks[0].as_str(), "why"));
}

#[tokio::test]
async fn a_lease_that_runs_out_is_granted_again_and_its_slot_comes_back() {
    let config = Config { claim_ttl: Duration::from_millis(200), ..Config::default() };
    let served = Served::start(engine(), config).await;
    let (mut worker, _) = Worker::open(&served, new_worker(), 1, Vec::new()).await;
    served.enqueue(1, None).await;
    let first = worker.grants(1).await;
    let again = worker.grants(1).await;
    assert_eq!((again[0].task_id.as_str(), again[0].deliveries), (first[0].task_id.as_str(), 2));
    assert_ne!(again[0].lease_token, first[0].lease_token);
    served.assert_counted("redeliveries", 1);
    worker.send(Request::Heartbeat(pb::LeaseReport { sequence: 1, leases: vec![held(&first[0])] })).await;
    let Message::Extended(result) = worker.next().await else { panic!("extended") };
    assert_eq!(result.exceptions[0].status(), pb::LeaseStatus::Lost);
    assert!(matches!(worker.next().await, Message::Lost(_)));
}

#[tokio::test]
async fn a_worker_that_said_goodbye_is_listed_as_stopped() {
    let served = Served::plain().await;
    let id = new_worker();
    let states = async || {
        let listed = served.dispatcher().list_sessions(pb::ListSessionsRequest::default()).await.expect("sessions").into_inner();
        listed.sessions.into_iter().filter_map(|session| session.worker).map(|info| info.state()).collect::<Vec<_>>()
    };
    let (worker, _) = Worker::open(&served, id, 1, Vec::new()).await;
    assert_eq!(states().await.len(), 1);
    worker.send(Request::Goodbye(pb::SessionGoodbye::default())).await;
    timeout(PATIENCE, async {
        while states().await != [common::WorkerState::Stopped] {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("stopped");
    drop(worker);
    let (_worker, _) = Worker::open(&served, id, 1, Vec::new()).await;
    assert_ne!(states().await, [common::WorkerState::Stopped], "it is back");
}

#[tokio::test]
async fn a_drain_sends_workers_elsewhere() {
    let served = Served::plain().await;
    let (mut worker, _) = Worker::open(&served, new_worker(), 1, Vec::new()).await;
    served.shutdown.cancel();
    let Message::Control(control) = worker.next().await else { panic!("control") };
    assert_eq!(control.command(), pb::SessionCommand::Reconnect);
    drop(worker);
    tokio::time::timeout(PATIENCE, served.task).await.expect("in time").expect("drained");
}

/// While the engine did not answer nobody could extend a lease: holders come first.
#[tokio::test]
async fn after_an_outage_nothing_is_taken_from_its_holder() {
    let clock = ManualClock::at(SystemClock.now());
    let inner = Arc::new(MemoryEngine::new(EngineOptions::default(), Arc::new(clock.clone())));
    let faulty = Arc::new(Faulty { inner, failing: false.into() });
    let config = Config { outage_threshold: Duration::from_millis(50), ..Config::default() };
    let served = Served::start(faulty.clone(), config.clone()).await;
    let (mut holder, _) = Worker::open(&served, new_worker(), 1, Vec::new()).await;
    served.enqueue(1, None).await;
    let grants = holder.grants(1).await;
    let (mut other, _) = Worker::open(&served, new_worker(), 1, Vec::new()).await;

    faulty.failing.store(true, Ordering::SeqCst);
    let began = std::time::Instant::now();
    while began.elapsed() < config.outage_threshold * 3 {
        let request = pb::FindMissingTasksRequest { keys: vec![key(&grants[0].task_id, 1)] };
        served.dispatcher().find_missing_tasks(request).await.expect("answered, as unknown");
    }
    clock.advance(config.claim_ttl * 2);
    faulty.failing.store(false, Ordering::SeqCst);

    other.silent().await;
    holder.send(Request::Heartbeat(pb::LeaseReport { sequence: 1, leases: vec![held(&grants[0])] })).await;
    let Message::Extended(result) = holder.next().await else { panic!("extended") };
    assert_eq!((result.sequence, result.exceptions), (1, Vec::new()));
}
