//! One task in plain Rust: sets of slots that are written once, and what each call does to them when nothing else happens.
//!
//! Nothing here knows of SQL, batches or races. Times are seconds after the beginning of the test.

use oxcart_types::{EndKind, LeaseToken, TaskState, chain::StartKind};

/// How long after a retry is due the agenda looks at it again.
const RETRY_GRACE: i64 = 30;

/// What a task is submitted with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Plan {
    pub(super) payload: u8,
    pub(super) priority: u8,
    pub(super) run_at: Option<i64>,
    pub(super) expires_at: Option<i64>,
    pub(super) deadline: Option<i64>,
    pub(super) max_attempts: u32,
}

/// Why a row of the agenda is there, as far as it makes a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Why {
    Time,
    Room,
    Retry,
    Expiry,
    CancelGrace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Row {
    pub(super) at: i64,
    pub(super) run: u32,
    pub(super) why: Why,
}

/// A call on one task; a batch is one of these per item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Call {
    Submit {
        plan: Plan,
        handoff: u128,
        set_aside: Option<i64>,
    },
    Start {
        run: u32,
        token: LeaseToken,
        now: i64,
    },
    End {
        run: u32,
        token: LeaseToken,
        kind: EndKind,
        attempts_used: u32,
        next_run_at: Option<i64>,
    },
    TakeOver {
        run: u32,
        by: LeaseToken,
        silent_since: i64,
        now: i64,
    },
    Beat {
        run: u32,
        now: i64,
    },
    Close {
        kind: EndKind,
        by: LeaseToken,
    },
    RequestCancel {
        grace_at: i64,
    },
    Update {
        by: LeaseToken,
        handoff: u128,
        now: i64,
        horizon: i64,
        run_at: Option<Option<i64>>,
        max_attempts: Option<u32>,
    },
    SetAgenda(Row),
    ClearAgenda(Row),
    /// This row came back from a claim.
    Claimed {
        now: i64,
        until: i64,
        row: Row,
    },
    Confirm {
        handoff: u128,
        no_room: Option<Row>,
    },
    Delete,
    Cancelled,
    StillMine {
        run: u32,
        token: LeaseToken,
    },
    Get,
    Chain,
    Agenda,
}

/// What the caller is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Done,
    NoTask,
    Accepted { deduplicated: bool },
    IdTaken,
    Started { attempt: u32 },
    Refused(Box<Head>),
    Written(EndKind),
    Fenced(EndKind),
    NotMine,
    TookOver(EndKind),
    TooYoung,
    Over(EndKind),
    NoRun,
    Closed(u32),
    Running,
    Ended(EndKind),
    NotFinished,
    Flag(bool),
    Record { state: TaskState, latest: Option<Link>, cancelled: bool },
    Chain(Option<Vec<Link>>),
    Agenda(Option<Row>),
}

impl Answer {
    /// Nothing of the task is different after the call, whenever it took effect.
    pub(super) fn changed_nothing(&self) -> bool {
        match self {
            Self::NoTask
            | Self::Accepted { deduplicated: true }
            | Self::IdTaken
            | Self::Refused(_)
            | Self::Fenced(_)
            | Self::NotMine
            | Self::TooYoung
            | Self::Over(_)
            | Self::NoRun
            | Self::Running
            | Self::Ended(_)
            | Self::NotFinished
            | Self::Flag(_)
            | Self::Record { .. }
            | Self::Chain(_)
            | Self::Agenda(_) => true,
            Self::Done
            | Self::Accepted { deduplicated: false }
            | Self::Started { .. }
            | Self::Written(_)
            | Self::TookOver(_)
            | Self::Closed(_) => false,
        }
    }
}

/// A run as its slots tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) run: u32,
    pub(super) kind: StartKind,
    pub(super) attempt: u32,
    pub(super) end: Option<(EndKind, Option<i64>)>,
}

/// What a refused start is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) run: u32,
    pub(super) due_at: Option<i64>,
    pub(super) latest: Option<Link>,
    pub(super) previous: Option<EndKind>,
    pub(super) cancelled: bool,
    pub(super) heartbeat_at: Option<i64>,
}

/// What a call may have seen a moment before it writes, and writes by. What it relies on beyond that can no longer change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Seen {
    Start { attempt: Option<u32> },
    End { mine: bool, cancelled: bool },
    TakeOver { known: bool, attempt: Option<u32>, used_up: bool, cancelled: bool },
    RequestCancel { run: Option<u32> },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Start {
    kind: StartKind,
    token: LeaseToken,
    attempt: u32,
    at: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct End {
    kind: EndKind,
    by: LeaseToken,
    attempts_used: u32,
    next_run_at: Option<i64>,
}

/// A task as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Task {
    submitted: Option<Plan>,
    run_at: Option<i64>,
    max_attempts: u32,
    handoff: Option<u128>,
    /// Run n at n − 1.
    starts: Vec<Start>,
    /// Run n at n − 1; shorter by one while a run is open.
    ends: Vec<End>,
    cancelled: bool,
    live: Option<(u32, i64)>,
    agenda: Option<Row>,
}

impl Task {
    /// The look that a call takes before it writes; `None` when it decides in one step.
    pub(super) fn look(&self, call: &Call) -> Option<Seen> {
        Some(match call {
            Call::Start { run, now, .. } => Seen::Start { attempt: self.may_start(*run, *now) },
            Call::End { run, token, .. } => Seen::End { mine: self.owns(*run, *token), cancelled: self.cancelled },
            Call::TakeOver { run, silent_since, .. } => {
                let start = self.start(*run);
                let beat = self.live.filter(|(of, _)| of == run).map(|(_, at)| at);
                let silent = |start: &&Start| start.at < *silent_since && beat.is_none_or(|at| at < *silent_since);
                let dead = start.filter(|start| start.kind == StartKind::Worker).filter(silent);
                Seen::TakeOver {
                    known: start.is_some(),
                    attempt: dead.map(|start| start.attempt),
                    used_up: dead.is_some_and(|start| start.attempt >= self.max_attempts),
                    cancelled: self.cancelled,
                }
            }
            Call::RequestCancel { .. } => {
                let open = self.submitted.is_some() && self.terminal().is_none();
                Seen::RequestCancel { run: open.then(|| self.next_or_open()) }
            }
            _ => return None,
        })
    }

    /// Carries a call out. `None` when it cannot have been carried out at this moment.
    pub(super) fn act(&mut self, call: &Call, seen: Option<Seen>) -> Option<Answer> {
        Some(match (call, seen) {
            (Call::Submit { plan, handoff, set_aside }, None) => self.submit(plan, *handoff, *set_aside),
            (Call::Start { run, token, now }, Some(Seen::Start { attempt })) => {
                if let Some(attempt) = attempt.filter(|_| self.start(*run).is_none()) {
                    if self.next_run() != Some(*run) {
                        return None;
                    }
                    self.starts.push(Start { kind: StartKind::Worker, token: *token, attempt, at: *now });
                }
                match self.start(*run).filter(|_| self.owns(*run, *token)) {
                    Some(mine) => Answer::Started { attempt: mine.attempt },
                    None if self.submitted.is_none() => Answer::NoTask,
                    None => Answer::Refused(Box::new(self.head())),
                }
            }
            (Call::End { run, token, kind, attempts_used, next_run_at }, Some(Seen::End { mine, cancelled })) => {
                if !mine {
                    return Some(Answer::NotMine);
                }
                let yields = matches!(kind, EndKind::Failed | EndKind::Retry | EndKind::Released | EndKind::Lost);
                let kind = if yields && cancelled { EndKind::Cancelled } else { *kind };
                let end = End { kind, by: *token, attempts_used: *attempts_used, next_run_at: *next_run_at };
                let stands = self.write_end(*run, end)?;
                if stands.by != *token {
                    return Some(Answer::Fenced(stands.kind));
                }
                if let (EndKind::Retry, Some(due)) = (stands.kind, next_run_at) {
                    self.arm(Row { at: due + RETRY_GRACE, run: run + 1, why: Why::Retry });
                }
                Answer::Written(stands.kind)
            }
            (Call::TakeOver { run, by, now, .. }, Some(Seen::TakeOver { known, attempt, used_up, cancelled })) => {
                if !known {
                    return Some(Answer::NoRun);
                }
                if let Some(attempts_used) = attempt {
                    let kind = match (cancelled, used_up) {
                        (true, _) => EndKind::Cancelled,
                        (false, true) => EndKind::Failed,
                        (false, false) => EndKind::Lost,
                    };
                    self.write_end(*run, End { kind, by: *by, attempts_used, next_run_at: Some(*now) })?;
                }
                match self.end(*run) {
                    Some(end) if end.by == *by => Answer::TookOver(end.kind),
                    Some(end) => Answer::Over(end.kind),
                    None => Answer::TooYoung,
                }
            }
            (Call::Beat { run, now }, None) => {
                if self.live.is_none_or(|(of, _)| of <= *run) {
                    self.live = Some((*run, *now));
                }
                Answer::Done
            }
            (Call::Close { kind, by }, None) => self.close(*kind, *by),
            (Call::RequestCancel { grace_at }, Some(Seen::RequestCancel { run })) => {
                if let Some(run) = run {
                    self.cancelled = true;
                    self.arm(Row { at: *grace_at, run, why: Why::CancelGrace });
                }
                Answer::Done
            }
            (Call::Update { .. }, None) => self.update(call)?,
            (Call::SetAgenda(row), None) => {
                self.arm(*row);
                Answer::Done
            }
            (Call::ClearAgenda(row), None) => {
                if self.agenda == Some(*row) {
                    self.agenda = None;
                }
                Answer::Done
            }
            (Call::Claimed { now, until, row }, None) => {
                let found = self.agenda.filter(|found| found.why != Why::Room && found.at <= *now)?;
                self.agenda = Some(Row { at: *until, ..found });
                if self.agenda != Some(*row) {
                    return None;
                }
                Answer::Done
            }
            (Call::Confirm { handoff, no_room }, None) => {
                no_room.iter().for_each(|row| self.arm(*row));
                if self.handoff == Some(*handoff) {
                    self.handoff = None;
                }
                Answer::Done
            }
            (Call::Delete, None) => match (&self.submitted, self.terminal()) {
                (None, _) => Answer::NoTask,
                (Some(_), None) => Answer::NotFinished,
                (Some(_), Some(_)) => {
                    *self = Self::default();
                    Answer::Done
                }
            },
            (Call::Cancelled, None) => Answer::Flag(self.cancelled),
            (Call::StillMine { run, token }, None) => Answer::Flag(self.owns(*run, *token) && self.end(*run).is_none()),
            (Call::Get, None) if self.submitted.is_none() => Answer::NoTask,
            (Call::Get, None) => Answer::Record { state: self.state(), latest: self.latest(), cancelled: self.cancelled },
            (Call::Chain, None) => {
                let links = (1..).zip(&self.starts).filter_map(|(run, _)| self.link(run));
                Answer::Chain(self.submitted.as_ref().map(|_| links.collect()))
            }
            (Call::Agenda, None) => Answer::Agenda(self.agenda),
            _ => return None,
        })
    }

    fn submit(&mut self, plan: &Plan, handoff: u128, set_aside: Option<i64>) -> Answer {
        if let Some(submitted) = &self.submitted {
            return if submitted == plan { Answer::Accepted { deduplicated: true } } else { Answer::IdTaken };
        }
        self.submitted = Some(plan.clone());
        self.run_at = plan.run_at;
        self.max_attempts = plan.max_attempts;
        self.handoff = set_aside.is_none().then_some(handoff);
        let row = |at, why| Row { at, run: 1, why };
        self.agenda = set_aside.map(|at| row(at, Why::Time)).or_else(|| self.start_by().map(|at| row(at, Why::Expiry)));
        Answer::Accepted { deduplicated: false }
    }

    fn close(&mut self, kind: EndKind, by: LeaseToken) -> Answer {
        if self.submitted.is_none() {
            return Answer::NoTask;
        }
        if let Some(ended) = self.terminal() {
            return if self.closed_by(by) { Answer::Closed(self.runs()) } else { Answer::Ended(ended) };
        }
        let Some(run) = self.next_run() else { return Answer::Running };
        self.take_slot(kind, by, None);
        self.agenda = None;
        Answer::Closed(run)
    }

    fn update(&mut self, call: &Call) -> Option<Answer> {
        let Call::Update { by, handoff, now, horizon, run_at, max_attempts } = call else { return None };
        if self.submitted.is_none() {
            return Some(Answer::NoTask);
        }
        // A repeat is not another update, however far the task has come since.
        let before = (1..).zip(&self.starts).find(|(_, start)| start.kind == StartKind::Closer && start.token == *by);
        if let Some((run, _)) = before {
            return Some(Answer::Closed(run));
        }
        if let Some(ended) = self.terminal() {
            return Some(Answer::Ended(ended));
        }
        let Some(run) = self.next_run() else { return Some(Answer::Running) };
        let due_at = run_at.unwrap_or_else(|| self.due_at());
        let never_counted = self.attempts_used() == 0;
        self.take_slot(EndKind::Released, *by, due_at);
        self.run_at = run_at.unwrap_or(self.run_at);
        self.max_attempts = max_attempts.unwrap_or(self.max_attempts);
        let far = due_at.filter(|at| at > horizon);
        self.handoff = far.is_none().then_some(*handoff);
        match (far, self.start_by()) {
            (Some(due), _) => self.arm(Row { at: due - (horizon - now), run: run + 1, why: Why::Time }),
            (None, Some(at)) if never_counted => self.arm(Row { at, run: run + 1, why: Why::Expiry }),
            (None, _) => self.agenda = None,
        }
        Some(Answer::Closed(run))
    }

    /// The attempt that this run would be, if it may start.
    fn may_start(&self, run: u32, now: i64) -> Option<u32> {
        let submitted = self.submitted.as_ref()?;
        let used = self.attempts_used();
        let last_moment = if used == 0 { self.start_by() } else { submitted.deadline };
        let due = if run == 1 { self.run_at } else { self.due_at() };
        let in_time = due.is_none_or(|at| at <= now) && last_moment.is_none_or(|at| now < at);
        // Slot 1 is decided by its key alone.
        let next = self.next_run() == Some(run) || run == 1;
        (next && in_time && !self.cancelled && (used < self.max_attempts || run == 1)).then_some(if run == 1 {
            1
        } else {
            used + 1
        })
    }

    fn take_slot(&mut self, kind: EndKind, by: LeaseToken, next_run_at: Option<i64>) {
        let attempts_used = self.attempts_used();
        self.starts.push(Start { kind: StartKind::Closer, token: by, attempt: attempts_used, at: 0 });
        self.ends.push(End { kind, by, attempts_used, next_run_at });
    }

    /// Writes an end unless there is one; the one that stands.
    fn write_end(&mut self, run: u32, end: End) -> Option<End> {
        if self.end(run).is_none() {
            if self.starts.len() != run as usize {
                return None;
            }
            // Nothing is due after the last run.
            self.ends.push(End { next_run_at: end.next_run_at.filter(|_| !end.kind.is_terminal()), ..end });
        }
        self.end(run).cloned()
    }

    /// Writes a row of the agenda, which never lowers the run of one that is there.
    fn arm(&mut self, row: Row) {
        if self.submitted.is_some() && self.agenda.is_none_or(|there| there.run <= row.run) {
            self.agenda = Some(row);
        }
    }

    fn start(&self, run: u32) -> Option<&Start> {
        self.starts.get(run as usize - 1)
    }

    fn end(&self, run: u32) -> Option<&End> {
        self.ends.get(run as usize - 1)
    }

    fn owns(&self, run: u32, token: LeaseToken) -> bool {
        self.start(run).is_some_and(|start| start.kind == StartKind::Worker && start.token == token)
    }

    fn closed_by(&self, token: LeaseToken) -> bool {
        self.starts.last().is_some_and(|start| start.kind == StartKind::Closer && start.token == token)
    }

    fn runs(&self) -> u32 {
        u32::try_from(self.starts.len()).expect("a small chain")
    }

    fn is_open(&self) -> bool {
        self.starts.len() > self.ends.len()
    }

    fn latest_end(&self) -> Option<&End> {
        if self.is_open() { None } else { self.ends.last() }
    }

    fn terminal(&self) -> Option<EndKind> {
        self.latest_end().map(|end| end.kind).filter(|kind| kind.is_terminal())
    }

    fn next_run(&self) -> Option<u32> {
        (!self.is_open() && self.terminal().is_none()).then(|| self.runs() + 1)
    }

    fn next_or_open(&self) -> u32 {
        self.next_run().unwrap_or_else(|| self.runs())
    }

    fn attempts_used(&self) -> u32 {
        let open = self.starts.last().map_or(0, |start| start.attempt);
        self.latest_end().map_or(open, |end| end.attempts_used)
    }

    fn due_at(&self) -> Option<i64> {
        self.latest_end().map_or(self.run_at, |end| end.next_run_at)
    }

    fn start_by(&self) -> Option<i64> {
        let submitted = self.submitted.as_ref()?;
        [submitted.expires_at, submitted.deadline].into_iter().flatten().min()
    }

    fn link(&self, run: u32) -> Option<Link> {
        let start = self.start(run)?;
        let end = self.end(run).map(|end| (end.kind, end.next_run_at));
        Some(Link { run, kind: start.kind, attempt: start.attempt, end })
    }

    fn latest(&self) -> Option<Link> {
        self.runs().checked_sub(1).and_then(|before| self.link(before + 1))
    }

    fn head(&self) -> Head {
        Head {
            run: self.next_or_open(),
            due_at: self.due_at(),
            latest: self.latest(),
            previous: self
                .runs()
                .checked_sub(1)
                .filter(|before| *before > 0)
                .and_then(|before| self.end(before))
                .map(|end| end.kind),
            cancelled: self.cancelled,
            heartbeat_at: self.live.filter(|(run, _)| *run == self.runs()).map(|(_, at)| at),
        }
    }

    fn state(&self) -> TaskState {
        let latest = self.starts.last();
        if self.is_open() {
            return TaskState::Running;
        }
        match self.latest_end().map(|end| end.kind) {
            Some(EndKind::Succeeded) => TaskState::Succeeded,
            Some(EndKind::Failed) => TaskState::Failed,
            Some(EndKind::Cancelled) => TaskState::Cancelled,
            Some(EndKind::Expired) => TaskState::Expired,
            Some(EndKind::Retry) => TaskState::Retrying,
            Some(EndKind::Released | EndKind::Lost) | None => {
                let next = self.runs() + 1;
                let kept = self.agenda.is_some_and(|row| row.run >= next && matches!(row.why, Why::Time | Why::Room));
                let never_ran = latest.is_none_or(|start| start.kind == StartKind::Closer);
                if kept || (never_ran && self.handoff.is_some()) { TaskState::Pending } else { TaskState::Queued }
            }
        }
    }
}
