//! The outbox, the agenda and the audit walk.

use std::collections::HashSet;

use chrono::TimeDelta;
use oxcart_store::{AgendaCount, AgendaRow, AgendaWhy, NewTask, SetAside};
use oxcart_types::{EndKind, Priority, QueueName, StartBy, TaskState, TimeLimit, WaitReason};
use rstest::rstest;

use crate::support::{Database, Fixture, at, close, end, handoff, run, task, task_id, task_with, unit};

fn aside(seconds: i64, why: AgendaWhy) -> NewTask {
    NewTask { set_aside: Some(SetAside { at: at(seconds), why }), ..task() }
}

fn queue(name: &str) -> QueueName {
    name.parse().expect("a queue")
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn the_outbox_keeps_what_is_not_confirmed(
    #[values(Database::MariaDb, Database::SqliteFile, Database::SqliteMemory)] database: Database,
) {
    let store = Fixture::new(database).await;
    let (waiting, started, closed, full) = (task(), task(), task(), task());
    let ids = [waiting.spec.id, started.spec.id, closed.spec.id, full.spec.id];
    let outbox = handoff();
    let units = vec![unit(vec![waiting, started]), unit(vec![closed, full, aside(99, AgendaWhy::Time)])];
    store.submit(units, outbox, at(0)).await.expect("submit");
    assert_eq!(store.get_one(ids[0]).await.head.waiting, Some(WaitReason::Handoff));
    store.begin(ids[1], 1, at(1)).await;
    store.close(&close(ids[2], EndKind::Cancelled)).await.expect("close");
    assert!(store.stale_handoffs(at(0), 10).await.expect("stale").is_empty());
    let stale = store.stale_handoffs(at(1), 10).await.expect("stale");
    assert_eq!(stale.len(), 1);
    assert_eq!(stale[0].id, outbox);
    let offered: Vec<_> = stale[0].entries.iter().map(|entry| (entry.task, entry.run)).collect();
    assert_eq!(offered, [(ids[0], run(1)), (ids[3], run(1))]);

    let room = AgendaRow { task: ids[3], at: at(2), run: run(1), why: AgendaWhy::Room };
    for _ in 0..2 {
        store.confirm_handoffs(&[outbox, handoff()], &[room]).await.expect("confirm");
    }
    assert_eq!(store.count_unconfirmed(10).await.expect("count"), 0);
    assert_eq!(store.state(ids[0]).await, TaskState::Queued);
    assert_eq!(store.get_one(ids[3]).await.head.waiting, Some(WaitReason::Room));
    assert_eq!(store.state(ids[3]).await, TaskState::Pending);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_without_work_for_now_needs_no_outbox(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let id = store.submit_one(aside(50, AgendaWhy::Time)).await;
    assert_eq!(store.count_unconfirmed(10).await.expect("count"), 0);
    assert_eq!(store.get_one(id).await.head.waiting, Some(WaitReason::Time));
    for tasks in [2, 1, 3] {
        store.submit_units(vec![unit((0..tasks).map(|_| task()).collect())]).await;
    }
    assert_eq!(store.count_unconfirmed(10).await.expect("count"), 6);
    // Rows made at one time come in any order.
    assert!((3..=5).contains(&store.count_unconfirmed(2).await.expect("count")));
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn the_agenda_is_read_page_by_page(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let (first, second) = (store.submit_one(aside(50, AgendaWhy::Time)).await, store.submit_one(aside(40, AgendaWhy::Time)).await);
    let row = store.agenda_page(Some(first), 1).await.expect("read")[0].row;
    store.close(&close(second, EndKind::Cancelled)).await.expect("close");
    // A close takes the row along; whoever writes one later has to be found out.
    store.set_agenda(&[row]).await.expect("set");
    let page = store.agenda_page(None, 1).await.expect("read");
    assert_eq!(page.iter().map(|visit| visit.row.task).collect::<Vec<_>>(), [first]);
    assert_eq!((page[0].row.why, page[0].row.at), (AgendaWhy::Time, at(50)));
    let page = store.agenda_page(Some(first), 9).await.expect("read");
    let ended = page.iter().map(|visit| visit.task.as_ref().and_then(|task| task.head.latest?.end).map(|end| end.kind));
    assert_eq!(ended.collect::<Vec<_>>(), [Some(EndKind::Cancelled)], "an ended task is told as such");
    assert!(store.agenda_page(Some(second), 9).await.expect("read").is_empty());
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_task_knows_where_it_waits(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let handed = store.submit_one(task()).await;
    let told = store.waiting_in_sql(handed, 9).await.expect("read");
    assert_eq!((told.handoff_since, told.room), (Some(at(0)), None));
    let urgent = |priority| NewTask {
        set_aside: Some(SetAside { at: at(5), why: AgendaWhy::Room }),
        ..task_with(|spec| spec.priority = Priority::try_from(priority).expect("a priority"))
    };
    let (first, second) = (store.submit_one(urgent(4)).await, store.submit_one(urgent(4)).await);
    let last = store.submit_one(aside(6, AgendaWhy::Room)).await;
    let best = store.submit_one(urgent(9)).await;
    let place = async |id| store.waiting_in_sql(id, 9).await.expect("read").room.map(|room| (room.ahead, room.waiting));
    assert_eq!(place(best).await, Some((0, 4)));
    assert_eq!((place(first).await, place(second).await, place(last).await), (Some((1, 4)), Some((2, 4)), Some((3, 4))));
    let capped = store.waiting_in_sql(last, 2).await.expect("read").room.expect("it waits for room");
    assert_eq!((capped.ahead, capped.waiting), (2, 2));
    let later = store.submit_one(aside(50, AgendaWhy::Time)).await;
    assert_eq!(place(later).await, None);
    assert_eq!(store.waiting_in_sql(task_id(), 9).await.expect("read"), oxcart_store::WaitingInSql::default());
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn due_rows_are_claimed_by_one(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let mut ids = HashSet::new();
    for second in 0..40 {
        ids.insert(store.submit_one(aside(second, AgendaWhy::Time)).await);
    }
    store.submit_one(aside(0, AgendaWhy::Room)).await;
    store.submit_one(aside(41, AgendaWhy::Time)).await;
    let claim = || store.claim_agenda(at(40), at(100), 15);
    let (a, b, c) = tokio::join!(claim(), claim(), claim());
    let mut claimed = HashSet::new();
    for visit in [a, b, c].into_iter().flat_map(|visits| visits.expect("claim")) {
        assert!(claimed.insert(visit.row.task), "claimed twice");
        assert_eq!(visit.row.at, at(100));
    }
    // One that waited for nothing may have found the others' rows passed over.
    for visit in claim().await.expect("claim").into_iter().chain(claim().await.expect("claim")) {
        assert!(claimed.insert(visit.row.task), "claimed twice");
    }
    assert_eq!(claimed, ids);
    assert!(claim().await.expect("claim").is_empty());
    assert_eq!(store.claim_agenda(at(100), at(200), 99).await.expect("claim").len(), 41, "they come back");
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_cleared_only_unchanged(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let id = store.submit_one(aside(5, AgendaWhy::Time)).await;
    let row = store.claim_agenda(at(5), at(60) + TimeDelta::nanoseconds(999), 1).await.expect("claim")[0].row;
    for changed in [AgendaRow { at: at(61), ..row }, AgendaRow { run: run(2), ..row }, AgendaRow { why: AgendaWhy::Expiry, ..row }]
    {
        store.clear_agenda(&[changed]).await.expect("clear");
    }
    assert_eq!(store.get_one(id).await.head.waiting, Some(WaitReason::Time));
    store.clear_agenda(&[row]).await.expect("clear");
    store.clear_agenda(&[row]).await.expect("clear, repeated");
    assert_eq!(store.get_one(id).await.head.waiting, None);
    assert!(store.claim_agenda(at(99), at(100), 1).await.expect("claim").is_empty());
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn an_upsert_never_lowers_the_run(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let id = store.submit_one(task()).await;
    let row = |number, seconds, why| AgendaRow { task: id, at: at(seconds), run: run(number), why };
    let gone = AgendaRow { task: task_id(), ..row(1, 1, AgendaWhy::Time) };
    store.set_agenda(&[row(2, 10, AgendaWhy::Time), gone]).await.expect("set");
    store.set_agenda(&[row(1, 20, AgendaWhy::Room)]).await.expect("set");
    let only = |visits: Vec<oxcart_store::AgendaVisit>| {
        assert_eq!(visits.len(), 1);
        visits[0].row
    };
    assert_eq!(only(store.claim_agenda(at(99), at(30), 9).await.expect("claim")), row(2, 30, AgendaWhy::Time));
    store.set_agenda(&[row(2, 40, AgendaWhy::Retry)]).await.expect("set");
    assert_eq!(only(store.claim_agenda(at(99), at(50), 9).await.expect("claim")), row(2, 50, AgendaWhy::Retry));
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn the_feeder_takes_the_best_first(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let spilled = |priority: i64, name: &str, seconds| {
        let mut task = task_with(|spec| {
            spec.priority = Priority::try_from(priority).expect("a priority");
            spec.queue = queue(name);
        });
        task.set_aside = Some(SetAside { at: at(seconds), why: AgendaWhy::Room });
        task
    };
    let mut ids = Vec::new();
    for task in [spilled(4, "a", 3), spilled(4, "a", 2), spilled(9, "a", 4), spilled(0, "a", 1), spilled(9, "b", 1)] {
        ids.push(store.submit_one(task).await);
    }
    store.submit_one(aside(1, AgendaWhy::Time)).await;
    assert_eq!(store.queues_without_room().await.expect("queues"), [queue("a"), queue("b")]);
    let best = store.best_without_room(&queue("a"), 3).await.expect("best");
    let order: Vec<_> = best.iter().map(|(row, entry)| (row.task, entry.task)).collect();
    assert_eq!(order, [(ids[2], ids[2]), (ids[1], ids[1]), (ids[0], ids[0])]);
    assert!(store.claim_agenda(at(99), at(100), 99).await.expect("claim").len() == 1, "the feeder's rows are left out");
    let mut counts = store.count_agenda(3).await.expect("count");
    counts.sort_by_key(|count| count.queue.clone());
    let count = |name, why, count| AgendaCount { queue: queue(name), why, count };
    assert_eq!(counts, [count("a", AgendaWhy::Room, 3), count("b", AgendaWhy::Room, 1), count("default", AgendaWhy::Time, 1)]);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_is_looked_after(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let (id, token) = store.running().await;
    store.end_one(end(id, 1, token, EndKind::Retry), at(2)).await;
    assert!(store.claim_agenda(at(39), at(60), 9).await.expect("claim").is_empty());
    let visits = store.claim_agenda(at(40), at(60), 9).await.expect("claim");
    assert_eq!(visits[0].row, AgendaRow { task: id, at: at(60), run: run(2), why: AgendaWhy::Retry });
    assert_eq!(visits[0].task.as_ref().expect("a task").entry.due_at, Some(at(10)));
    // A released run is the dispatcher's alone.
    let (id, token) = store.running().await;
    store.end_one(end(id, 1, token, EndKind::Released), at(2)).await;
    assert!(store.claim_agenda(at(59), at(60), 9).await.expect("claim").is_empty());
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn an_expiry_is_looked_after(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let id = store
        .submit_one(task_with(|spec| {
            spec.expires_at = Some(at(70));
            spec.deadline = Some(std::time::Duration::from_secs(60));
        }))
        .await;
    let mut both = task_with(|spec| spec.expires_at = Some(at(10)));
    both.set_aside = Some(SetAside { at: at(5), why: AgendaWhy::Time });
    store.submit_one(both).await;
    assert_eq!(store.claim_agenda(at(59), at(500), 9).await.expect("claim")[0].row.why, AgendaWhy::Time);
    let visits = store.claim_agenda(at(60), at(500), 9).await.expect("claim");
    assert_eq!((visits.len(), visits[0].row.task, visits[0].row.why), (1, id, AgendaWhy::Expiry));
    let start_by = StartBy { at: at(60), limit: TimeLimit::Deadline };
    assert_eq!(visits[0].task.as_ref().expect("a task").start_by, Some(start_by));
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn the_walk_meets_every_open_task_that_nothing_keeps(
    #[values(Database::MariaDb, Database::SqliteFile, Database::SqliteMemory)] database: Database,
) {
    let store = Fixture::new(database).await;
    let queued = store.submit_one(task()).await;
    store.ended(EndKind::Succeeded).await;
    let (running, _) = store.running().await;
    store.submit_one(aside(99, AgendaWhy::Time)).await;
    let expiring = store.submit_one(task_with(|spec| spec.expires_at = Some(at(99)))).await;
    let (retrying, token) = store.running().await;
    store.end_one(end(retrying, 1, token, EndKind::Retry), at(2)).await;
    let released = store.ended_released().await;
    let young = NewTask { created_at: at(50), ..task() };
    store.submit_one(young).await;

    let mut met = Vec::new();
    let (mut after, mut steps) = (None, 0);
    loop {
        let walk = store.walk_open(after, at(50), 3).await.expect("walk");
        met.extend(walk.open.into_iter().map(|open| (open.entry.task, open.entry.run.get())));
        steps += 1;
        after = walk.next_after;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(met, [(queued, 1), (running, 1), (expiring, 1), (released, 2)]);
    assert_eq!(steps, 3);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn the_walk_tells_what_may_expire_while_it_waits_for_room(
    #[values(Database::MariaDb, Database::SqliteFile)] database: Database,
) {
    let store = Fixture::new(database).await;
    store.submit_one(aside(5, AgendaWhy::Room)).await;
    let mut limited = task_with(|spec| spec.start_timeout = Some(std::time::Duration::from_secs(9)));
    limited.set_aside = Some(SetAside { at: at(5), why: AgendaWhy::Room });
    let limited = store.submit_one(limited).await;
    let walk = store.walk_open(None, at(50), 10).await.expect("walk");
    assert!(walk.open.is_empty());
    let told: Vec<_> = walk.without_room.iter().map(|open| (open.entry.task, open.start_by)).collect();
    assert_eq!(told, [(limited, Some(StartBy { at: at(9), limit: TimeLimit::StartTimeout }))]);
    // Once it is closed, nobody looks at it again, the feeder neither.
    let queue = "default".parse().expect("a queue");
    assert_eq!(store.best_without_room(&queue, 10).await.expect("best").len(), 2);
    store.close(&close(limited, EndKind::Expired)).await.expect("closed");
    let best = store.best_without_room(&queue, 10).await.expect("best");
    assert!(best.iter().all(|(row, _)| row.task != limited), "{best:?}");
}
