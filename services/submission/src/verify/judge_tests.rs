//! What is a disagreement, and what only looks like one.

use oxcart_store::Entry;
use oxcart_types::{
    ChainHead, Clock as _, EndKind, IdSource as _, Priority, Run, SystemClock, SystemIds, TaskId,
    chain::{LatestEnd, LatestRun, StartKind},
};

use super::*;

const LEASE: Duration = Duration::from_secs(75);

fn run(number: u32) -> Run {
    Run::new(number).expect("a run")
}

/// A task whose newest run is `number`; 0 for none.
fn standing(task: TaskId, number: u32, end: Option<EndKind>) -> Standing {
    let end = end.map(|kind| LatestEnd { kind, attempts_used: number, next_run_at: None });
    let latest = Run::new(number).map(|run| LatestRun { run, kind: StartKind::Worker, attempt: number, end });
    let head = ChainHead { latest, previous_end: None, replayed: None, waiting: None };
    let now = SystemClock.now();
    let next = head.next_run().or_else(|| latest.map(|latest| latest.run)).expect("a run");
    let entry = Entry {
        task,
        run: next,
        queue: "mail".parse().expect("a name"),
        priority: Priority::default(),
        fairness_key: None,
        due_at: None,
    };
    let started_at = latest.filter(|latest| latest.end.is_none()).map(|_| now);
    Standing {
        task: OpenTask { entry, head, started_at, start_by: None, deadline_at: None, cancel: None },
        ended_at: end.map(|_| now),
        heartbeat_at: None,
    }
}

fn found(task: TaskId, number: u32, place: EntryPlace) -> Found {
    let key = oxcart_proto::pb::dispatcher::v1::EntryKey {
        task_id: task.to_string(),
        queue: "mail".to_owned(),
        priority: i32::from(Priority::default().get()),
        ..Default::default()
    };
    Found { task, run: run(number), place, remaining: Some(Duration::from_secs(10)), key }
}

const WAITING: [EntryPlace; 2] = [EntryPlace::Ready, EntryPlace::Delayed];

#[test]
fn what_is_as_it_should_be_is_no_finding() {
    let task = SystemIds.task_id();
    let cases = [
        // Waits for its first, or for its next run; runs; is claimed; was taken back, and its run is open until a takeover.
        (0, None, 1, EntryPlace::Ready),
        (1, Some(EndKind::Retry), 2, EntryPlace::Delayed),
        (1, None, 1, EntryPlace::Leased),
        (0, None, 1, EntryPlace::Leased),
        (1, None, 1, EntryPlace::Ready),
        // The holder took over under the same grant.
        (2, None, 1, EntryPlace::Leased),
        (2, None, 1, EntryPlace::Ready),
        // Whoever is granted it starts the run that is due.
        (1, Some(EndKind::Retry), 5, EntryPlace::Ready),
    ];
    for (newest, end, offered, place) in cases {
        let standing = standing(task, newest, end);
        assert_eq!(entry(&found(task, offered, place), Some(&standing), LEASE), None, "{newest} {end:?} {offered} {place:?}");
    }
}

#[test]
fn entries_that_lead_to_nothing_are_named() {
    let task = SystemIds.task_id();
    for place in [EntryPlace::Ready, EntryPlace::Delayed, EntryPlace::Leased, EntryPlace::Quarantined] {
        assert_eq!(entry(&found(task, 1, place), None, LEASE), Some(FindingKind::EntryOfUnknownTask));
        let ended = standing(task, 1, Some(EndKind::Cancelled));
        assert_eq!(entry(&found(task, 1, place), Some(&ended), LEASE), Some(FindingKind::EntryOfFinishedTask));
    }
    let retried = standing(task, 1, Some(EndKind::Retry));
    for place in WAITING {
        assert_eq!(entry(&found(task, 1, place), Some(&retried), LEASE), Some(FindingKind::EntryBehind));
        let mut elsewhere = found(task, 2, place);
        elsewhere.key.queue = "other".to_owned();
        assert_eq!(entry(&elsewhere, Some(&retried), LEASE), Some(FindingKind::EntryMisplaced));
    }
    assert_eq!(entry(&found(task, 1, EntryPlace::Leased), Some(&retried), LEASE), Some(FindingKind::LeaseOfEndedRun));
    assert_eq!(entry(&found(task, 2, EntryPlace::Quarantined), Some(&retried), LEASE), Some(FindingKind::TaskQuarantined));
}

#[test]
fn a_lease_that_nobody_would_get_back_is_named() {
    let task = SystemIds.task_id();
    for (newest, end) in [(0, None), (1, None)] {
        let standing = standing(task, newest, end);
        let long = Found { remaining: Some(LEASE + Duration::from_secs(1)), ..found(task, 1, EntryPlace::Leased) };
        assert_eq!(entry(&long, Some(&standing), LEASE), Some(FindingKind::LeaseTooLong));
    }
}

#[test]
fn a_young_run_may_still_be_adopted_and_a_hand_off_is_under_way() {
    let now = SystemClock.now();
    let mut task = standing(SystemIds.task_id(), 1, None).task;
    assert!(!must_be_there(&task, now, LEASE));
    assert!(must_be_there(&task, now + LEASE + Duration::from_secs(1), LEASE));
    assert_eq!(missing(&task), FindingKind::RunWithoutLease);
    task = standing(task.entry.task, 0, None).task;
    assert!(must_be_there(&task, now, LEASE));
    assert_eq!(missing(&task), FindingKind::TaskMissing);
    task.head.waiting = Some(WaitReason::Handoff);
    assert!(!must_be_there(&task, now, LEASE));
}

#[test]
fn rows_of_ended_tasks_count_when_nothing_would_clear_them() {
    let now = SystemClock.now();
    let (open, ended) =
        (standing(SystemIds.task_id(), 1, None).task, standing(SystemIds.task_id(), 1, Some(EndKind::Succeeded)).task);
    let row = |why, at| AgendaRow { task: open.entry.task, at, run: run(1), why };
    let (later, long_ago) = (now + Duration::from_secs(60), before(now, OVERDUE * 2));
    assert!(!agenda(&row(AgendaWhy::Room, now), Some(&open), now));
    assert!(agenda(&row(AgendaWhy::Room, now), Some(&ended), now));
    assert!(agenda(&row(AgendaWhy::Room, now), None, now));
    for why in [AgendaWhy::Time, AgendaWhy::Dependency, AgendaWhy::Retry, AgendaWhy::Expiry, AgendaWhy::CancelGrace] {
        assert!(!agenda(&row(why, later), Some(&ended), now), "{why:?}: its visit clears it");
        assert!(agenda(&row(why, long_ago), Some(&ended), now), "{why:?}: no visit came");
        assert!(!agenda(&row(why, long_ago), Some(&open), now), "{why:?}");
    }
}
