//! Operations on many tasks: their batches are counted once, their trees are walked in bounded steps.

use std::{collections::BTreeSet, time::Duration};

use oxcart_store::{
    Counted, NewOperation, Operation, OperationCounts, OperationStarted, OperationState, OperationStep, OperationStopped, Selector,
    TreeMember,
};
use oxcart_types::{IdSource as _, OperationId, RequestId, SystemIds, TaskId};
use rstest::rstest;

use crate::support::{Database, Fixture, at, close, task, task_id, task_with};

fn operation(selector: Selector) -> NewOperation {
    NewOperation {
        id: SystemIds.operation_id(),
        request: None,
        selector,
        reason: "why".to_owned(),
        actor: "alice".to_owned(),
        grace: Duration::from_secs(5),
        created_at: at(0),
    }
}

fn step(operation: &Operation) -> OperationStep {
    OperationStep {
        id: operation.asked.id,
        step: operation.step,
        added: OperationCounts { matched: 3, cancelled: 2, requested: 1, ..OperationCounts::default() },
        position: None,
        failures: vec!["x: gone".to_owned()],
        next_at: Some(at(1)),
        at: at(1),
    }
}

impl Fixture {
    async fn started(&self, new: &NewOperation) -> Operation {
        match self.store.start_operation(new, 100).await.expect("start") {
            OperationStarted::Started(operation) => *operation,
            other => panic!("{other:?}"),
        }
    }

    async fn known(&self, id: OperationId) -> Operation {
        self.store.operation(id).await.expect("operation").expect("known")
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn an_operation_reads_back_whatever_it_picks(
    #[values(Database::MariaDb, Database::SqliteFile, Database::SqliteMemory)] database: Database,
) {
    let store = Fixture::new(database).await;
    let selectors = [
        Selector::Tasks((0..1000).map(|_| task_id()).collect()),
        Selector::Tag("späte tags".parse().expect("a tag")),
        Selector::Filter("queue = mail AND create_time < now".to_owned()),
        Selector::Tree(task_id()),
    ];
    let mut ids = Vec::new();
    for selector in selectors {
        let new = operation(selector);
        let started = store.started(&new).await;
        assert_eq!((&started.asked, started.state), (&new, OperationState::Running));
        assert_eq!(store.known(new.id).await, started);
        ids.push(new.id);
    }
    ids.reverse();
    let listed = async |before, limit| {
        let found = store.operations(before, limit).await.expect("operations");
        found.into_iter().map(|operation| operation.asked.id).collect::<Vec<_>>()
    };
    assert_eq!(listed(None, 3).await, ids[..3]);
    assert_eq!(listed(Some(ids[2]), 3).await, ids[3..]);
    assert_eq!(store.operation(OperationId::from_bytes([1; 16])).await.expect("none"), None);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn operations_are_bounded_and_repeats_find_them(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let request = Some(RequestId::from_bytes([3; 16]));
    let first = NewOperation { request, ..operation(Selector::Tag("a".parse().expect("a tag"))) };
    store.started(&first).await;
    let again = NewOperation { id: SystemIds.operation_id(), ..first.clone() };
    assert_eq!(store.started(&again).await.asked.id, first.id);
    let other = NewOperation { reason: "else".to_owned(), ..again };
    assert_eq!(
        store.start_operation(&other, 100).await.expect("start"),
        OperationStarted::RequestReused(RequestId::from_bytes([3; 16]))
    );
    let second = operation(Selector::Tag("b".parse().expect("a tag")));
    assert_eq!(store.start_operation(&second, 1).await.expect("start"), OperationStarted::TooMany);
    assert!(matches!(store.stop_operation(first.id, at(1)).await.expect("stop"), OperationStopped::Stopped(_)));
    assert!(matches!(store.start_operation(&second, 1).await.expect("start"), OperationStarted::Started(_)));
}

/// Two processes may carry out the same batch: what it came to is counted once, and a stopped operation counts nothing more.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_counted_once(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let id = store.started(&operation(Selector::Tag("a".parse().expect("a tag")))).await.asked.id;
    let claimed = store.claim_operation(at(0), at(30)).await.expect("claim").expect("due");
    assert_eq!(store.claim_operation(at(29), at(60)).await.expect("claim"), None, "somebody is at it");
    let resumed = store.claim_operation(at(30), at(60)).await.expect("claim").expect("whoever had it is gone");
    assert_eq!(claimed.step, resumed.step);
    assert!(store.record_step(&step(&resumed)).await.expect("record"));
    assert!(!store.record_step(&step(&claimed)).await.expect("record"), "the other one comes too late");
    let known = store.known(id).await;
    assert_eq!((known.counts.matched, known.counts.cancelled, known.counts.requested), (3, 2, 1));
    assert_eq!(known.failures, ["x: gone"]);
    let next = store.claim_operation(at(1), at(30)).await.expect("claim").expect("due again");
    assert!(store.record_step(&OperationStep { next_at: None, ..step(&next) }).await.expect("record"));
    let done = store.known(id).await;
    assert_eq!((done.state, done.ended_at, done.counts.matched), (OperationState::Completed, Some(at(1)), 6));
    assert_eq!(store.stop_operation(id, at(2)).await.expect("stop"), OperationStopped::Completed);
    assert_eq!(store.claim_operation(at(99), at(100)).await.expect("claim"), None);

    let stopped = store.started(&operation(Selector::Tag("b".parse().expect("a tag")))).await;
    for _ in 0..2 {
        let answer = store.stop_operation(stopped.asked.id, at(3)).await.expect("stop");
        assert!(matches!(answer, OperationStopped::Stopped(operation) if operation.ended_at == Some(at(3))));
    }
    assert!(!store.record_step(&step(&stopped)).await.expect("record"));
    let unknown = store.stop_operation(OperationId::from_bytes([1; 16]), at(3)).await.expect("stop");
    assert_eq!(unknown, OperationStopped::NoOperation);
    assert_eq!(store.forget_operations(at(3), 10).await.expect("forget"), 1);
    assert!(store.operation(id).await.expect("operation").is_none());
    assert!(store.operation(stopped.asked.id).await.expect("operation").is_some());
}

/// Children of a parent, as they are submitted.
async fn children(store: &Fixture, parent: TaskId, count: usize) -> Vec<TaskId> {
    let tasks: Vec<_> = (0..count).map(|_| task_with(|spec| spec.parent = Some(parent))).collect();
    let ids = tasks.iter().map(|task| task.spec.id).collect();
    store.submit_units(vec![crate::support::unit(tasks)]).await;
    ids
}

/// Walks a tree as a sweeper does; says what it met, and the most members of one step.
async fn walk(store: &Fixture, id: OperationId, as_counted: Counted) -> BTreeSet<TaskId> {
    let mut met = BTreeSet::new();
    for _ in 0..100 {
        let mut members = store.tree_members(id, 500).await.expect("members");
        if members.is_empty() {
            return met;
        }
        if let Some(wide) = members.iter().find(|member| member.after.is_some()).copied() {
            members = vec![wide];
        }
        met.extend(members.iter().map(|member| member.task));
        let looked_at: Vec<(TreeMember, Counted)> = members.into_iter().map(|member| (member, as_counted)).collect();
        let operation = store.known(id).await;
        assert!(store.record_tree_step(&step(&operation), &looked_at).await.expect("record"));
    }
    panic!("the walk does not end");
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_tree_is_walked_to_its_last_leaf(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let stranger = store.submit_one(task()).await;
    let root = store.submit_one(task()).await;
    assert_eq!(store.get_one(children(&store, root, 1).await[0]).await.spec.parent, Some(root), "a link reads back");
    let mut expected: BTreeSet<TaskId> = [root].into();
    // Wider than one step, in two levels, and one deep line.
    let wide = children(&store, root, 2500).await;
    let narrow = children(&store, wide[2400], 700).await;
    let mut line = wide[7];
    for _ in 0..20 {
        let child = children(&store, line, 1).await;
        line = child[0];
        expected.extend(child);
    }
    expected.extend(store.children(&[root], 10_000).await.expect("children"));
    expected.extend(wide.iter().chain(&narrow).copied());
    let id = store.started(&operation(Selector::Tree(root))).await.asked.id;
    assert_eq!(walk(&store, id, Counted::Cancelled).await, expected);
    assert!(!expected.contains(&stranger));
    assert!(!store.next_round(id).await.expect("round"), "nothing runs");
    assert_eq!(store.children(&[root], 7).await.expect("children").len(), 7);

    // Its members are deleted a few at a time once it has ended.
    assert_eq!(store.forget_operations(at(-1), 1000).await.expect("forget"), 0, "it is at work");
    store.stop_operation(id, at(5)).await.expect("stop");
    let mut felled = 0;
    loop {
        match store.forget_operations(at(-1), 1000).await.expect("forget") {
            0 => break,
            count => felled += count,
        }
    }
    assert_eq!(felled, expected.len());
}

/// A task that runs may start more until it has ended: it is looked at again, and so are its new children.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn what_a_stopping_task_starts_is_found(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let root = store.submit_one(task()).await;
    let first = children(&store, root, 3).await;
    let id = store.started(&operation(Selector::Tree(root))).await.asked.id;
    let met = walk(&store, id, Counted::Requested).await;
    assert_eq!(met.len(), 4);
    let late = children(&store, first[1], 2).await;
    assert!(store.next_round(id).await.expect("round"));
    let again = store.tree_members(id, 500).await.expect("members");
    assert!(again.iter().all(|member| member.counted == Some(Counted::Requested)), "{again:?}");
    let met = walk(&store, id, Counted::Cancelled).await;
    assert!(late.iter().all(|task| met.contains(task)), "{met:?}");
    assert!(!store.next_round(id).await.expect("round"));
}

/// A loop of parents ends, and a tree stays whole when a task within it is deleted.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn odd_trees_are_walked_too(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let (mut a, mut b) = (task(), task());
    a.spec.parent = Some(b.spec.id);
    b.spec.parent = Some(a.spec.id);
    let (a, b) = (store.submit_one(a).await, store.submit_one(b).await);
    let id = store.started(&operation(Selector::Tree(a))).await.asked.id;
    assert_eq!(walk(&store, id, Counted::Cancelled).await, [a, b].into());

    let root = store.submit_one(task()).await;
    let middle = children(&store, root, 1).await[0];
    let leaf = children(&store, middle, 1).await[0];
    store.close(&close(leaf, oxcart_types::EndKind::Cancelled)).await.expect("close");
    store.close(&close(middle, oxcart_types::EndKind::Cancelled)).await.expect("close");
    store.delete(leaf).await.expect("delete");
    assert!(store.children(&[middle], 10).await.expect("children").is_empty(), "its place goes with it");
    let leaf = children(&store, middle, 1).await[0];
    let id = store.started(&operation(Selector::Tree(root))).await.asked.id;
    assert_eq!(walk(&store, id, Counted::Cancelled).await, [root, middle, leaf].into());
}
