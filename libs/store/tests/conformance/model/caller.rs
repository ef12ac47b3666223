//! One of many callers: takes random steps on shared tasks and notes what it is told.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use oxcart_store::{
    AgendaRow, AgendaWhy, Cancel, Close, CloseOutcome, DeleteOutcome, End, EndOutcome, Live, NewTask, RunKey, SetAside, Start,
    StartOutcome, Store, SubmitUnit, TakeOver, TakeOverOutcome, TaskRecord, UnitOutcome, UpdateOutcome, View,
};
use oxcart_types::{
    ChainHead, EndKind, Failure, HandoffId, LeaseToken, Limits, Payload, Priority, TaskChanges, TaskId, TaskSpec, Timestamp,
    WorkerId,
};
use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};

use super::{
    history::Recorder,
    oracle::{Answer, Call, Head, Link, Plan, Row, Why},
};
use crate::support::{at, attempts, new_task, run, task};

/// Due later than this goes to the agenda.
const HORIZON: i64 = 130;

/// What all callers share.
pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) ids: Vec<TaskId>,
    /// What tasks are submitted with: a few, so that repeats meet equals and others.
    pub(super) plans: Vec<Plan>,
    pub(super) recorder: Recorder,
    /// How long the chain of each task was when somebody looked last: what a well-informed caller would go by.
    pub(super) runs: Vec<AtomicU32>,
}

/// A run that I started.
#[derive(Debug, Clone, Copy)]
struct Mine {
    task: usize,
    run: u32,
    token: LeaseToken,
    attempt: u32,
}

pub(super) struct Caller {
    pub(super) number: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) random: StdRng,
    mine: Vec<Mine>,
    rows: Vec<(usize, Row)>,
    handoffs: Vec<(usize, u128)>,
}

impl Caller {
    pub(super) fn new(number: usize, shared: Arc<Shared>, random: StdRng) -> Self {
        Self { number, shared, random, mine: Vec::new(), rows: Vec::new(), handoffs: Vec::new() }
    }

    pub(super) async fn step(&mut self) {
        match self.random.random_range(0..100) {
            0..12 => self.submit().await,
            12..42 => self.start().await,
            42..66 => self.end().await,
            66..71 => self.take_over().await,
            71..74 => self.beat().await,
            74..77 => self.close().await,
            77..80 => self.request_cancel().await,
            80..84 => self.update().await,
            84..90 => self.agenda().await,
            90..92 => self.confirm().await,
            92..95 => self.delete().await,
            _ => self.read().await,
        }
    }

    // ------------------------------------------------------------------------------------------------------------- choices

    fn any(&mut self) -> usize {
        self.random.random_range(0..self.shared.ids.len())
    }

    /// Different tasks in any order.
    fn some(&mut self, most: usize) -> Vec<usize> {
        let count = self.random.random_range(1..=most.min(self.shared.ids.len()));
        rand::seq::index::sample(&mut self.random, self.shared.ids.len(), count).into_vec()
    }

    fn now(&mut self) -> i64 {
        self.random.random_range(100..112)
    }

    fn token(&mut self) -> LeaseToken {
        LeaseToken::from_bytes(self.random.random())
    }

    /// The newest run that I know of, or one near it.
    fn near(&mut self, task: usize) -> u32 {
        let known = self.shared.runs[task].load(Ordering::Relaxed);
        let off = [0, 0, 0, 0, 1, 2].choose(&mut self.random).copied().unwrap_or_default();
        if self.random.random_bool(0.5) { known + off } else { known.saturating_sub(off) }.max(1)
    }

    fn learn(&self, task: usize, run: u32) {
        self.shared.runs[task].store(run, Ordering::Relaxed);
    }

    fn id(&self, task: usize) -> TaskId {
        self.shared.ids[task]
    }

    fn note(&self, begun: u64, parts: Vec<(usize, Call, Answer)>) {
        self.shared.recorder.note(self.number, begun, parts);
    }

    fn moment(&self) -> u64 {
        self.shared.recorder.moment()
    }

    // --------------------------------------------------------------------------------------------------------------- steps

    async fn submit(&mut self) {
        let handoff: u128 = self.random.random();
        let mut calls = Vec::new();
        let mut units = Vec::new();
        for task in self.some(4) {
            let plan = self.shared.plans.choose(&mut self.random).expect("a plan").clone();
            let set_aside = self.random.random_bool(0.1).then(|| self.random.random_range(100..112));
            units.push(SubmitUnit { tasks: vec![self.new_task(task, &plan, set_aside)], request: None });
            calls.push((task, Call::Submit { plan, handoff, set_aside }));
            self.handoffs.push((task, handoff));
        }
        let begun = self.moment();
        let outcomes = self.shared.store.submit(units, handoff_id(handoff), at(0)).await.expect("submit");
        let answers = outcomes.into_iter().map(|outcome| match outcome {
            UnitOutcome::Accepted(accepted) => Answer::Accepted { deduplicated: accepted[0].deduplicated },
            UnitOutcome::Refused(_) => Answer::IdTaken,
        });
        self.note(begun, zip(calls, answers));
    }

    fn new_task(&self, number: usize, plan: &Plan, set_aside: Option<i64>) -> NewTask {
        let spec = TaskSpec {
            id: self.id(number),
            payload: Payload::json(plan.payload.to_string(), &Limits::default()).expect("JSON"),
            priority: Priority::try_from(i64::from(plan.priority)).expect("a priority"),
            run_at: plan.run_at.map(at),
            expires_at: plan.expires_at.map(at),
            deadline: plan.deadline.map(|seconds| Duration::from_secs(seconds.unsigned_abs())),
            retry: attempts(plan.max_attempts.into()),
            ..task().spec
        };
        let set_aside = set_aside.map(|seconds| SetAside { at: at(seconds), why: AgendaWhy::Time });
        NewTask { id_chosen: true, set_aside, ..new_task(spec) }
    }

    /// A batch over some tasks, mostly of the run that seems next; some are asked for twice, by me or in the name of another.
    async fn start(&mut self) {
        let now = self.now();
        let mut starts: Vec<(usize, Start)> = Vec::new();
        for task in self.some(5) {
            let number =
                if self.random.random_bool(0.8) { self.shared.runs[task].load(Ordering::Relaxed) + 1 } else { self.near(task) };
            starts.push((task, self.start_of(task, number)));
        }
        if self.random.random_bool(0.2)
            && let Some(Mine { task, run: number, token, .. }) = self.mine.last().copied()
        {
            starts.push((task, Start { token, ..self.start_of(task, number) }));
        }
        if self.random.random_bool(0.2) {
            let (task, start) = starts[0];
            starts.push((task, Start { token: self.token(), ..start }));
        }
        let wanted: Vec<Start> = starts.iter().map(|(_, start)| *start).collect();
        for _ in 0..self.tries() {
            let begun = self.moment();
            let outcomes = self.shared.store.start(&wanted, at(now)).await.expect("start");
            let mut parts = Vec::new();
            for ((task, start), outcome) in starts.iter().zip(outcomes) {
                let call = Call::Start { run: start.run.get(), token: start.token, now };
                let answer = match outcome {
                    StartOutcome::Started { attempt, .. } => {
                        self.learn(*task, start.run.get());
                        self.mine.push(Mine { task: *task, run: start.run.get(), token: start.token, attempt });
                        Answer::Started { attempt }
                    }
                    StartOutcome::Refused(refused) => {
                        self.learn(*task, refused.task.head.latest.map_or(0, |latest| latest.run.get()));
                        Answer::Refused(Box::new(Head {
                            run: refused.task.entry.run.get(),
                            due_at: refused.task.entry.due_at.map(seconds),
                            latest: latest(&refused.task.head),
                            previous: refused.task.head.previous_end,
                            cancelled: refused.task.cancel.is_some(),
                            heartbeat_at: refused.heartbeat_at.map(seconds),
                        }))
                    }
                    StartOutcome::NoTask => {
                        self.learn(*task, 0);
                        Answer::NoTask
                    }
                };
                parts.push((*task, call, answer));
            }
            self.note(begun, parts);
        }
    }

    fn start_of(&mut self, task: usize, number: u32) -> Start {
        Start { task: self.id(task), run: run(number), token: self.token(), worker: WorkerId::from_bytes([7; 16]) }
    }

    fn tries(&mut self) -> usize {
        if self.random.random_bool(0.2) { 2 } else { 1 }
    }

    /// Ends of runs of mine, open or long over; now and then one with a token that is not its own.
    async fn end(&mut self) {
        let now = self.now();
        let mut ends: Vec<(usize, End)> = Vec::new();
        for _ in 0..self.random.random_range(1..4) {
            let recent = self.mine.len().saturating_sub(8);
            let Some(mine) = self.mine[recent..].choose(&mut self.random).copied() else { return };
            // Mostly ends after which the chain goes on, so that chains grow long.
            let kind = match self.random.random_range(0..20) {
                0 => EndKind::Succeeded,
                1 => EndKind::Failed,
                2..10 => EndKind::Retry,
                _ => EndKind::Released,
            };
            let token = if self.random.random_bool(0.1) { self.token() } else { mine.token };
            ends.push((mine.task, self.end_of(mine, token, kind, now)));
        }
        let wanted: Vec<End> = ends.iter().map(|(_, end)| end.clone()).collect();
        for _ in 0..self.tries() {
            let begun = self.moment();
            let outcomes = self.shared.store.end(&wanted, at(now)).await.expect("end");
            let calls = ends.iter().map(|(task, end)| {
                let next_run_at = end.next_run_at.map(seconds);
                let (run, token, kind, attempts_used) = (end.run.get(), end.token, end.kind, end.attempts_used);
                (*task, Call::End { run, token, kind, attempts_used, next_run_at })
            });
            let answers = outcomes.into_iter().map(|outcome| match outcome {
                EndOutcome::Written(kind) => Answer::Written(kind),
                EndOutcome::Fenced(kind) => Answer::Fenced(kind),
                EndOutcome::NotMine => Answer::NotMine,
            });
            self.note(begun, zip(calls.collect(), answers));
        }
    }

    fn end_of(&mut self, mine: Mine, token: LeaseToken, kind: EndKind, now: i64) -> End {
        let failed = matches!(kind, EndKind::Failed | EndKind::Retry);
        End {
            task: self.id(mine.task),
            run: run(mine.run),
            token,
            kind,
            attempts_used: if kind == EndKind::Released { mine.attempt - 1 } else { mine.attempt },
            result: (kind == EndKind::Succeeded).then(|| Payload::json("1".to_owned(), &Limits::default()).expect("JSON")),
            failure: failed.then(|| Failure::new("SMTP", "no route")),
            next_run_at: (!kind.is_terminal()).then(|| at(now + self.random.random_range(0..4))),
        }
    }

    async fn take_over(&mut self) {
        let now = self.now();
        let mut runs = Vec::new();
        for task in self.some(3) {
            let number = self.near(task);
            let silent_since = self.random.random_range(98..116);
            let (by, task_id) = (self.token(), self.id(task));
            runs.push((task, TakeOver { task: task_id, run: run(number), by, silent_since: at(silent_since) }));
        }
        let wanted: Vec<TakeOver> = runs.iter().map(|(_, run)| *run).collect();
        for _ in 0..self.tries() {
            let begun = self.moment();
            let outcomes = self.shared.store.take_over(&wanted, at(now)).await.expect("take over");
            let calls = runs.iter().map(|(task, run)| {
                let silent_since = seconds(run.silent_since);
                (*task, Call::TakeOver { run: run.run.get(), by: run.by, silent_since, now })
            });
            let answers = outcomes.into_iter().map(|outcome| match outcome {
                TakeOverOutcome::Ended(kind) => Answer::TookOver(kind),
                TakeOverOutcome::TooYoung => Answer::TooYoung,
                TakeOverOutcome::Over(kind) => Answer::Over(kind),
                TakeOverOutcome::NoRun => Answer::NoRun,
            });
            self.note(begun, zip(calls.collect(), answers));
        }
    }

    async fn beat(&mut self) {
        let now = self.now();
        let mut beats = Vec::new();
        for task in self.some(3) {
            let number = self.near(task);
            beats.push((task, Live { task: self.id(task), run: run(number), progress: None, checkpoint: None }));
        }
        let live: Vec<Live> = beats.iter().map(|(_, live)| live.clone()).collect();
        let begun = self.moment();
        self.shared.store.set_live(&live, at(now)).await.expect("set live");
        let done = beats.iter().map(|(task, live)| (*task, Call::Beat { run: live.run.get(), now }, Answer::Done));
        self.note(begun, done.collect());
    }

    async fn close(&mut self) {
        let task = self.any();
        let kind = *[EndKind::Cancelled, EndKind::Expired, EndKind::Failed].choose(&mut self.random).expect("a kind");
        let close = Close {
            task: self.id(task),
            run: None,
            kind,
            by: self.token(),
            failure: Failure::new(kind.as_str(), "closed"),
            at: at(100),
        };
        for _ in 0..self.tries() {
            let begun = self.moment();
            let answer = match self.shared.store.close(&close).await.expect("close") {
                CloseOutcome::Closed(run) => Answer::Closed(run.get()),
                CloseOutcome::Running(_) => Answer::Running,
                CloseOutcome::Ended(kind) => Answer::Ended(kind),
                CloseOutcome::NoTask => Answer::NoTask,
                CloseOutcome::Moved(run) => panic!("no run was asked for, and {run} is told"),
            };
            self.note(begun, vec![(task, Call::Close { kind, by: close.by }, answer)]);
        }
    }

    async fn request_cancel(&mut self) {
        let task = self.any();
        let now = self.now();
        let grace = self.random.random_range(1..6);
        let cancel = Cancel { reason: "not needed".to_owned(), requested_at: at(now), grace: Duration::from_secs(grace) };
        let begun = self.moment();
        self.shared.store.request_cancel(self.id(task), &cancel).await.expect("cancel");
        let grace_at = now + i64::try_from(grace).expect("a small number");
        self.note(begun, vec![(task, Call::RequestCancel { grace_at }, Answer::Done)]);
    }

    async fn update(&mut self) {
        let task = self.any();
        let now = self.now();
        let run_at = match self.random.random_range(0..4) {
            0 => Some(None),
            1 => Some(Some(now + 2)),
            2 => Some(Some(HORIZON + 5)),
            _ => None,
        };
        // Only ever more, so that a chain never has more starts than its task allows.
        let max_attempts = self.random.random_bool(0.3).then_some(9);
        let changes = TaskChanges {
            run_at: run_at.map(|run_at| run_at.map(at)),
            retry: max_attempts.map(|most| attempts(most.into())),
            ..TaskChanges::default()
        };
        let (by, handoff): (LeaseToken, u128) = (self.token(), self.random.random());
        let etag = self.random.random_bool(0.1).then_some("of another time");
        for _ in 0..self.tries() {
            let begun = self.moment();
            let store = &self.shared.store;
            let outcome =
                store.update(self.id(task), &changes, etag, by, handoff_id(handoff), at(now), at(HORIZON)).await.expect("update");
            let answer = match outcome {
                UpdateOutcome::Updated { closed, .. } => {
                    assert_eq!(etag, None, "changed what was not as it should be");
                    Answer::Closed(closed.get())
                }
                // An etag that fits nothing: nothing is changed, and nothing is learnt.
                UpdateOutcome::Changed if etag.is_some() => return,
                // A run time after the expiry: nothing is changed either.
                UpdateOutcome::Invalid(_) => return,
                UpdateOutcome::Changed => panic!("changed without an etag"),
                UpdateOutcome::Running => Answer::Running,
                UpdateOutcome::Ended(kind) => Answer::Ended(kind),
                UpdateOutcome::NoTask => Answer::NoTask,
            };
            let call = Call::Update { by, handoff, now, horizon: HORIZON, run_at, max_attempts };
            self.note(begun, vec![(task, call, answer)]);
        }
    }

    async fn agenda(&mut self) {
        match self.random.random_range(0..3) {
            0 => {
                let task = self.any();
                let why = *[Why::Time, Why::Room, Why::Retry, Why::Expiry].choose(&mut self.random).expect("a reason");
                let row = Row { at: self.now(), run: self.near(task), why };
                let begun = self.moment();
                self.shared.store.set_agenda(&[self.row(task, row)]).await.expect("set agenda");
                self.note(begun, vec![(task, Call::SetAgenda(row), Answer::Done)]);
                self.rows.push((task, row));
            }
            1 => {
                let (now, until) = (self.now(), self.random.random_range(104..140));
                let begun = self.moment();
                let visits = self.shared.store.claim_agenda(at(now), at(until), 5).await.expect("claim");
                let rows: Vec<(usize, Row)> = visits.iter().map(|visit| self.read_row(visit.row)).collect();
                let claimed = |(task, row): &(usize, Row)| (*task, Call::Claimed { now, until, row: *row }, Answer::Done);
                self.note(begun, rows.iter().map(claimed).collect());
                self.rows.extend(rows);
            }
            _ => {
                let recent = self.rows.len().saturating_sub(4);
                let mut rows = BTreeMap::new();
                rows.extend(self.rows[recent..].iter().copied());
                let cleared: Vec<AgendaRow> = rows.iter().map(|(task, row)| self.row(*task, *row)).collect();
                let begun = self.moment();
                self.shared.store.clear_agenda(&cleared).await.expect("clear");
                let parts = rows.iter().map(|(task, row)| (*task, Call::ClearAgenda(*row), Answer::Done));
                self.note(begun, parts.collect());
            }
        }
    }

    fn row(&self, task: usize, row: Row) -> AgendaRow {
        let why = match row.why {
            Why::Time => AgendaWhy::Time,
            Why::Room => AgendaWhy::Room,
            Why::Retry => AgendaWhy::Retry,
            Why::Expiry => AgendaWhy::Expiry,
            Why::CancelGrace => AgendaWhy::CancelGrace,
        };
        AgendaRow { task: self.id(task), at: at(row.at), run: run(row.run), why }
    }

    fn read_row(&self, row: AgendaRow) -> (usize, Row) {
        let task = self.shared.ids.iter().position(|id| *id == row.task).expect("a task of this test");
        let why = match row.why {
            AgendaWhy::Time => Why::Time,
            AgendaWhy::Room => Why::Room,
            AgendaWhy::Retry => Why::Retry,
            AgendaWhy::Expiry => Why::Expiry,
            AgendaWhy::CancelGrace => Why::CancelGrace,
            AgendaWhy::Dependency => panic!("nobody wrote this reason"),
        };
        (task, Row { at: seconds(row.at), run: row.run.get(), why })
    }

    /// The dispatcher has a hand-off of mine, or had no room for one of its tasks.
    async fn confirm(&mut self) {
        let Some((task, handoff)) = self.handoffs.choose(&mut self.random).copied() else { return };
        let no_room = self.random.random_bool(0.3).then(|| Row { at: 101, run: self.near(task), why: Why::Room });
        let rows: Vec<AgendaRow> = no_room.iter().map(|row| self.row(task, *row)).collect();
        let begun = self.moment();
        self.shared.store.confirm_handoffs(&[handoff_id(handoff)], &rows).await.expect("confirm");
        let own = |of: &usize| if *of == task { no_room } else { None };
        let with_it = self.handoffs.iter().filter(|(_, other)| *other == handoff).map(|(of, _)| *of);
        self.note(begun, with_it.map(|of| (of, Call::Confirm { handoff, no_room: own(&of) }, Answer::Done)).collect());
    }

    async fn delete(&mut self) {
        let task = self.any();
        let begun = self.moment();
        let answer = match self.shared.store.delete(self.id(task)).await.expect("delete") {
            DeleteOutcome::Deleted => Answer::Done,
            DeleteOutcome::NotFinished => Answer::NotFinished,
            DeleteOutcome::NoTask => Answer::NoTask,
        };
        if matches!(answer, Answer::Done | Answer::NoTask) {
            self.learn(task, 0);
        }
        self.note(begun, vec![(task, Call::Delete, answer)]);
    }

    async fn read(&mut self) {
        match self.random.random_range(0..3) {
            0 => {
                let task = self.any();
                self.get(task).await;
            }
            1 => {
                let tasks = self.some(4);
                let ids: Vec<TaskId> = tasks.iter().map(|task| self.id(*task)).collect();
                let begun = self.moment();
                let found = self.shared.store.cancels(&ids).await.expect("cancels");
                let found = |task: usize| Answer::Flag(found.iter().any(|(id, _)| *id == self.id(task)));
                self.note(begun, tasks.iter().map(|task| (*task, Call::Cancelled, found(*task))).collect());
            }
            _ => {
                let Some(Mine { task, run: number, token, .. }) = self.mine.choose(&mut self.random).copied() else { return };
                let key = RunKey { task: self.id(task), run: run(number), token };
                let begun = self.moment();
                let mine = self.shared.store.still_mine(&[key]).await.expect("still mine")[0];
                // Two reads: what a deletion between them leaves is of no one moment.
                if mine {
                    self.note(begun, vec![(task, Call::StillMine { run: number, token }, Answer::Flag(true))]);
                }
            }
        }
    }

    // ------------------------------------------------------------------------------------------------- when all is quiet

    /// Reads a task as a client would.
    pub(super) async fn get(&self, task: usize) -> Option<TaskRecord> {
        let begun = self.moment();
        let record = self.shared.store.get(&[self.id(task)], View::Basic).await.expect("get").pop().flatten();
        let answer = record.as_ref().map_or(Answer::NoTask, |record| Answer::Record {
            state: record.state,
            latest: latest(&record.head),
            cancelled: record.cancel.is_some(),
        });
        self.note(begun, vec![(task, Call::Get, answer)]);
        record
    }

    /// Reads the whole chain of a task.
    pub(super) async fn chain(&self, task: usize) -> Vec<Link> {
        let begun = self.moment();
        let runs = self.shared.store.runs(self.id(task), None, 10_000).await.expect("runs");
        let links: Option<Vec<Link>> = runs.map(|runs| {
            let end = |end: &oxcart_store::RunEndRecord| (end.kind, end.next_run_at.map(seconds));
            let link = |link: &oxcart_store::RunRecord| Link {
                run: link.run.get(),
                kind: link.kind,
                attempt: link.attempt,
                end: link.end.as_ref().map(end),
            };
            runs.iter().map(link).collect()
        });
        self.note(begun, vec![(task, Call::Chain, Answer::Chain(links.clone()))]);
        links.unwrap_or_default()
    }

    /// Reads all of the agenda, and moves it.
    pub(super) async fn whole_agenda(&self) {
        let begun = self.moment();
        let queue = task().spec.queue;
        let mut rows: Vec<AgendaRow> = Vec::new();
        rows.extend(self.shared.store.best_without_room(&queue, 10_000).await.expect("rows").iter().map(|(row, _)| *row));
        let mut due = self.shared.store.claim_agenda(at(1_000_000), at(1), 0).await.expect("claim");
        assert!(due.is_empty(), "a claim of nothing");
        // Claims move what they find; the time of a row is checked by the claims of the callers.
        due = self.shared.store.claim_agenda(at(1_000_000), at(0), 10_000).await.expect("claim");
        rows.extend(due.iter().map(|visit| visit.row));
        let rows: BTreeMap<usize, Row> = rows.into_iter().map(|row| self.read_row(row)).collect();
        let mut parts = Vec::new();
        for task in 0..self.shared.ids.len() {
            let row = rows.get(&task).copied();
            if let Some(row) = row.filter(|row| row.why != Why::Room) {
                parts.push((task, Call::Claimed { now: 1_000_000, until: 0, row }, Answer::Done));
            } else {
                parts.push((task, Call::Agenda, Answer::Agenda(row)));
            }
        }
        self.note(begun, parts);
    }
}

fn zip(calls: Vec<(usize, Call)>, answers: impl Iterator<Item = Answer>) -> Vec<(usize, Call, Answer)> {
    calls.into_iter().zip(answers).map(|((task, call), answer)| (task, call, answer)).collect()
}

fn handoff_id(number: u128) -> HandoffId {
    HandoffId::from_bytes(number.to_be_bytes())
}

fn seconds(time: Timestamp) -> i64 {
    (time - at(0)).num_seconds()
}

fn latest(head: &ChainHead) -> Option<Link> {
    head.latest.map(|latest| Link {
        run: latest.run.get(),
        kind: latest.kind,
        attempt: latest.attempt,
        end: latest.end.map(|end| (end.kind, end.next_run_at.map(seconds))),
    })
}
