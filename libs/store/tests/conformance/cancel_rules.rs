//! Cancel rules: what they promise about starts and submissions.

use std::{sync::Arc, time::Duration};

use oxcart_store::{
    CancelRule, NewCancelRule, NewOperation, NewTask, RuleMade, RuleSelector, Selector, StartOutcome, SubmitUnit, UnitOutcome,
};
use oxcart_types::{
    CancelRuleId, EndKind, IdSource as _, OperationId, RequestId, Run, SystemIds, TaskId, TaskState, Timestamp, chain::StartKind,
};
use rstest::rstest;

use crate::support::{Database, Fixture, at, end, run, start, task, task_with, unit};

fn tagged(tag: &str) -> NewTask {
    task_with(|spec| spec.tags = vec![tag.parse().expect("a tag")])
}

fn rule(selector: RuleSelector, made: Timestamp, expires_at: Timestamp) -> (NewCancelRule, NewOperation) {
    let picks = match &selector {
        RuleSelector::Tag(tag) => Selector::Tag(tag.clone()),
        RuleSelector::Filter(filter) => Selector::Filter(filter.clone()),
    };
    let sweep = NewOperation {
        id: SystemIds.operation_id(),
        request: None,
        selector: picks,
        reason: "bad data".to_owned(),
        actor: "alice".to_owned(),
        grace: Duration::from_secs(5),
        created_at: made,
    };
    let rule = NewCancelRule {
        id: SystemIds.cancel_rule_id(),
        request: None,
        sweep: sweep.id,
        selector,
        reason: "bad data".to_owned(),
        actor: "alice".to_owned(),
        grace: Duration::from_secs(5),
        created_at: made,
        expires_at,
    };
    (rule, sweep)
}

fn on_tag(tag: &str) -> RuleSelector {
    RuleSelector::Tag(tag.parse().expect("a tag"))
}

impl Fixture {
    async fn make(&self, rule: &(NewCancelRule, NewOperation)) -> CancelRule {
        match self.store.make_cancel_rule(&rule.0, &rule.1, 1000).await.expect("make") {
            RuleMade::Made(made) => *made,
            other => panic!("{other:?}"),
        }
    }

    async fn rule(&self, id: CancelRuleId) -> CancelRule {
        let rules = self.store.cancel_rules(true, None, at(0), 100).await.expect("rules");
        rules.into_iter().find(|rule| rule.asked.id == id).expect("the rule")
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_under_a_rule_never_starts(
    #[values(Database::MariaDb, Database::SqliteFile, Database::SqliteMemory)] database: Database,
) {
    let store = Fixture::new(database).await;
    let picked = store.submit_one(tagged("bad")).await;
    let other = store.submit_one(tagged("good")).await;
    // One whose first run is over, and one whose first run is open.
    let retrying = store.submit_one(tagged("bad")).await;
    let token = store.begin(retrying, 1, at(1)).await;
    store.end_one(end(retrying, 1, token, EndKind::Retry), at(2)).await;
    let running = store.submit_one(tagged("bad")).await;
    let open = store.begin(running, 1, at(1)).await;

    let made = rule(on_tag("bad"), at(3), at(100));
    let made = store.make(&made).await;
    let starts = [start(picked, 1), start(other, 1), start(retrying, 2)];
    let outcomes = store.start(&starts, at(11)).await.expect("start");
    assert!(matches!(&outcomes[1], StartOutcome::Started { .. }), "{outcomes:?}");
    for (outcome, closed) in [(&outcomes[0], 1), (&outcomes[2], 2)] {
        let StartOutcome::Refused(refused) = outcome else { panic!("{outcomes:?}") };
        let latest = refused.task.head.latest.expect("a closed slot");
        assert_eq!((latest.run, latest.kind), (run(closed), StartKind::Closer));
    }
    let record = store.get_one(picked).await;
    let failure = record.failure.expect("why");
    assert_eq!((record.state, failure.message.as_str()), (TaskState::Cancelled, "bad data"));
    assert!(failure.detail.contains(&made.asked.id.to_string()), "{failure:?}");
    assert_eq!(store.state(retrying).await, TaskState::Cancelled);
    assert_eq!(store.rule(made.asked.id).await.cancelled, 2, "each is counted once");
    // The open run goes on: its end is up to its handler and to the sweep. What it gives back does not start again.
    assert_eq!(store.state(running).await, TaskState::Running);
    store.end_one(end(running, 1, open, EndKind::Retry), at(12)).await;
    assert!(matches!(store.start_one(start(running, 2), at(30)).await, StartOutcome::Refused(_)));
    assert_eq!(store.state(running).await, TaskState::Cancelled);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn what_is_submitted_under_a_rule_is_cancelled_from_its_first_moment(
    #[values(Database::MariaDb, Database::SqliteFile, Database::SqliteMemory)] database: Database,
) {
    let store = Fixture::new(database).await;
    let filter = RuleSelector::Filter("tags:bad AND queue = default AND create_time >= now".to_owned());
    let made = store.make(&rule(filter, at(-5), at(100))).await;
    let (picked, delayed, other) = (tagged("bad"), tagged("bad"), tagged("good"));
    let delayed = NewTask { set_aside: Some(oxcart_store::SetAside { at: at(50), why: oxcart_store::AgendaWhy::Time }), ..delayed };
    let ids: Vec<TaskId> = [&picked, &delayed, &other].map(|task| task.spec.id).to_vec();
    let request: RequestId = SystemIds.task_id().to_string().parse().expect("an id");
    let units =
        || vec![SubmitUnit { tasks: vec![picked.clone(), delayed.clone(), other.clone()], request: Some((request, at(900))) }];
    let outcomes = store.submit_units(units()).await;
    let [UnitOutcome::Accepted(accepted)] = outcomes.as_slice() else { panic!("{outcomes:?}") };
    assert_eq!(accepted.iter().map(|task| task.cancelled).collect::<Vec<_>>(), [true, true, false]);
    let outcomes = store.submit_units(units()).await;
    let [UnitOutcome::Accepted(again)] = outcomes.as_slice() else { panic!("{outcomes:?}") };
    assert!(again.iter().all(|task| task.deduplicated && !task.cancelled), "a repeat finds what was there: {again:?}");
    let states = [store.state(ids[0]).await, store.state(ids[1]).await, store.state(ids[2]).await];
    assert_eq!(states, [TaskState::Cancelled, TaskState::Cancelled, TaskState::Pending]);
    assert_eq!(store.rule(made.asked.id).await.cancelled, 2);
    // Nobody is to look at them again.
    let offered: Vec<TaskId> = store
        .stale_handoffs(at(900), 10)
        .await
        .expect("stale")
        .into_iter()
        .flat_map(|row| row.entries)
        .map(|entry| entry.task)
        .collect();
    assert_eq!(offered, [ids[2]]);
    assert!(store.claim_agenda(at(900), at(901), 10).await.expect("claim").is_empty());
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_rule_ends(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let deleted = store.make(&rule(on_tag("deleted"), at(0), at(100))).await.asked.id;
    let expiring = store.make(&rule(on_tag("expiring"), at(0), at(50))).await.asked.id;
    let (first, second, third) =
        (store.submit_units(vec![unit(vec![tagged("deleted")])]).await, tagged("deleted"), tagged("expiring"));
    assert!(matches!(first.as_slice(), [UnitOutcome::Accepted(accepted)] if accepted[0].cancelled));
    assert!(store.end_cancel_rule(deleted, at(10)).await.expect("end"));
    assert!(store.end_cancel_rule(deleted, at(11)).await.expect("ended already"));
    assert!(!store.end_cancel_rule(CancelRuleId::from_bytes([9; 16]), at(11)).await.expect("none"));
    let id = store.submit_one(second).await;
    store.begin(id, 1, at(12)).await;
    // At its end, whether somebody has tidied up or not.
    let (id, units) = (third.spec.id, vec![unit(vec![third])]);
    let outcomes = store.store.submit(units, SystemIds.handoff_id(), at(50)).await.expect("submit");
    assert!(matches!(outcomes.as_slice(), [UnitOutcome::Accepted(accepted)] if !accepted[0].cancelled));
    store.begin(id, 1, at(51)).await;
    let active = store.cancel_rules(false, None, at(51), 10).await.expect("rules");
    assert!(active.is_empty(), "{active:?}");
    assert_eq!(store.sweep_cancel_rules(at(51), at(-1), 10).await.expect("sweep"), 1);
    assert_eq!(store.sweep_cancel_rules(at(51), at(-1), 10).await.expect("sweep"), 0);
    assert_eq!(store.rule(expiring).await.ended_at, Some(at(50)));
    assert_eq!(store.rule(deleted).await.ended_at, Some(at(10)));
    store.sweep_cancel_rules(at(51), at(20), 10).await.expect("sweep");
    let left = store.cancel_rules(true, None, at(51), 10).await.expect("rules");
    assert_eq!(left.iter().map(|rule| rule.asked.id).collect::<Vec<_>>(), [expiring], "the older one is forgotten");
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn rules_are_bounded_and_repeats_find_them(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Fixture::new(database).await;
    let request = Some(RequestId::from_bytes([3; 16]));
    let (mut first, sweep) = rule(on_tag("a"), at(0), at(100));
    first.request = request;
    assert!(matches!(store.make_cancel_rule(&first, &sweep, 1).await.expect("make"), RuleMade::Made(_)));
    let (mut again, other_sweep) = rule(on_tag("a"), at(1), at(100));
    again.request = request;
    let RuleMade::Made(found) = store.make_cancel_rule(&again, &other_sweep, 1).await.expect("make") else { panic!("known") };
    assert_eq!((found.asked.id, found.asked.sweep), (first.id, sweep.id));
    again.selector = on_tag("b");
    assert_eq!(
        store.make_cancel_rule(&again, &other_sweep, 1).await.expect("make"),
        RuleMade::RequestReused(RequestId::from_bytes([3; 16]))
    );
    let (second, sweep) = rule(on_tag("b"), at(1), at(100));
    assert_eq!(store.make_cancel_rule(&second, &sweep, 1).await.expect("make"), RuleMade::TooMany);
    assert_eq!(store.operation(sweep.id).await.expect("operation"), None, "nothing is stored");
    assert!(matches!(store.make_cancel_rule(&second, &sweep, 2).await.expect("make"), RuleMade::Made(_)));
    // Past its end the first does not count any more.
    let (third, sweep) = rule(on_tag("c"), at(200), at(300));
    assert!(matches!(store.make_cancel_rule(&third, &sweep, 1).await.expect("make"), RuleMade::Made(_)));
    assert!(store.operation(OperationId::from_bytes(*sweep.id.as_bytes())).await.expect("operation").is_some());
}

/// The promise, under load: once the making of a rule has returned, the set of tasks that were ever started does not grow. Without
/// the guard a start that had read the rules before would commit after.
#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn no_start_is_committed_once_a_rule_is_made(#[values(Database::MariaDb, Database::SqliteFile)] database: Database) {
    let store = Arc::new(Fixture::new(database).await);
    for round in 0..8 {
        let tag = format!("round-{round}");
        let mut ids = Vec::new();
        for _ in 0..60 {
            ids.push(store.submit_one(tagged(&tag)).await);
        }
        let untagged = store.submit_one(task()).await;
        let starters: Vec<_> = ids
            .iter()
            .map(|id| {
                let (store, start) = (Arc::clone(&store), start(*id, 1));
                tokio::spawn(async move { store.start_one(start, at(1)).await })
            })
            .collect();
        let submitter = {
            let (store, tag) = (Arc::clone(&store), tag.clone());
            tokio::spawn(async move {
                let mut submitted = Vec::new();
                for _ in 0..10 {
                    let task = tagged(&tag);
                    let id = task.spec.id;
                    store.submit_units(vec![unit(vec![task])]).await;
                    submitted.push(id);
                }
                submitted
            })
        };
        store.make(&rule(on_tag(&tag), at(0), at(100))).await;
        let started_before = started(&store, &ids).await;
        for starter in starters {
            starter.await.expect("a start");
        }
        let started_after = started(&store, &ids).await;
        assert_eq!(started_before, started_after, "a start was committed after the rule");
        // What was submitted meanwhile is cancelled, or was there before the rule and does not start.
        for id in submitter.await.expect("submits") {
            assert!(matches!(store.start_one(start(id, 1), at(2)).await, StartOutcome::Refused(_)));
            assert_eq!(store.state(id).await, TaskState::Cancelled);
        }
        store.begin(untagged, Run::FIRST.get(), at(2)).await;
    }
}

async fn started(store: &Fixture, ids: &[TaskId]) -> Vec<TaskId> {
    let records = store.get(ids, oxcart_types::record::View::Basic).await.expect("records");
    records.into_iter().flatten().filter(|record| record.started_at.is_some()).map(|record| record.spec.id).collect()
}
