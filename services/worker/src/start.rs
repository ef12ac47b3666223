//! From grants to running handlers, in batches: look at the specifications, write the starts, and act on what SQL refuses.

use std::{collections::HashMap, sync::Arc, time::Duration};

use oxcart_service::telemetry::propagation::TraceContext;
use oxcart_store::model::{Budget, Close, CloseOutcome, RunKey, Start, StartOutcome, TakeOver, TakeOverOutcome, TaskRow};
use oxcart_types::{EndKind, OutOfTime, Payload, Run, TaskId, TaskState};
use tokio::sync::{Semaphore, mpsc};

use crate::{
    attempt::{Attempt, NewAttempt},
    conclude::Conclusion,
    core::{Core, Pauses},
    grant::Grant,
    held::Admission,
    moment::Moment,
    refusal::{Closing, Next, after_refusal, until},
    run,
    session::{Settle, Settlement},
};

/// Times that a grant is followed along its chain before it is given back.
const ROUNDS: usize = 4;
/// Delay of a grant that is given back because something is in motion.
const PAUSE: Duration = Duration::from_secs(1);

/// A grant on its way to a start.
struct Claim {
    grant: Grant,
    /// Run to start: the granted one, or what the chain says.
    run: Run,
    row: TaskRow,
}

impl Claim {
    fn key(&self) -> RunKey {
        RunKey { task: self.grant.task, run: self.run, token: self.grant.token }
    }
}

/// A run that SQL took.
struct Started {
    claim: Claim,
    attempt: u32,
    checkpoint: Option<Payload>,
    budget: Option<Budget>,
}

/// Takes grants as they come: while some batches are on their way, the next collects.
pub(crate) async fn run(core: Arc<Core>, mut grants: mpsc::UnboundedReceiver<Vec<Grant>>) {
    let lanes = Arc::new(Semaphore::new(core.config.lanes));
    let mut waiting = Vec::new();
    loop {
        if waiting.is_empty() {
            let Some(first) = grants.recv().await else { return };
            waiting = first;
        }
        let Ok(lane) = Arc::clone(&lanes).acquire_owned().await else { return };
        while let Ok(more) = grants.try_recv() {
            waiting.extend(more);
        }
        let rest = waiting.split_off(waiting.len().min(core.config.batch));
        let batch = Batch { core: Arc::clone(&core), settles: Vec::new() };
        let taken = std::mem::replace(&mut waiting, rest);
        tokio::spawn(async move {
            batch.run(taken).await;
            drop(lane);
        });
    }
}

/// One batch of grants.
struct Batch {
    core: Arc<Core>,
    settles: Vec<Settle>,
}

impl Batch {
    async fn run(mut self, grants: Vec<Grant>) {
        let grants = self.admit(grants);
        let mut claims = self.look(grants).await;
        for _ in 0..ROUNDS {
            if claims.is_empty() {
                break;
            }
            claims = self.start(claims).await;
        }
        for claim in claims {
            self.give_back(&claim.grant, claim.run, PAUSE, "the task is in motion");
        }
        self.core.session.settle(std::mem::take(&mut self.settles));
        self.core.meters.leases_held.set(i64::try_from(self.core.held.len()).unwrap_or(i64::MAX));
    }

    fn settle(&mut self, grant: &Grant, run: Run, how: Settlement) {
        let key = RunKey { task: grant.task, run, token: grant.token };
        self.core.held.remove([grant.token]);
        self.settles.push(Settle::new(key, grant, 0, how));
    }

    /// Gives back a grant of which no handler knows; `next` is enqueued in its place.
    fn give_back(&mut self, grant: &Grant, next: Run, delay: Duration, reason: &str) {
        self.core.meters.released.inc();
        self.settle(grant, grant.run, Settlement::Released { next, delay, uncounted: true, reason: reason.to_owned() });
    }

    fn admit(&mut self, grants: Vec<Grant>) -> Vec<Grant> {
        let mut admitted = Vec::with_capacity(grants.len());
        for grant in grants {
            match self.core.held.admit(&grant) {
                Admission::Admitted if self.core.gate.is_draining() => {
                    self.give_back(&grant, grant.run, Duration::ZERO, "the worker shuts down");
                }
                Admission::Admitted if !grant.is_fresh() => self.give_back(&grant, grant.run, Duration::ZERO, "the grant is old"),
                Admission::Admitted => admitted.push(grant),
                Admission::Duplicate => {}
                Admission::Full => {
                    // It holds no slot, so there is none to free.
                    self.give_back(&grant, grant.run, PAUSE, "no free slot");
                }
            }
        }
        admitted
    }

    /// Reads the specifications and sorts out what cannot start now.
    async fn look(&mut self, grants: Vec<Grant>) -> Vec<Claim> {
        if grants.is_empty() {
            return Vec::new();
        }
        let ids: Vec<TaskId> = grants.iter().map(|grant| grant.task).collect();
        let mut pauses = Pauses::new();
        let rows = loop {
            match self.core.store.load(&ids).await {
                Ok(rows) => break rows,
                Err(error) => self.core.store_failed("load", &error),
            }
            if !grants.iter().any(Grant::is_fresh) || self.core.gate.is_draining() {
                for grant in &grants {
                    self.give_back(grant, grant.run, PAUSE, "the database fails");
                }
                return Vec::new();
            }
            pauses.wait().await;
        };
        self.core.store_works();
        let mut rows: HashMap<TaskId, TaskRow> = rows.into_iter().map(|row| (row.spec.id, row)).collect();
        let mut claims = Vec::with_capacity(grants.len());
        for mut grant in grants {
            match rows.remove(&grant.task) {
                Some(row) => {
                    grant.fairness_key = row.spec.fairness_key.as_ref().map(ToString::to_string).unwrap_or_default();
                    claims.extend(self.sort_out(Claim { run: grant.run, grant, row }).await);
                }
                None => self.settle(&grant, grant.run, Settlement::Dropped(None)),
            }
        }
        claims
    }

    async fn sort_out(&mut self, claim: Claim) -> Option<Claim> {
        let now = self.core.clock.now();
        let (spec, created_at) = (&claim.row.spec, claim.row.created_at);
        if self.core.handlers.get(spec.name.as_str()).is_none() {
            self.core.meters.unknown_handler.inc();
            let reason = format!("no handler named {}", spec.name);
            self.give_back(&claim.grant, claim.run, self.core.config.unknown_handler_delay, &reason);
            return None;
        }
        // Of a first run the specification tells all that counts; of later ones the start is refused with what their chain says.
        if claim.run != Run::FIRST {
            return Some(claim);
        }
        if let Some(closing) = OutOfTime::of(0, spec.start_by(created_at), None, now) {
            // A run that is open began in time: the refusal of the start says what is to be done about it.
            return if self.close(&claim, Run::FIRST, Closing::OutOfTime(closing)).await { None } else { Some(claim) };
        }
        if let Some(wait) = spec.run_at.map(|at| until(at, now)).filter(|wait| !wait.is_zero()) {
            self.give_back(&claim.grant, claim.run, wait, "not due");
            return None;
        }
        Some(claim)
    }

    /// Writes starts; runs what SQL took, and returns what is to be tried with another run.
    async fn start(&mut self, claims: Vec<Claim>) -> Vec<Claim> {
        let starts: Vec<Start> = claims
            .iter()
            .map(|claim| Start { task: claim.grant.task, run: claim.run, token: claim.grant.token, worker: self.core.worker })
            .collect();
        let sent = Moment::now();
        let mut pauses = Pauses::new();
        // An unknown outcome is answered by repeating the call, however long that takes: a start that SQL took is never
        // walked away from. Whether it is still of use is looked at afterwards.
        let outcomes = loop {
            match self.core.store.start(&starts, self.core.clock.now()).await {
                Ok(outcomes) => break outcomes,
                Err(error) => self.core.store_failed("start", &error),
            }
            if self.core.give_up.is_cancelled() {
                return Vec::new();
            }
            pauses.wait().await;
        };
        self.core.store_works();
        // Half of a claim, 5 s by default: by now somebody else may have been granted the run.
        let late = sent.elapsed() > self.core.settings().claim_ttl / 2;
        let (mut started, mut again, mut silent) = (Vec::new(), Vec::new(), Vec::new());
        for (mut claim, outcome) in claims.into_iter().zip(outcomes) {
            match outcome {
                StartOutcome::Started { attempt, checkpoint, budget } => {
                    started.push(Started { claim, attempt, checkpoint, budget });
                }
                StartOutcome::NoTask => self.settle(&claim.grant, claim.run, Settlement::Dropped(None)),
                StartOutcome::Refused(refused) => {
                    let (now, ttl) = (self.core.clock.now(), self.core.settings().lease_ttl);
                    match after_refusal(&refused, claim.run, claim.grant.is_fresh(), now, ttl) {
                        Next::Drop(state) => self.settle(&claim.grant, claim.run, Settlement::Dropped(Some(state))),
                        Next::GiveBack(delay) => self.give_back(&claim.grant, claim.run, delay, "another run is open"),
                        Next::Enqueue(run, delay) => self.give_back(&claim.grant, run, delay, "not due"),
                        Next::Close(run, closing) => {
                            if !self.close(&claim, run, closing).await {
                                self.give_back(&claim.grant, claim.run, PAUSE, "another run is open");
                            }
                        }
                        Next::TakeOver(run) => {
                            claim.run = run;
                            silent.push(claim);
                        }
                        Next::Start(run) if claim.grant.is_fresh() => {
                            claim.run = run;
                            again.push(claim);
                        }
                        Next::Start(run) => self.give_back(&claim.grant, run, Duration::ZERO, "the grant is old"),
                    }
                }
            }
        }
        self.enter(started, late).await;
        again.extend(self.take_over(silent).await);
        again
    }

    /// Enters the handlers of started runs. `late`: the start took long, so SQL is asked again first.
    async fn enter(&mut self, started: Vec<Started>, late: bool) {
        let mine = if late && !started.is_empty() {
            let keys: Vec<RunKey> = started.iter().map(|started| started.claim.key()).collect();
            let mut pauses = Pauses::new();
            loop {
                match self.core.store.still_mine(&keys).await {
                    Ok(mine) => break mine,
                    Err(error) => self.core.store_failed("still_mine", &error),
                }
                if self.core.give_up.is_cancelled() {
                    return;
                }
                pauses.wait().await;
            }
        } else {
            vec![true; started.len()]
        };
        for (started, mine) in started.into_iter().zip(mine) {
            if mine {
                self.enter_one(started, late);
            } else {
                self.settle(&started.claim.grant, started.claim.run, Settlement::Dropped(None));
            }
        }
    }

    fn enter_one(&self, started: Started, late: bool) {
        let Started { claim, attempt: number, checkpoint, budget } = started;
        let core = &self.core;
        let (key, mut spec) = (claim.key(), claim.row.spec);
        if let Some(attempts) = budget.and_then(|budget| budget.max_attempts) {
            spec.retry = spec.retry.with_max_attempts(attempts);
        }
        let began_at = budget.map_or(claim.row.created_at, |budget| budget.began_at);
        let attempt = Arc::new(Attempt::new(NewAttempt {
            key,
            name: spec.name.clone(),
            number,
            // What was not counted of the runs before was given back.
            releases: (key.run.get() - budget.map_or(0, |budget| budget.after.get())).saturating_sub(number),
            retry: spec.retry.clone(),
            deadline_at: spec.deadline_at(began_at),
            timeout: spec.timeout,
            heartbeat_timeout: spec.heartbeat_timeout,
            started_at: core.clock.now(),
            grant: claim.grant,
        }));
        if key.run == Run::FIRST {
            // The clocks of submission and worker may differ a little: a delay is never negative.
            let could_start = spec.run_at.map_or(claim.row.created_at, |at| at.max(claim.row.created_at));
            let delay = attempt.started_at.signed_duration_since(could_start).to_std().unwrap_or_default();
            core.meters.start_delay_seconds.observe(delay.as_secs_f64());
        }
        core.held.begin(&attempt);
        let too_late = late && !attempt.grant.is_fresh();
        match core.handlers.get(spec.name.as_str()) {
            Some(handler) if !too_late && !core.gate.is_draining() => run::spawn(core, &attempt, handler.clone(), spec, checkpoint),
            _ => {
                let reason = if too_late { "the start took too long" } else { "the worker shuts down" };
                if let Some(submitted) = TraceContext::from_map(&spec.metadata) {
                    attempt.set_trace(submitted);
                }
                let conclusion = Conclusion::Released { delay: Duration::ZERO, reason: reason.to_owned() };
                run::conclude_unentered(core, &attempt, conclusion);
            }
        }
    }

    /// Ends silent runs as lost. The start of the next run is a step of its own.
    async fn take_over(&mut self, silent: Vec<Claim>) -> Vec<Claim> {
        if silent.is_empty() {
            return Vec::new();
        }
        let now = self.core.clock.now();
        let silent_since = now - self.core.settings().lease_ttl;
        let runs: Vec<TakeOver> = silent
            .iter()
            .map(|claim| TakeOver { task: claim.grant.task, run: claim.run, by: claim.grant.token, silent_since })
            .collect();
        let outcomes = match self.core.store.take_over(&runs, now).await {
            Ok(outcomes) => outcomes,
            Err(error) => {
                // Whether the end is written or not, the next holder reads it from the chain.
                self.core.store_failed("take_over", &error);
                for claim in silent {
                    self.give_back(&claim.grant, claim.grant.run, PAUSE, "the database fails");
                }
                return Vec::new();
            }
        };
        let mut again = Vec::new();
        for (mut claim, outcome) in silent.into_iter().zip(outcomes) {
            match outcome {
                TakeOverOutcome::Ended(kind) | TakeOverOutcome::Over(kind) => {
                    if matches!(outcome, TakeOverOutcome::Ended(_)) {
                        self.core.meters.taken_over.inc();
                        tracing::info!(task_id = %claim.grant.task, run = claim.run.get(), %kind, "took over a silent run");
                    }
                    match terminal_state(kind) {
                        Some(state) => self.settle(&claim.grant, claim.run, Settlement::Dropped(Some(state))),
                        None if claim.grant.is_fresh() => {
                            claim.run = claim.run.next();
                            again.push(claim);
                        }
                        None => self.give_back(&claim.grant, claim.run.next(), Duration::ZERO, "the grant is old"),
                    }
                }
                TakeOverOutcome::TooYoung | TakeOverOutcome::NoRun => {
                    self.give_back(&claim.grant, claim.grant.run, PAUSE, "another run is open");
                }
            }
        }
        again
    }

    /// Closes the slot of `run`, the next one, and settles the grant; false when a run is open, and the grant still to be
    /// settled.
    async fn close(&mut self, claim: &Claim, run: Run, closing: Closing) -> bool {
        let close = Close {
            task: claim.grant.task,
            run: Some(run),
            kind: closing.kind(),
            by: claim.grant.token,
            failure: closing.failure(),
            at: self.core.clock.now(),
        };
        match self.core.store.close(&close).await {
            Ok(CloseOutcome::Closed(_)) => {
                self.settle(&claim.grant, claim.run, Settlement::Dropped(terminal_state(closing.kind())));
            }
            Ok(CloseOutcome::Ended(kind)) => self.settle(&claim.grant, claim.run, Settlement::Dropped(terminal_state(kind))),
            Ok(CloseOutcome::NoTask) => self.settle(&claim.grant, claim.run, Settlement::Dropped(None)),
            Ok(CloseOutcome::Running(_)) => return false,
            Ok(CloseOutcome::Moved(run)) => self.give_back(&claim.grant, run, Duration::ZERO, "the task is in motion"),
            Err(error) => {
                self.core.store_failed("close", &error);
                self.give_back(&claim.grant, claim.run, PAUSE, "the database fails");
            }
        }
        true
    }
}

/// The state that an end leaves its task in; `None` when another run follows.
pub(crate) const fn terminal_state(kind: EndKind) -> Option<TaskState> {
    match kind {
        EndKind::Succeeded => Some(TaskState::Succeeded),
        EndKind::Failed => Some(TaskState::Failed),
        EndKind::Cancelled => Some(TaskState::Cancelled),
        EndKind::Expired => Some(TaskState::Expired),
        EndKind::Retry | EndKind::Released | EndKind::Lost => None,
    }
}
