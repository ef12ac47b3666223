//! Whatever keeps a task from the dispatcher, it gets there.

use std::time::Duration;

use crate::support::{PATIENCE, config, echo, start};
use oxcart_proto::pb::{
    common::v1::{TaskSpec, TaskState, WaitReason, task_spec::Start},
    submission::v1::WaitTaskRequest,
};
use oxcart_testkit::wait_for;
use oxcart_types::{Clock as _, IdSource as _, SystemClock, SystemIds, TaskId};
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_handed_off_and_confirmed() {
    let system = start(config()).await;
    let id = system.submit(echo()).await;
    system.handed_off(&id).await;
    system.reaches(&id, TaskState::Queued).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dispatcher_that_was_down_gets_everything() {
    let system = start(config()).await;
    system.dispatcher.state().down = true;
    let id = system.submit(echo()).await;
    let task = system.get(&id).await;
    assert_eq!((task.state(), task.wait_reason()), (TaskState::Pending, WaitReason::Handoff));
    system.dispatcher.state().down = false;
    system.handed_off(&id).await;
    system.reaches(&id, TaskState::Queued).await;
}

/// Longer than a test waits is too long for a task whose time came in a short outage.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_time_comes_while_the_dispatcher_is_down_is_offered_again_soon() {
    let mut config = config();
    config.horizon = Duration::from_millis(100);
    let system = start(config).await;
    system.dispatcher.state().down = true;
    let delay = prost_types::Duration { seconds: 0, nanos: 500_000_000 };
    let id = system.submit(TaskSpec { start: Some(Start::Delay(delay)), ..echo() }).await;
    let refused = async || (system.dispatcher.state().refused > 0).then_some(());
    wait_for("a visit that fails", PATIENCE, refused).await.expect("in time");
    system.dispatcher.state().down = false;
    system.handed_off(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_finds_no_room_is_fed_later() {
    let system = start(config()).await;
    system.dispatcher.state().window_full = true;
    let id = system.submit(echo()).await;
    let waits = async || (system.get(&id).await.wait_reason() == WaitReason::Room).then_some(());
    wait_for("the agenda", PATIENCE, waits).await.expect("in time");
    system.dispatcher.state().window_full = false;
    system.handed_off(&id).await;
    system.reaches(&id, TaskState::Queued).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_queue_is_filled_again() {
    let system = start(config()).await;
    let id = system.submit(echo()).await;
    system.reaches(&id, TaskState::Queued).await;
    // The watch must have seen the first incarnation.
    let seen = async || system.store.cursor("submission.partitions").await.expect("a cursor");
    wait_for("the first look", PATIENCE, seen).await.expect("in time");
    system.dispatcher.wipe();
    system.handed_off(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_nobody_adopts_after_a_wipe_is_offered_again() {
    let mut config = config();
    config.sweep.open_run_age = Duration::from_millis(300);
    // The audit rests.
    let system = start(config).await;
    let (adopted, left) = (system.submit(echo()).await, system.submit(echo()).await);
    for id in [&adopted, &left] {
        system.reaches(id, TaskState::Queued).await;
        system.begin(id).await;
    }
    system.looked(2).await;
    let before = [&adopted, &left].map(|id| system.dispatcher.offered(id));
    system.dispatcher.wipe();
    system.dispatcher.adopt(&adopted);
    system.handed_off(&left).await;
    let after = [&adopted, &left].map(|id| system.dispatcher.offered(id));
    assert_eq!(after, [before[0], before[1] + 1], "only what nobody adopted is offered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_was_away_and_came_back_older_is_filled_again() {
    let system = start(config()).await;
    let id = system.submit(echo()).await;
    system.reaches(&id, TaskState::Queued).await;
    system.looked(2).await;
    system.dispatcher.state().seq = 10;
    system.looked(2).await;
    system.dispatcher.state().down = true;
    system.looked(2).await;
    {
        let mut state = system.dispatcher.state();
        state.entries.clear();
        state.seq = 5;
        state.down = false;
    }
    system.handed_off(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_hears_of_an_end_that_nobody_tells_it_of() {
    let system = start(config()).await;
    let id = system.submit(echo()).await;
    let run = system.begin(&id).await;
    let request = WaitTaskRequest { task_id: id.clone(), ..WaitTaskRequest::default() };
    let waiting = tokio::spawn({
        let mut client = system.client.clone();
        async move { client.wait_task(request).await }
    });
    system.waited_for(1).await;
    // By then it has read the task a second time, and sleeps.
    system.looked(3).await;
    // Written by a worker; the fake dispatcher serves no journal.
    system.succeed(run).await;
    let answer = timeout(PATIENCE, waiting).await.expect("in time").expect("no panic").expect("an answer").into_inner();
    assert!(answer.satisfied, "{answer:?}");
}

/// A task whose id says that it was made this long ago, as a caller may choose one.
fn made_before(age: Duration) -> TaskSpec {
    let mut bytes = *SystemIds.task_id().as_bytes();
    let made =
        u64::try_from(SystemClock.now().timestamp_millis()).expect("a time") - u64::try_from(age.as_millis()).expect("an age");
    bytes[..6].copy_from_slice(&made.to_be_bytes()[2..]);
    TaskSpec { task_id: TaskId::from_bytes(bytes).to_string(), ..echo() }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mark_of_the_audit_stays_behind_any_id_that_may_still_come() {
    let mut config = config();
    config.sweep.audit_rest = Duration::from_millis(50);
    config.sweep.audit_min_age = Duration::ZERO;
    let system = start(config).await;
    // A whole cycle with nothing open moves the mark as far as it may go.
    let mark = async || system.store.cursor("submission.audit.low_watermark").await.expect("a cursor");
    wait_for("a cycle", PATIENCE, mark).await.expect("in time");
    let late = system.submit(made_before(Duration::from_secs(9 * 60))).await;
    system.reaches(&late, TaskState::Queued).await;
    system.dispatcher.state().entries.clear();
    system.handed_off(&late).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_due_late_waits_in_sql_until_the_horizon() {
    let system = start(oxcart_submission::Config { horizon: Duration::from_millis(500), ..config() }).await;
    let delay = prost_types::Duration { seconds: 2, nanos: 0 };
    let id = system.submit(oxcart_proto::pb::common::v1::TaskSpec { start: Some(Start::Delay(delay)), ..echo() }).await;
    let task = system.get(&id).await;
    assert_eq!((task.state(), task.wait_reason()), (TaskState::Pending, WaitReason::Time));
    assert!(!system.dispatcher.has(&id));
    system.handed_off(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_room_expires_all_the_same() {
    let mut config = config();
    config.sweep.audit_rest = Duration::from_millis(50);
    config.sweep.audit_min_age = Duration::ZERO;
    let system = start(config).await;
    system.dispatcher.state().window_full = true;
    let start_timeout = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    let id = system.submit(TaskSpec { start_timeout, ..echo() }).await;
    let waits = async || (system.get(&id).await.wait_reason() == WaitReason::Room).then_some(());
    wait_for("the agenda", PATIENCE, waits).await.expect("in time");
    system.reaches(&id, TaskState::Expired).await;
    assert_eq!(system.get(&id).await.error.expect("why").kind, "START_TIMEOUT");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_handed_out_late_expires_without_the_audit() {
    let system = start(oxcart_submission::Config { horizon: Duration::from_millis(500), ..config() }).await;
    let duration = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let task = TaskSpec { start: duration(1).map(Start::Delay), start_timeout: duration(1), ..echo() };
    let id = system.submit(task).await;
    assert_eq!(system.get(&id).await.wait_reason(), WaitReason::Time);
    system.handed_off(&id).await;
    system.reaches(&id, TaskState::Expired).await;
    let task = system.get(&id).await;
    assert_eq!((task.error.expect("why").kind.as_str(), task.attempt), ("START_TIMEOUT", 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_ends_what_is_in_quarantine_also_when_a_run_is_open() {
    let mut config = config();
    config.sweep.audit_rest = Duration::from_millis(50);
    config.sweep.audit_min_age = Duration::ZERO;
    config.sweep.open_run_age = Duration::ZERO;
    let system = start(config).await;
    let (waiting, running) = (system.submit(echo()).await, system.submit(echo()).await);
    for id in [&waiting, &running] {
        system.reaches(id, TaskState::Queued).await;
    }
    system.begin(&running).await;
    system.dispatcher.state().quarantined.extend([waiting.clone(), running.clone()]);
    for id in [&waiting, &running] {
        system.reaches(id, TaskState::Failed).await;
        let failure = system.get(id).await.error.expect("an error");
        assert_eq!(failure.kind, "POISON");
    }
}

/// The entry of a task that has ended and the entry of one that nobody knows go; the entry of a task that waits, the lease of one
/// that runs, and the entry of a later run stay.
#[tokio::test(flavor = "multi_thread")]
async fn the_reverse_audit_takes_out_what_leads_to_nothing() {
    let mut config = config();
    config.sweep.reverse_audit_rest = Duration::from_millis(50);
    // Pages of one entry: the walk goes on where it was.
    config.sweep.audit_rows = 1;
    let system = start(config).await;
    let (ended, late, waits, runs) =
        (system.submit(echo()).await, system.submit(echo()).await, system.submit(echo()).await, system.submit(echo()).await);
    for id in [&ended, &late, &waits, &runs] {
        system.reaches(id, TaskState::Queued).await;
    }
    system.begin(&runs).await;
    system.dispatcher.state().leased.insert(runs.clone());
    let entry = |id: &String| system.dispatcher.state().entries.get(id).cloned().expect("an entry");
    let (old, newer) = (entry(&ended), oxcart_proto::pb::dispatcher::v1::EntryKey { run: 2, ..entry(&late) });
    for id in [&ended, &late] {
        system.cancel(id).await;
    }
    let unknown = SystemIds.task_id().to_string();
    {
        let mut state = system.dispatcher.state();
        let stranger = oxcart_proto::pb::dispatcher::v1::EntryKey { task_id: unknown.clone(), ..old.clone() };
        state.entries.extend([(ended.clone(), old), (late.clone(), newer), (unknown.clone(), stranger)]);
    }
    let gone = async || (!system.dispatcher.has(&ended) && !system.dispatcher.has(&unknown)).then_some(());
    wait_for("the reverse audit", PATIENCE, gone).await.expect("in time");
    // It goes round once more.
    let again = SystemIds.task_id().to_string();
    {
        let mut state = system.dispatcher.state();
        let key = state.entries.values().next().cloned().expect("an entry");
        let stranger = oxcart_proto::pb::dispatcher::v1::EntryKey { task_id: again.clone(), ..key };
        state.entries.insert(again.clone(), stranger);
    }
    let gone = async || (!system.dispatcher.has(&again)).then_some(());
    wait_for("another cycle", PATIENCE, gone).await.expect("in time");
    for id in [&late, &waits, &runs] {
        assert!(system.dispatcher.has(id), "{id} must stay");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_finds_what_nobody_knows_of_and_closes_what_expired() {
    let mut config = config();
    config.sweep.audit_rest = Duration::from_millis(50);
    config.sweep.audit_min_age = Duration::ZERO;
    let system = start(config).await;
    let (lost, expires) = (system.submit(echo()).await, prost_types::Timestamp::default());
    system.reaches(&lost, TaskState::Queued).await;
    system.dispatcher.state().entries.clear();
    system.handed_off(&lost).await;
    let created = system.get(&lost).await.create_time.expect("a time");
    let expires_at = Some(prost_types::Timestamp { seconds: created.seconds + 2, ..expires });
    let late = system.submit(oxcart_proto::pb::common::v1::TaskSpec { expires_at, ..echo() }).await;
    system.reaches(&late, TaskState::Expired).await;
}
