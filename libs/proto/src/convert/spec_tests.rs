use oxcart_types::SystemIds;
use proptest::{collection, option, prelude::*};
use uuid::{NoContext, Uuid};

use super::*;
use crate::pb::common::v1::task_spec::Start;

fn now() -> Timestamp {
    Timestamp::from_timestamp(1_800_000_000, 0).expect("a time")
}

fn read(spec: pb::TaskSpec) -> Result<(TaskSpec, bool), Violations> {
    task_spec(spec, &SpecContext { limits: &Limits::default(), now: now(), ids: &SystemIds })
}

fn named() -> pb::TaskSpec {
    pb::TaskSpec { task_name: "echo".to_owned(), ..Default::default() }
}

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

fn id_made_at(seconds: u64) -> String {
    Uuid::new_v7(uuid::Timestamp::from_unix(NoContext, seconds, 0)).to_string()
}

#[test]
fn defaults_are_filled_in() {
    let (spec, chosen) = read(named()).expect("good");
    assert!(!chosen);
    assert_eq!((spec.queue.as_str(), spec.priority.get(), spec.retry.max_attempts()), ("default", 4, 2));
    assert_eq!((spec.run_at, spec.expires_at, spec.timeout, spec.idempotency), (None, None, None, None));
}

#[test]
fn a_delay_counts_from_now() {
    let (spec, _) = read(pb::TaskSpec { start: seconds(90).map(Start::Delay), ..named() }).expect("good");
    assert_eq!(spec.run_at, Timestamp::from_timestamp(1_800_000_090, 0));
}

#[test]
fn chosen_ids_carry_a_recent_time() {
    let read = |task_id| read(pb::TaskSpec { task_id, ..named() });
    assert!(read(id_made_at(1_800_000_000)).expect("good").1);
    assert!(read(id_made_at(1_800_000_000 - 599)).is_ok());
    assert!(read(id_made_at(1_800_000_000 + 3600)).is_ok(), "clocks of clients may be ahead");
    let far = id_made_at(1_800_000_000 + 24 * 3600 + 1);
    let last = "ffffffff-ffff-7cc3-98c4-dc0c0c07398f".to_owned();
    for bad in [id_made_at(1_800_000_000 - 601), far, last, Uuid::new_v4().to_string(), Uuid::nil().to_string(), "x".to_owned()] {
        let violations = read(bad.clone()).expect_err(&bad);
        assert_eq!(violations.as_slice()[0].field, "task_id", "{bad}");
    }
}

#[test]
fn what_was_read_reads_back() {
    let given = pb::TaskSpec {
        task_id: id_made_at(1_800_000_000),
        queue: "mail".to_owned(),
        tags: vec!["b".to_owned(), "a".to_owned(), "a".to_owned()],
        start: seconds(60).map(Start::Delay),
        expires_at: Some(prost_types::Timestamp { seconds: 1_800_000_600, nanos: 0 }),
        timeout: seconds(5),
        deadline: seconds(3600),
        idempotency_key: "k".to_owned(),
        fairness_key: "tenant".to_owned(),
        parent: Some(pb::ParentLink { parent_task_id: id_made_at(1) }),
        ..named()
    };
    let (spec, _) = read(given).expect("good");
    assert_eq!(spec.tags.len(), 2);
    let (again, _) = read(to_task_spec(spec.clone(), true)).expect("good");
    assert_eq!(again, spec);
}

#[test]
fn every_mistake_is_named() {
    let bad = read(pb::TaskSpec {
        task_id: "nonsense".to_owned(),
        task_name: String::new(),
        queue: "Bad Queue".to_owned(),
        priority: Some(10),
        tags: vec!["ok".to_owned(), String::new()],
        metadata: [(String::new(), "v".to_owned())].into(),
        start: seconds(-1).map(Start::Delay),
        expires_at: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
        start_timeout: seconds(0),
        timeout: seconds(0),
        heartbeat_timeout: seconds(8 * 24 * 3600),
        deadline: seconds(i64::MAX),
        retry_policy: Some(pb::RetryPolicy { max_attempts: -1, backoff_multiplier: f64::NAN, ..Default::default() }),
        payload: Some(pb::Payload { content: Some(pb::payload::Content::Json("{".to_owned())), ..Default::default() }),
        idempotency_key: String::new(),
        idempotency_policy: 77,
        idempotency_ttl: seconds(-5),
        fairness_key: " x".to_owned(),
        parent: Some(pb::ParentLink { parent_task_id: "y".to_owned() }),
    });
    let fields: Vec<_> = bad.expect_err("all of it").as_slice().iter().map(|v| v.field.clone()).collect();
    let expected = [
        "task_id",
        "task_name",
        "queue",
        "payload",
        "priority",
        "tags[1]",
        "metadata",
        "delay",
        "expires_at",
        "start_timeout",
        "timeout",
        "heartbeat_timeout",
        "deadline",
        "retry_policy.max_attempts",
        "retry_policy.backoff_multiplier",
        "idempotency_policy",
        "idempotency_ttl",
        "idempotency_key",
        "parent.parent_task_id",
        "fairness_key",
    ];
    assert_eq!(fields, expected);
}

#[test]
fn a_start_after_the_end_is_a_conflict() {
    let expired = pb::TaskSpec {
        start: seconds(600).map(Start::Delay),
        expires_at: Some(prost_types::Timestamp { seconds: 1_800_000_600, nanos: 0 }),
        deadline: seconds(60),
        ..named()
    };
    let bad = read(expired).expect_err("two conflicts");
    let seen: Vec<_> = bad.as_slice().iter().map(|v| (v.field.as_str(), v.reason)).collect();
    assert_eq!(seen, [("expires_at", reason::FIELD_CONFLICT), ("deadline", reason::FIELD_CONFLICT)]);
}

#[test]
fn a_task_is_not_its_own_parent() {
    let id = id_made_at(1_800_000_000);
    let own = pb::TaskSpec { task_id: id.clone(), parent: Some(pb::ParentLink { parent_task_id: id }), ..named() };
    let missing = pb::TaskSpec { parent: Some(pb::ParentLink::default()), ..named() };
    for (spec, why) in [(own, reason::FIELD_CONFLICT), (missing, reason::FIELD_REQUIRED)] {
        let bad = read(spec).expect_err(why);
        let seen: Vec<_> = bad.as_slice().iter().map(|v| (v.field.as_str(), v.reason)).collect();
        assert_eq!(seen, [("parent.parent_task_id", why)]);
    }
}

fn durations() -> impl Strategy<Value = Option<prost_types::Duration>> {
    option::of((any::<i64>(), any::<i32>()).prop_map(|(seconds, nanos)| prost_types::Duration { seconds, nanos }))
}

fn times() -> impl Strategy<Value = Option<prost_types::Timestamp>> {
    option::of((any::<i64>(), any::<i32>()).prop_map(|(seconds, nanos)| prost_types::Timestamp { seconds, nanos }))
}

prop_compose! {
    fn specs()(
        task_id in ".{0,40}", task_name in ".{0,140}", queue in ".{0,70}", priority in option::of(any::<i32>()),
        tags in collection::vec(".{0,70}", 0..40), metadata in collection::hash_map(".{0,8}", ".{0,8}", 0..70),
        run_at in times(), delay in durations(), expires_at in times(),
        (timeout, deadline, idempotency_ttl) in (durations(), durations(), durations()),
        (start_timeout, heartbeat_timeout) in (durations(), durations()),
        (max_attempts, backoff_multiplier, jitter) in (any::<i32>(), any::<f64>(), any::<f64>()),
        (json, idempotency_key, fairness_key) in (".{0,20}", ".{0,140}", ".{0,70}"), idempotency_policy in any::<i32>(),
        parent in option::of(".{0,40}"),
    ) -> pb::TaskSpec {
        pb::TaskSpec {
            task_id, task_name, queue, priority, tags, metadata, expires_at, start_timeout, timeout, heartbeat_timeout,
            deadline, idempotency_ttl,
            idempotency_key, fairness_key, idempotency_policy, parent: parent.map(|parent_task_id| pb::ParentLink { parent_task_id }),
            start: run_at.map(Start::RunAt).or(delay.map(Start::Delay)),
            payload: Some(pb::Payload { content: Some(pb::payload::Content::Json(json)), ..Default::default() }),
            retry_policy: Some(pb::RetryPolicy { max_attempts, backoff_multiplier, jitter, ..Default::default() }),
        }
    }
}

proptest! {
    #[test]
    fn no_specification_panics_and_refusals_say_why(spec in specs()) {
        if let Err(bad) = read(spec) {
            prop_assert!(!bad.is_empty());
        }
    }
}
