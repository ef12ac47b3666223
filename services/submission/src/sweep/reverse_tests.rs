//! What the reverse audit takes out, and what it must not.

use std::time::Duration;

use oxcart_store::{Entry, OpenTask};
use oxcart_types::{
    ChainHead, Clock as _, EndKind, FairnessKey, IdSource as _, Priority, SystemClock, SystemIds, TaskId,
    chain::{LatestEnd, LatestRun, StartKind},
};

use super::*;

const MINUTE: chrono::TimeDelta = chrono::TimeDelta::minutes(1);

fn run(number: u32) -> Run {
    Run::new(number).expect("a run")
}

fn entry(task: TaskId, number: u32) -> Entry {
    let fairness_key = Some("tenant".parse().expect("a key"));
    Entry {
        task,
        run: run(number),
        queue: "mail".parse().expect("a name"),
        priority: Priority::default(),
        fairness_key,
        due_at: None,
    }
}

/// A task whose newest run is `number`, ended as `end`, a minute ago.
fn standing(task: TaskId, number: u32, end: Option<EndKind>) -> Standing {
    let end = end.map(|kind| LatestEnd { kind, attempts_used: number, next_run_at: None });
    let latest = Some(LatestRun { run: run(number), kind: StartKind::Worker, attempt: number, end });
    let head = ChainHead { latest, previous_end: None, replayed: None, waiting: None };
    let next = head.next_run().unwrap_or(run(number));
    Standing {
        task: OpenTask { entry: entry(task, next.get()), head, started_at: None, start_by: None, deadline_at: None, cancel: None },
        ended_at: end.map(|_| SystemClock.now() - MINUTE),
        heartbeat_at: None,
    }
}

fn found(task: TaskId, number: u32, place: EntryPlace) -> Found {
    let fairness: FairnessKey = "tenant".parse().expect("a key");
    let key = EntryKey {
        task_id: task.to_string(),
        queue: "mail".to_owned(),
        priority: i32::from(Priority::default().get()),
        fairness_id: fairness.id(),
        ..EntryKey::default()
    };
    Found { task, run: run(number), place, remaining: Some(Duration::ZERO), key }
}

#[test]
fn entries_of_ended_and_unknown_tasks_go_up_to_the_closed_run() {
    let (task, now) = (SystemIds.task_id(), SystemClock.now());
    for place in [EntryPlace::Ready, EntryPlace::Delayed, EntryPlace::Quarantined] {
        for kind in EndKind::ALL.into_iter().filter(|kind| kind.is_terminal()) {
            let ended = standing(task, 3, Some(kind));
            assert_eq!(stray(&found(task, 2, place), Some(&ended), now), Some(run(3)), "{place:?} {kind}");
            assert_eq!(stray(&found(task, 3, place), Some(&ended), now), Some(run(3)), "{place:?} {kind}");
            assert_eq!(stray(&found(task, 4, place), Some(&ended), now), None, "a later run is not closed");
        }
        assert_eq!(stray(&found(task, 2, place), None, now), Some(run(2)));
    }
}

#[test]
fn open_tasks_keep_their_entries() {
    let (task, now) = (SystemIds.task_id(), SystemClock.now());
    let places = [EntryPlace::Ready, EntryPlace::Delayed, EntryPlace::Leased, EntryPlace::Quarantined];
    for place in places {
        for end in [None, Some(EndKind::Retry), Some(EndKind::Released), Some(EndKind::Lost)] {
            let open = standing(task, 2, end);
            for number in 1..=4 {
                assert_eq!(stray(&found(task, number, place), Some(&open), now), None, "{place:?} {end:?} {number}");
            }
        }
    }
}

#[test]
fn a_replayed_task_is_open() {
    let (task, now) = (SystemIds.task_id(), SystemClock.now());
    let mut replayed = standing(task, 3, Some(EndKind::Failed));
    replayed.task.head.replayed = Some(run(3));
    replayed.task.entry.run = run(4);
    for number in [3, 4] {
        assert_eq!(stray(&found(task, number, EntryPlace::Ready), Some(&replayed), now), None, "{number}");
    }
}

#[test]
fn a_lease_stays_while_its_holder_may_be_about_to_settle_it() {
    let (task, now) = (SystemIds.task_id(), SystemClock.now());
    let ended = standing(task, 1, Some(EndKind::Succeeded));
    let lease = found(task, 1, EntryPlace::Leased);
    assert_eq!(stray(&lease, Some(&ended), now - MINUTE * 2), None);
    assert_eq!(stray(&lease, Some(&ended), now), Some(run(1)));
}

#[test]
fn what_an_update_left_behind_goes() {
    let (task, now) = (SystemIds.task_id(), SystemClock.now());
    let moved = standing(task, 1, Some(EndKind::Released));
    let elsewhere = |change: fn(&mut EntryKey), place| {
        let mut old = found(task, 1, place);
        change(&mut old.key);
        old
    };
    for change in [(|key| key.queue = "other".to_owned()) as fn(&mut EntryKey), |key| key.priority += 1, |key| key.fairness_id += 1]
    {
        assert_eq!(stray(&elsewhere(change, EntryPlace::Ready), Some(&moved), now), Some(run(1)));
        assert_eq!(stray(&elsewhere(change, EntryPlace::Leased), Some(&moved), now), None, "its holder will ask SQL");
    }
    let ahead = Found { run: run(2), ..elsewhere(|key| key.priority += 1, EntryPlace::Ready) };
    assert_eq!(stray(&ahead, Some(&moved), now), None, "the run is not closed");
}
