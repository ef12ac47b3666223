use oxcart_store::{Cancel, Entry};
use oxcart_types::{
    IdSource as _, Priority, QueueName, Run, StartBy, SystemIds, TimeLimit,
    chain::{LatestEnd, LatestRun, StartKind},
};

use super::*;

const HORIZON: Duration = Duration::from_secs(900);
const ALL: [AgendaWhy; 6] =
    [AgendaWhy::Time, AgendaWhy::Dependency, AgendaWhy::Room, AgendaWhy::Retry, AgendaWhy::Expiry, AgendaWhy::CancelGrace];

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(1_800_000_000 + seconds, 0).expect("a time")
}

fn expiry(seconds: i64) -> Option<StartBy> {
    Some(StartBy { at: at(seconds), limit: TimeLimit::Expiry })
}

fn task(end: Option<Option<EndKind>>) -> OpenTask {
    let latest = end.map(|end| LatestRun {
        run: Run::FIRST,
        kind: StartKind::Worker,
        attempt: 1,
        end: end.map(|kind| LatestEnd { kind, attempts_used: u32::from(kind != EndKind::Released), next_run_at: None }),
    });
    OpenTask {
        entry: Entry {
            task: SystemIds.task_id(),
            run: Run::FIRST,
            queue: QueueName::default_queue(),
            priority: Priority::default(),
            fairness_key: None,
            due_at: None,
        },
        head: ChainHead { latest, previous_end: None, replayed: None, waiting: None },
        started_at: Some(at(-100)),
        start_by: None,
        deadline_at: None,
        cancel: None,
    }
}

fn look(why: AgendaWhy, task: Option<&OpenTask>) -> Action {
    let row = AgendaRow { task: SystemIds.task_id(), at: at(60), run: Run::FIRST, why };
    visit(&row, task, at(0), HORIZON)
}

#[test]
fn rows_without_an_open_task_go() {
    for why in ALL {
        assert_eq!(look(why, None), Action::Delete);
        assert_eq!(look(why, Some(&task(Some(Some(EndKind::Succeeded))))), Action::Delete);
        let open = if why == AgendaWhy::CancelGrace { Action::Remind } else { Action::Delete };
        assert_eq!(look(why, Some(&task(Some(None)))), open);
    }
}

#[test]
fn what_waits_is_closed_before_anything_else() {
    let cancelled = OpenTask { cancel: Some(Cancel { reason: "no".into(), requested_at: at(-1), grace: HORIZON }), ..task(None) };
    let expired = OpenTask { start_by: expiry(0), ..task(None) };
    let late = OpenTask { deadline_at: Some(at(0)), ..task(Some(Some(EndKind::Retry))) };
    let released = OpenTask { start_by: expiry(0), ..task(Some(Some(EndKind::Released))) };
    for why in ALL {
        for (task, kind) in [
            (&cancelled, EndKind::Cancelled),
            (&expired, EndKind::Expired),
            (&late, EndKind::Failed),
            (&released, EndKind::Expired),
        ] {
            assert!(matches!(look(why, Some(task)), Action::Close(closed, _) if closed == kind), "{why:?} {kind}");
        }
    }
    let started = OpenTask { start_by: expiry(0), ..task(Some(Some(EndKind::Retry))) };
    assert_eq!(look(AgendaWhy::Retry, Some(&started)), Action::Enqueue, "what has started does not expire");
}

#[test]
fn a_replay_is_looked_after_as_a_task_that_never_started() {
    let mut replayed = task(Some(Some(EndKind::Failed)));
    replayed.head.replayed = Some(Run::FIRST);
    for why in [AgendaWhy::Time, AgendaWhy::Retry, AgendaWhy::Expiry, AgendaWhy::CancelGrace] {
        assert_eq!(look(why, Some(&replayed)), Action::Enqueue);
    }
    assert!(waits(&replayed));
    assert_eq!(audit(&replayed, at(0), HORIZON), Audited::Offer);
    let late = OpenTask { start_by: expiry(0), ..replayed };
    assert!(matches!(audit(&late, at(0), HORIZON), Audited::Close(EndKind::Expired, _)));
}

#[test]
fn what_is_due_is_offered_and_what_is_far_waits() {
    let near = OpenTask { entry: Entry { due_at: Some(at(900)), ..task(None).entry }, ..task(None) };
    let far = OpenTask { entry: Entry { due_at: Some(at(1000)), ..task(None).entry }, ..task(None) };
    for why in [AgendaWhy::Time, AgendaWhy::Retry, AgendaWhy::Expiry, AgendaWhy::CancelGrace] {
        assert_eq!(look(why, Some(&task(None))), Action::Enqueue);
        assert_eq!(look(why, Some(&near)), Action::Enqueue);
        assert_eq!(look(why, Some(&far)), Action::Rearm(at(100), AgendaWhy::Time));
    }
    assert_eq!(look(AgendaWhy::Room, Some(&near)), Action::Rearm(at(0), AgendaWhy::Room));
    assert!(matches!(look(AgendaWhy::Dependency, Some(&near)), Action::Rearm(_, AgendaWhy::Dependency)));
}

#[test]
fn the_audit_leaves_young_runs_to_adoption() {
    let open = |started| OpenTask { started_at: Some(at(started)), ..task(Some(None)) };
    let age = Duration::from_secs(75);
    assert_eq!(audit(&open(-74), at(0), age), Audited::Leave);
    assert_eq!(audit(&open(-75), at(0), age), Audited::Offer);
    assert_eq!(audit(&task(None), at(0), age), Audited::Offer);
    assert!(matches!(audit(&OpenTask { start_by: expiry(0), ..task(None) }, at(0), age), Audited::Close(EndKind::Expired, _)));
    assert!(waits(&task(None)) && !waits(&task(Some(None))));
}

#[test]
fn what_is_handed_out_is_looked_at_when_its_time_is_over() {
    let row = AgendaRow { task: SystemIds.task_id(), at: at(0), run: Run::FIRST, why: AgendaWhy::Time };
    assert_eq!(watch_time(&row, &task(None)), None, "it has all the time there is");
    let limited = |end| OpenTask { start_by: expiry(5), deadline_at: Some(at(9)), ..task(end) };
    let watched = |end| watch_time(&row, &limited(end)).map(|row| (row.at, row.why));
    assert_eq!(watched(None), Some((at(5), AgendaWhy::Expiry)));
    assert_eq!(watched(Some(Some(EndKind::Retry))), Some((at(9), AgendaWhy::Expiry)));
}
