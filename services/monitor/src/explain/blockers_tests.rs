//! Every blocker, from the facts that make it.

use oxcart_proto::pb::common::v1::QueueSubscription;
use oxcart_store::{RoomPlace, TaskRecord, WaitingInSql};
use oxcart_types::{ChainHead, Failure, IdSource as _, Payload, Priority, Run, SystemIds, TaskSpec, WorkerId, chain::LatestEnd};

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(1_800_000_000 + seconds, 0).expect("a time")
}

const NOW: i64 = 100;

fn worker_id() -> WorkerId {
    WorkerId::from_bytes([7; 16])
}

fn latest(run: u32, kind: StartKind, end: Option<(EndKind, Option<Timestamp>)>) -> Option<LatestRun> {
    let end = end.map(|(kind, next_run_at)| LatestEnd { kind, attempts_used: run, next_run_at });
    Some(LatestRun { run: Run::new(run).expect("a run"), kind, attempt: run, end })
}

fn worker(state: WorkerState, handlers: &[&str], used_slots: i32) -> WorkerInfo {
    WorkerInfo {
        worker_id: worker_id().to_string(),
        state: state.into(),
        queues: vec![QueueSubscription { queue: "mail".to_owned(), ..Default::default() }],
        task_names: handlers.iter().map(|name| (*name).to_owned()).collect(),
        slots: 4,
        used_slots,
        ..Default::default()
    }
}

fn entry(place: EntryPlace, ahead: i64, remaining: Option<u64>) -> Option<EntryFacts> {
    Some(EntryFacts { place, deliveries: 0, ahead, remaining: remaining.map(Duration::from_secs) })
}

/// A task that is ready, with a worker that has a free slot: nothing holds it back.
fn free() -> Facts {
    let spec = TaskSpec {
        id: SystemIds.task_id(),
        name: "mail.send".parse().expect("a name"),
        queue: "mail".parse().expect("a name"),
        priority: Priority::default(),
        payload: Payload::null(),
        tags: Vec::new(),
        metadata: BTreeMap::new(),
        run_at: None,
        expires_at: None,
        start_timeout: None,
        timeout: None,
        heartbeat_timeout: None,
        deadline: None,
        retry: oxcart_types::RetryPolicy::default(),
        idempotency: None,
        fairness_key: None,
        parent: None,
    };
    let task = TaskRecord {
        spec,
        created_at: at(0),
        head: ChainHead::new(None),
        state: TaskState::Queued,
        started_at: None,
        ended_at: None,
        next_run_at: None,
        worker: None,
        result: None,
        failure: None,
        progress: None,
        cancel: None,
        runs: Vec::new(),
    };
    let queue = QueueFacts { entry: entry(EntryPlace::Ready, 0, None), ready: 1, held: 1, window: 10 };
    Facts {
        now: at(NOW),
        task,
        heartbeat_at: None,
        waiting: WaitingInSql::default(),
        pause: None,
        queue: Ok(queue),
        workers: vec![worker(WorkerState::Active, &["mail.send"], 0)],
    }
}

/// A task whose first run is open since 60 s, leased by a worker that lives.
fn running_facts() -> Facts {
    let mut facts = free();
    facts.task.state = TaskState::Running;
    facts.task.head.latest = latest(1, StartKind::Worker, None);
    facts.task.started_at = Some(at(40));
    facts.task.worker = Some(worker_id());
    facts.heartbeat_at = Some(at(95));
    queue(&mut facts).entry = entry(EntryPlace::Leased, 0, Some(20));
    facts
}

fn queue(facts: &mut Facts) -> &mut QueueFacts {
    facts.queue.as_mut().expect("a dispatcher that answers")
}

fn codes(facts: &Facts) -> Vec<Code> {
    explain(facts).blockers.iter().map(|blocker| blocker.code).collect()
}

/// The only blocker.
fn only(facts: &Facts) -> Blocker {
    let [blocker] = explain(facts).blockers.try_into().expect("one blocker");
    blocker
}

fn says(blocker: &Blocker, words: &[&str]) {
    for word in words {
        assert!(blocker.message.contains(word), "{word:?} is not in {:?}", blocker.message);
    }
}

#[test]
fn a_task_that_could_run_now_has_no_blocker() {
    assert_eq!(explain(&free()), Explanation::default());
}

#[test]
fn ended_tasks_say_so_and_nothing_else() {
    for state in [TaskState::Succeeded, TaskState::Failed, TaskState::Cancelled, TaskState::Expired] {
        let mut facts = free();
        facts.task.state = state;
        facts.task.ended_at = Some(at(50));
        facts.task.failure = Some(Failure::new("SMTP", "no route"));
        facts.pause = Some(Pause { since: at(0), by: String::new(), reason: String::new() });
        facts.queue = Err("away".to_owned());
        let blocker = only(&facts);
        assert_eq!(blocker.code, Code::Finished);
        says(&blocker, &[state.as_str(), "2027-01-15T08:00:50Z"]);
        assert_eq!(blocker.message.contains("no route"), state != TaskState::Succeeded, "{}", blocker.message);
    }
}

#[test]
fn a_time_that_has_not_come() {
    let mut facts = free();
    facts.task.spec.run_at = Some(at(NOW + 90));
    queue(&mut facts).entry = entry(EntryPlace::Delayed, 0, Some(90));
    let blocker = only(&facts);
    assert_eq!((blocker.code, blocker.clears_at), (Code::Delayed, Some(at(NOW + 90))));
    assert_eq!(blocker.details["seconds"], "90");
    says(&blocker, &["in 90 s", "2027-01-15T08:03:10Z"]);
    // Beyond the horizon it waits in SQL, and the dispatcher need not have it.
    facts.task.head.waiting = Some(WaitReason::Time);
    queue(&mut facts).entry = None;
    assert_eq!(codes(&facts), [Code::Delayed]);
    // A time that has come is no blocker.
    facts.task.spec.run_at = Some(at(NOW));
    facts.task.head.waiting = None;
    queue(&mut facts).entry = entry(EntryPlace::Ready, 0, None);
    assert_eq!(codes(&facts), []);
}

#[test]
fn a_retry_that_is_not_due() {
    let mut facts = free();
    facts.task.state = TaskState::Retrying;
    facts.task.head.latest = latest(1, StartKind::Worker, Some((EndKind::Retry, Some(at(NOW + 8)))));
    facts.task.failure = Some(Failure::new("SMTP", "no route"));
    queue(&mut facts).entry = entry(EntryPlace::Delayed, 0, Some(8));
    let blocker = only(&facts);
    assert_eq!((blocker.code, blocker.clears_at), (Code::Backoff, Some(at(NOW + 8))));
    says(&blocker, &["attempt 1 of 2 failed", "SMTP: no route", "in 8 s"]);
    assert_eq!((blocker.details["failures"].as_str(), blocker.details["max_attempts"].as_str()), ("1", "2"));
    // Given back: no failure, and the time of the task itself is long past.
    facts.task.head.latest = latest(1, StartKind::Worker, Some((EndKind::Released, Some(at(NOW + 8)))));
    facts.task.spec.run_at = Some(at(NOW - 50));
    let blocker = only(&facts);
    assert_eq!(blocker.code, Code::Delayed);
    says(&blocker, &["given back", "in 8 s"]);
}

#[test]
fn a_paused_queue_names_who_since_when_and_why() {
    let mut facts = free();
    facts.pause = Some(Pause { since: at(10), by: "anna".to_owned(), reason: "server down".to_owned() });
    let blocker = only(&facts);
    assert_eq!(blocker.code, Code::QueuePaused);
    says(&blocker, &["queue mail is paused since 2027-01-15T08:00:10Z by anna: server down"]);
    assert_eq!((blocker.details["actor"].as_str(), blocker.details["reason"].as_str()), ("anna", "server down"));
}

#[test]
fn a_full_window_tells_the_position() {
    let mut facts = free();
    facts.task.state = TaskState::Pending;
    facts.task.head.waiting = Some(WaitReason::Room);
    facts.waiting.room = Some(RoomPlace { ahead: 4, waiting: 9 });
    *queue(&mut facts) = QueueFacts { entry: None, ready: 10, held: 10, window: 10 };
    let blocker = only(&facts);
    assert_eq!(blocker.code, Code::WindowFull);
    says(&blocker, &["position 5 of 9", "10 of 10"]);
    assert_eq!(explain(&facts).ahead, 14, "those in the window and those before it");
    facts.queue = Err("away".to_owned());
    let explained = explain(&facts);
    let codes: Vec<_> = explained.blockers.iter().map(|blocker| blocker.code).collect();
    assert_eq!(codes, [Code::WindowFull, Code::DispatcherDown]);
    says(&explained.blockers[0], &["position 5 of 9"]);
}

#[test]
fn a_hand_off_that_is_not_confirmed() {
    let mut facts = free();
    facts.task.state = TaskState::Pending;
    facts.task.head.waiting = Some(WaitReason::Handoff);
    facts.waiting.handoff_since = Some(at(60));
    facts.queue = Err("it answered Unavailable: connection refused".to_owned());
    let explained = explain(&facts);
    let codes: Vec<_> = explained.blockers.iter().map(|blocker| blocker.code).collect();
    assert_eq!(codes, [Code::Handoff, Code::DispatcherDown]);
    says(&explained.blockers[0], &["2027-01-15T08:01:00Z", "40 s"]);
    says(&explained.blockers[1], &["could not be asked", "connection refused"]);
}

#[test]
fn a_dependency_is_named() {
    let mut facts = free();
    facts.task.state = TaskState::Pending;
    facts.task.head.waiting = Some(WaitReason::Dependency);
    queue(&mut facts).entry = None;
    assert_eq!(codes(&facts), [Code::Dependency]);
}

#[test]
fn entries_ahead_are_counted() {
    let mut facts = free();
    queue(&mut facts).entry = entry(EntryPlace::Ready, 3, None);
    let blocker = only(&facts);
    assert_eq!((blocker.code, explain(&facts).ahead), (Code::Ahead, 3));
    says(&blocker, &["about 3 tasks of queue mail"]);
}

#[test]
fn a_queue_without_live_workers() {
    let mut facts = free();
    facts.workers.clear();
    says(&only(&facts), &["no live worker takes from queue mail"]);
    let mut elsewhere = worker(WorkerState::Active, &["mail.send"], 0);
    elsewhere.queues[0].queue = "other".to_owned();
    facts.workers = vec![elsewhere];
    assert_eq!(codes(&facts), [Code::NoWorker]);
    let gone = [WorkerState::Lost, WorkerState::Lost, WorkerState::Draining, WorkerState::Paused, WorkerState::Stopped];
    facts.workers = gone.map(|state| worker(state, &["mail.send"], 0)).to_vec();
    let blocker = only(&facts);
    assert_eq!(blocker.code, Code::NoWorker);
    says(&blocker, &["1 draining, 2 lost, 1 paused, 1 stopped"]);
}

#[test]
fn workers_without_the_handler_are_told_with_what_they_have() {
    let mut facts = free();
    facts.workers = vec![worker(WorkerState::Active, &["echo", "sleep"], 0), worker(WorkerState::Active, &["echo"], 0)];
    // A worker that was granted it gave it back.
    queue(&mut facts).entry = entry(EntryPlace::Delayed, 0, Some(5));
    let explained = explain(&facts);
    let codes: Vec<_> = explained.blockers.iter().map(|blocker| blocker.code).collect();
    assert_eq!(codes, [Code::NoHandler, Code::Delayed]);
    says(&explained.blockers[0], &["none of the 2 workers", "mail.send", "echo, sleep"]);
    says(&explained.blockers[1], &["gave it back", "in 5 s"]);
    let many: Vec<String> = (0..25).map(|n| format!("handler-{n:02}")).collect();
    facts.workers = vec![worker(WorkerState::Active, &many.iter().map(String::as_str).collect::<Vec<_>>(), 0)];
    says(&explain(&facts).blockers[0], &["handler-09 and 15 more"]);
    facts.workers = vec![worker(WorkerState::Active, &[], 0)];
    says(&explain(&facts).blockers[0], &["they have none"]);
}

#[test]
fn busy_slots_are_counted_over_the_workers_that_have_the_handler() {
    let mut facts = free();
    facts.workers = vec![worker(WorkerState::Active, &["mail.send"], 4), worker(WorkerState::Active, &["echo"], 0)];
    let blocker = only(&facts);
    assert_eq!(blocker.code, Code::NoFreeSlot);
    says(&blocker, &["4 of 4"]);
    // Its queue may use two of the slots only.
    facts.workers.truncate(1);
    facts.workers[0].used_slots = 2;
    assert_eq!(codes(&facts), []);
    facts.workers[0].queues[0].slots = 2;
    assert_eq!(codes(&facts), [Code::NoFreeSlot]);
    // What is not due needs no slot.
    facts.task.spec.run_at = Some(at(NOW + 5));
    queue(&mut facts).entry = entry(EntryPlace::Delayed, 0, Some(5));
    assert_eq!(codes(&facts), [Code::Delayed]);
}

#[test]
fn what_was_handed_to_a_worker_is_about_to_start() {
    let mut facts = free();
    queue(&mut facts).entry = entry(EntryPlace::Leased, 0, Some(9));
    facts.workers.clear();
    let blocker = only(&facts);
    assert_eq!((blocker.code, blocker.clears_at), (Code::Starting, Some(at(NOW + 9))));
}

#[test]
fn quarantine_and_lost_entries_are_named() {
    let mut facts = free();
    queue(&mut facts).entry = Some(EntryFacts { place: EntryPlace::Quarantined, deliveries: 5, ahead: 0, remaining: None });
    let blocker = only(&facts);
    assert_eq!((blocker.code, blocker.details["deliveries"].as_str()), (Code::Quarantined, "5"));
    queue(&mut facts).entry = None;
    assert_eq!(codes(&facts), [Code::Missing]);
    queue(&mut facts).entry = Some(EntryFacts { place: EntryPlace::Delayed, deliveries: 2, ahead: 0, remaining: None });
    says(&only(&facts), &["handed out 2 times without a start"]);
}

#[test]
fn a_running_task_tells_where_it_runs() {
    let facts = running_facts();
    let blocker = only(&facts);
    assert_eq!(blocker.code, Code::Running);
    says(&blocker, &[&worker_id().to_string(), "run 1, attempt 1 of 2", "2027-01-15T08:00:40Z"]);
    // A worker that began lately may not be listed yet; one without a lease for a moment may adopt it.
    let mut young = running_facts();
    young.workers.clear();
    queue(&mut young).entry = None;
    assert_eq!(codes(&young), [Code::Running]);
    let mut alone = running_facts();
    alone.queue = Err("away".to_owned());
    assert_eq!(codes(&alone), [Code::Running, Code::DispatcherDown]);
}

#[test]
fn a_lost_worker_tells_when_its_lease_ends() {
    for state in [WorkerState::Lost, WorkerState::Stopped] {
        let mut facts = running_facts();
        facts.workers = vec![worker(state, &["mail.send"], 0)];
        let blocker = only(&facts);
        assert_eq!((blocker.code, blocker.clears_at), (Code::WorkerLost, Some(at(NOW + 20))));
        says(&blocker, &["lease ends in 20 s"]);
    }
    // It was never listed, and gives no sign of life.
    let mut facts = running_facts();
    facts.workers.clear();
    facts.heartbeat_at = Some(at(NOW - 60));
    assert_eq!(codes(&facts), [Code::WorkerLost]);
    // The lease ran out: the entry waits again, whatever the registry says.
    let mut facts = running_facts();
    queue(&mut facts).entry = entry(EntryPlace::Ready, 0, None);
    let blocker = only(&facts);
    assert_eq!((blocker.code, blocker.clears_at), (Code::WorkerLost, None));
    says(&blocker, &["lease has ended"]);
}

#[test]
fn a_cancel_comes_before_what_runs() {
    let mut facts = running_facts();
    facts.task.cancel =
        Some(Cancel { reason: "not needed".to_owned(), requested_at: at(NOW - 10), grace: Duration::from_secs(30) });
    let explained = explain(&facts);
    let codes: Vec<_> = explained.blockers.iter().map(|blocker| blocker.code).collect();
    assert_eq!(codes, [Code::CancelRequested, Code::Running]);
    says(&explained.blockers[0], &["not needed", "20 s to stop"]);
    assert_eq!(explained.blockers[0].clears_at, Some(at(NOW + 20)));
    facts.now = at(NOW + 21);
    says(&explain(&facts).blockers[0], &["aborted"]);
}

#[test]
fn all_that_holds_a_task_back_is_told_at_once() {
    let mut facts = free();
    facts.task.spec.run_at = Some(at(NOW + 60));
    facts.pause = Some(Pause { since: at(0), by: "anna".to_owned(), reason: String::new() });
    facts.workers.clear();
    queue(&mut facts).entry = entry(EntryPlace::Delayed, 0, Some(60));
    assert_eq!(codes(&facts), [Code::Delayed, Code::QueuePaused, Code::NoWorker]);
}
