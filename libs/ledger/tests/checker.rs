//! Each check finds what it is for, and nothing in a history that keeps all promises.

#![expect(clippy::unwrap_used, reason = "what fails here fails a test")]

use std::{collections::BTreeMap, time::Duration};

use oxcart_ledger::{CancelAnswer, Chain, Expect, Invariant, Left, Observation, Report, SubmitAnswer, check, check_drained};
use oxcart_types::{
    ChainHead, EndKind, Payload, Priority, QueueName, RetryPolicy, Run, TaskId, TaskSpec, TaskState, Timestamp, WorkerId,
    chain::StartKind,
    record::{ReplayRecord, RunEndRecord, RunRecord, TaskRecord},
};
use uuid::Uuid;

const SECOND: Duration = Duration::from_secs(1);

/// A point in time, by seconds.
fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
}

fn task(number: u128) -> TaskId {
    TaskId::from_uuid(Uuid::from_u128(number))
}

fn worker(number: u128) -> WorkerId {
    WorkerId::from_uuid(Uuid::from_u128(number))
}

fn run(number: u32) -> Run {
    Run::new(number).unwrap()
}

/// A history in the making: task 1, submitted at 0 and acknowledged.
struct History {
    seen: Vec<Observation>,
    chains: BTreeMap<TaskId, Chain>,
    expect: Expect,
}

impl History {
    fn new() -> Self {
        let seen =
            vec![Observation::Submitted { task: task(1), key: None, answer: SubmitAnswer::Acknowledged(task(1)), at: at(0) }];
        Self { seen, chains: BTreeMap::from([(task(1), chain(1, 0))]), expect: Expect::default() }
    }

    fn chain(&mut self) -> &mut Chain {
        self.chains.get_mut(&task(1)).unwrap()
    }

    /// A run of worker `by` at `from`, ended at `to`; the handler was inside all the while.
    fn run(mut self, by: u128, from: i64, to: i64, kind: EndKind) -> Self {
        let number = run(self.chain().runs.len() as u32 + 1);
        let runs = &self.chain().runs;
        let budget = runs.iter().rposition(|run| run.end.as_ref().unwrap().replay.is_some()).map_or(0, |replayed| replayed + 1);
        let used = runs[budget..].iter().filter(|run| run.end.as_ref().unwrap().kind != EndKind::Released).count();
        let end =
            RunEndRecord { kind, at: at(to), failure: None, next_run_at: (!kind.is_terminal()).then(|| at(to)), replay: None };
        self.chain().runs.push(RunRecord {
            run: number,
            kind: StartKind::Worker,
            attempt: used as u32 + 1,
            worker: Some(worker(by)),
            started_at: at(from),
            end: Some(end),
        });
        self.seen.push(Observation::Entered { task: task(1), run: number, worker: worker(by), at: at(from) });
        let result = format!("\"{number}\"");
        let how = if kind == EndKind::Succeeded { Left::Returned(result.clone().into_bytes()) } else { Left::Failed };
        if kind == EndKind::Lost {
            self.seen.push(Observation::Died { worker: worker(by), at: at(to) });
        } else {
            self.seen.push(Observation::Left { task: task(1), run: number, how, at: at(to) });
        }
        if kind == EndKind::Succeeded {
            self.chain().task.result = Some(Payload::from_stored("application/json".to_owned(), result.into_bytes()));
        }
        self.state(kind)
    }

    /// A slot that was closed.
    fn closed(mut self, when: i64, kind: EndKind) -> Self {
        let number = run(self.chain().runs.len() as u32 + 1);
        let end = RunEndRecord { kind, at: at(when), failure: None, next_run_at: None, replay: None };
        let closed =
            RunRecord { run: number, kind: StartKind::Closer, attempt: 1, worker: None, started_at: at(when), end: Some(end) };
        self.chain().runs.push(closed);
        self.state(kind)
    }

    /// The last end is undone.
    fn replayed(mut self, when: i64, max_attempts: Option<u32>) -> Self {
        let replay = ReplayRecord { at: at(when), max_attempts, reason: String::new() };
        self.chain().runs.last_mut().unwrap().end.as_mut().unwrap().replay = Some(replay);
        self.state(EndKind::Released)
    }

    fn state(mut self, kind: EndKind) -> Self {
        self.chain().task.state = match kind {
            EndKind::Succeeded => TaskState::Succeeded,
            EndKind::Failed => TaskState::Failed,
            EndKind::Cancelled => TaskState::Cancelled,
            EndKind::Expired => TaskState::Expired,
            EndKind::Retry => TaskState::Retrying,
            EndKind::Released | EndKind::Lost => TaskState::Queued,
        };
        self
    }

    fn cancelled(mut self, when: i64, answer: CancelAnswer) -> Self {
        self.seen.push(Observation::CancelAnswered { task: task(1), answer, at: at(when) });
        self
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn check(&self) -> Report {
        check(&self.seen, &self.chains, &self.expect)
    }

    /// Exactly these promises are broken.
    #[track_caller]
    fn breaks(&self, broken: &[Invariant]) {
        let report = self.check();
        let mut found: Vec<_> = report.violations.iter().map(|violation| violation.invariant).collect();
        found.sort_unstable();
        found.dedup();
        assert_eq!(found, broken, "{report}");
    }
}

fn chain(number: u128, created: i64) -> Chain {
    let spec = TaskSpec {
        id: task(number),
        name: "sim".parse().unwrap(),
        queue: QueueName::default_queue(),
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
        retry: RetryPolicy::default(),
        idempotency: None,
        parent: None,
        fairness_key: None,
    };
    let record = TaskRecord {
        spec,
        created_at: at(created),
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
    Chain { task: record, runs: Vec::new() }
}

#[test]
fn histories_that_keep_every_promise_pass() {
    let expect = Expect { calm: true, order: Some(SECOND), ..Expect::default() };
    let calm = History::new().run(1, 1, 2, EndKind::Retry).run(1, 3, 4, EndKind::Succeeded).with(|h| h.expect = expect);
    calm.breaks(&[]);
    let figures = calm.check().figures;
    assert_eq!((figures.tasks, figures.starts, figures.retried, figures.entered, figures.overlaps), (1, 2, 1, 2, 0));
    History::new().run(1, 1, 5, EndKind::Lost).run(2, 6, 7, EndKind::Succeeded).breaks(&[]);
    History::new()
        .run(1, 1, 2, EndKind::Released)
        .closed(3, EndKind::Cancelled)
        .cancelled(3, CancelAnswer::Acknowledged)
        .breaks(&[]);
    History::new().cancelled(2, CancelAnswer::Requested).run(1, 1, 3, EndKind::Succeeded).breaks(&[]);
    History::new().closed(9, EndKind::Expired).with(|h| h.chain().task.spec.expires_at = Some(at(9))).breaks(&[]);
}

#[test]
fn a_replay_begins_a_budget_and_takes_back_what_was_before() {
    let failed = || History::new().run(1, 1, 2, EndKind::Retry).run(1, 3, 4, EndKind::Failed);
    let again = |max| failed().replayed(5, max).run(1, 6, 7, EndKind::Retry).run(1, 8, 9, EndKind::Succeeded);
    again(None).breaks(&[]);
    again(Some(1)).breaks(&[Invariant::I6]);
    failed().replayed(5, None).breaks(&[Invariant::I1]);
    let undone = |h: &mut History| h.chain().runs[0].end.as_mut().unwrap().kind = EndKind::Retry;
    History::new()
        .run(1, 1, 2, EndKind::Failed)
        .replayed(3, None)
        .run(1, 4, 5, EndKind::Succeeded)
        .with(undone)
        .breaks(&[Invariant::I3]);
    let cancelled = || History::new().closed(1, EndKind::Cancelled).cancelled(1, CancelAnswer::Acknowledged).replayed(2, None);
    cancelled().run(1, 3, 4, EndKind::Succeeded).breaks(&[]);
    cancelled().run(1, 3, 4, EndKind::Succeeded).cancelled(5, CancelAnswer::Acknowledged).breaks(&[Invariant::I7]);
    let late = |h: &mut History| h.chain().task.spec.deadline = Some(SECOND);
    failed().replayed(5, None).run(1, 7, 8, EndKind::Succeeded).with(late).breaks(&[Invariant::I7]);
}

#[test]
fn what_was_acknowledged_is_there_and_ends() {
    History::new().with(|h| h.chains.clear()).breaks(&[Invariant::I1]);
    History::new().breaks(&[Invariant::I1]);
    History::new().run(1, 1, 2, EndKind::Retry).breaks(&[Invariant::I1]);
}

#[test]
fn what_was_not_acknowledged_is_absent_or_complete() {
    let answered = |answer| {
        History::new().with(|h| h.seen[0] = Observation::Submitted { task: task(1), key: Some("k".to_owned()), answer, at: at(0) })
    };
    answered(SubmitAnswer::Unknown).run(1, 1, 2, EndKind::Succeeded).breaks(&[]);
    answered(SubmitAnswer::Unknown).with(|h| h.chains.clear()).breaks(&[]);
    answered(SubmitAnswer::Unknown).breaks(&[Invariant::I2]);
    answered(SubmitAnswer::Refused).run(1, 1, 2, EndKind::Succeeded).breaks(&[Invariant::I2]);
    History::new().run(1, 1, 2, EndKind::Succeeded).with(|h| drop(h.seen.remove(0))).breaks(&[Invariant::I2]);
    let twice = answered(SubmitAnswer::Acknowledged(task(1))).run(1, 1, 2, EndKind::Succeeded).with(|h| {
        let answer = SubmitAnswer::Acknowledged(task(2));
        h.seen.push(Observation::Submitted { task: task(3), key: Some("k".to_owned()), answer, at: at(1) });
        let mut other = h.chain().clone();
        other.task.spec.id = task(2);
        h.chains.insert(task(2), Chain { runs: History::new().closed(1, EndKind::Failed).chain().runs.clone(), ..other });
        h.chains.get_mut(&task(2)).unwrap().task.state = TaskState::Failed;
    });
    twice.breaks(&[Invariant::I2]);
}

#[test]
fn chains_are_legal() {
    let done = || History::new().run(1, 1, 2, EndKind::Succeeded);
    done().with(|h| h.chain().runs[0].run = run(2)).breaks(&[Invariant::I3, Invariant::I4]);
    History::new().run(1, 1, 2, EndKind::Cancelled).closed(3, EndKind::Cancelled).breaks(&[Invariant::I3]);
    History::new().closed(1, EndKind::Succeeded).breaks(&[Invariant::I3, Invariant::I4]);
    History::new().run(1, 1, 2, EndKind::Expired).breaks(&[Invariant::I3]);
    let open = History::new().run(1, 1, 2, EndKind::Retry).run(1, 3, 4, EndKind::Failed);
    open.with(|h| h.chain().runs[0].end = None).breaks(&[Invariant::I3]);
    done().with(|h| h.chain().runs[0].worker = Some(worker(2))).breaks(&[Invariant::I3]);
}

#[test]
fn a_result_stands_by_its_own_run() {
    let done = || History::new().run(1, 1, 5, EndKind::Lost).run(2, 6, 7, EndKind::Succeeded);
    let others = Payload::from_stored("application/json".to_owned(), b"\"1\"".to_vec());
    done().with(|h| h.chain().task.result = Some(others)).breaks(&[Invariant::I4]);
    done().with(|h| h.seen.truncate(4)).breaks(&[Invariant::I4]);
}

#[test]
fn run_numbers_grow() {
    let done = || History::new().run(1, 1, 5, EndKind::Lost).run(2, 6, 7, EndKind::Succeeded);
    let entered = |run, seconds| Observation::Entered { task: task(1), run, worker: worker(1), at: at(seconds) };
    done().with(|h| h.seen.push(entered(run(1), 8))).breaks(&[Invariant::I5]);
    done().with(|h| h.seen[1] = entered(run(1), 9)).breaks(&[Invariant::I5]);
    // Clocks that disagree by more than that say nothing.
    let unsure = done().with(|h| h.seen[1] = entered(run(1), 9));
    unsure.with(|h| h.expect.clocks = 10 * SECOND).breaks(&[]);
}

#[test]
fn attempts_are_counted() {
    let thrice = History::new().run(1, 1, 2, EndKind::Retry).run(1, 3, 4, EndKind::Retry).run(1, 5, 6, EndKind::Succeeded);
    thrice.breaks(&[Invariant::I6]);
    let released = History::new().run(1, 1, 2, EndKind::Released).run(1, 3, 4, EndKind::Retry).run(1, 5, 6, EndKind::Succeeded);
    released.breaks(&[]);
    let uncounted = History::new().run(1, 1, 2, EndKind::Retry).run(1, 3, 4, EndKind::Succeeded);
    uncounted.with(|h| h.chain().runs[1].attempt = 1).breaks(&[Invariant::I6]);
}

#[test]
fn nothing_starts_when_it_must_not() {
    let done = || History::new().run(1, 5, 6, EndKind::Succeeded);
    done().cancelled(4, CancelAnswer::Acknowledged).breaks(&[Invariant::I7]);
    done().with(|h| h.chain().task.spec.run_at = Some(at(6))).breaks(&[Invariant::I7]);
    done().with(|h| h.chain().task.spec.expires_at = Some(at(5))).breaks(&[Invariant::I7]);
    done().with(|h| h.chain().task.spec.deadline = Some(5 * SECOND)).breaks(&[Invariant::I7]);
    done().with(|h| h.chain().task.spec.start_timeout = Some(5 * SECOND)).breaks(&[Invariant::I7]);
    let early = History::new().run(1, 1, 4, EndKind::Retry).run(1, 3, 4, EndKind::Succeeded);
    early.breaks(&[Invariant::I7]);
    let failed = History::new().run(1, 1, 4, EndKind::Failed).cancelled(2, CancelAnswer::Requested);
    failed.breaks(&[Invariant::I7]);
    // The chain is fine, but a handler was entered under a run that the cancel had closed out.
    let late = History::new().run(1, 1, 2, EndKind::Lost).closed(3, EndKind::Cancelled).cancelled(3, CancelAnswer::Acknowledged);
    let late = late.with(|h| h.seen[1] = Observation::Entered { task: task(1), run: run(1), worker: worker(1), at: at(9) });
    late.breaks(&[Invariant::I7]);
}

#[test]
fn without_faults_nothing_is_run_twice() {
    let calm = Expect { calm: true, ..Expect::default() };
    let lost = || History::new().run(1, 1, 5, EndKind::Lost).run(2, 4, 7, EndKind::Succeeded);
    let overlaps = lost().check().figures;
    assert_eq!((overlaps.overlaps, overlaps.overlapped, overlaps.lost), (1, SECOND, 1));
    lost().with(|h| h.chain().runs[0].end.as_mut().unwrap().next_run_at = Some(at(4))).breaks(&[]);
    lost()
        .with(|h| h.chain().runs[0].end.as_mut().unwrap().next_run_at = Some(at(4)))
        .with(|h| h.expect = calm)
        .breaks(&[Invariant::I9]);
}

#[test]
fn a_line_keeps_its_order() {
    let two = |second_entered| {
        History::new().run(1, 5, 6, EndKind::Succeeded).with(|h| {
            h.expect.order = Some(SECOND);
            let mut other = h.chain().clone();
            other.task.spec.id = task(2);
            other.task.created_at = at(3);
            other.runs[0].started_at = at(second_entered);
            h.chains.insert(task(2), other);
            let acknowledged = SubmitAnswer::Acknowledged(task(2));
            h.seen.push(Observation::Submitted { task: task(2), key: None, answer: acknowledged, at: at(3) });
            h.seen.push(Observation::Entered { task: task(2), run: run(1), worker: worker(1), at: at(second_entered) });
            let how = Left::Returned(b"\"1\"".to_vec());
            h.seen.push(Observation::Left { task: task(2), run: run(1), how, at: at(9) });
        })
    };
    two(7).breaks(&[]);
    two(4).breaks(&[Invariant::I10]);
}

#[test]
fn a_drained_worker_leaves_nothing_open() {
    let open = History::new().run(1, 1, 2, EndKind::Retry).with(|h| h.chain().runs[0].end = None);
    assert_eq!(check_drained(worker(1), &open.chains).violations[0].invariant, Invariant::I13);
    assert!(check_drained(worker(2), &open.chains).is_clean());
}
