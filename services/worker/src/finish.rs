//! From concluded runs to settled leases, in batches: ask for verdicts, write the ends, then settle.

use std::{sync::Arc, time::Duration};

use oxcart_proto::{
    convert::{scalar, value},
    pb::dispatcher::v1::{self as pb, verdict::Decision},
};
use oxcart_sdk::{HandlerEntry, TaskContext, TaskError};
use oxcart_service::{status::chain, telemetry::names};
use oxcart_store::{
    StoreError,
    model::{End, EndOutcome, Live},
};
use oxcart_types::{EndKind, Failure, FailureKind, Limits, Payload, Timestamp};
use tokio::sync::{Semaphore, mpsc};
use tracing::Span;

use crate::{
    attempt::Attempt,
    conclude::Conclusion,
    core::{Core, Pauses},
    refusal::until,
    run::{Concluded, outcome_span},
    session::{Settle, Settlement, chunks, lease_key, without_detail},
    start::terminal_state,
    watch,
};

/// Bytes of results in one statement at most.
const STATEMENT_BYTES: usize = 4 * 1024 * 1024;
/// The end of a run of which another end stands, as traces tell it.
const FENCED: &str = "FENCED";

/// A run that is to be ended.
struct Ending {
    attempt: Arc<Attempt>,
    kind: EndKind,
    result: Option<Payload>,
    failure: Option<Failure>,
    /// Time until the next run is due, with RETRY and RELEASED.
    delay: Duration,
    reason: String,
    hook: Option<Hook>,
}

/// What tells the handler what becomes of its failure.
struct Hook {
    handler: HandlerEntry,
    ctx: TaskContext,
    error: TaskError,
}

/// Takes conclusions as they come: while some batches are on their way, the next collects.
pub(crate) async fn run(core: Arc<Core>, mut concluded: mpsc::UnboundedReceiver<Concluded>) {
    let lanes = Arc::new(Semaphore::new(core.config.lanes));
    let mut first = Vec::new();
    loop {
        if concluded.recv_many(&mut first, 1).await == 0 {
            return;
        }
        let Ok(lane) = Arc::clone(&lanes).acquire_owned().await else { return };
        while first.len() < core.config.batch {
            let Ok(more) = concluded.try_recv() else { break };
            first.push(more);
        }
        let (core, batch) = (Arc::clone(&core), std::mem::take(&mut first));
        tokio::spawn(async move {
            finish(&core, batch).await;
            drop(lane);
        });
    }
}

async fn finish(core: &Arc<Core>, batch: Vec<Concluded>) {
    let (mut endings, mut failures) = (Vec::with_capacity(batch.len()), Vec::new());
    for Concluded { attempt, conclusion, told } in batch {
        let ending = |kind, attempt| Ending {
            attempt,
            kind,
            result: None,
            failure: None,
            delay: Duration::ZERO,
            reason: String::new(),
            hook: None,
        };
        match conclusion {
            Conclusion::Succeeded(result) => endings.push(Ending { result: Some(result), ..ending(EndKind::Succeeded, attempt) }),
            Conclusion::Released { delay, reason } => endings.push(Ending { delay, reason, ..ending(EndKind::Released, attempt) }),
            Conclusion::Cancelled(error) => {
                endings.push(Ending { failure: Some(error.into_failure()), ..ending(EndKind::Cancelled, attempt) });
            }
            Conclusion::Failed(error) => failures.push((attempt, error, told)),
            Conclusion::Abandoned => {
                core.meters.fenced.inc();
                core.held.remove([attempt.key.token]);
            }
        }
    }
    if !failures.is_empty() {
        // Verdicts need a dispatcher; what succeeded does not wait for one.
        let core = Arc::clone(core);
        tokio::spawn(async move {
            let judged = judge(&core, failures).await;
            end(&core, judged).await;
        });
    }
    end(core, endings).await;
}

type Failed = (Arc<Attempt>, TaskError, Option<(HandlerEntry, TaskContext)>);

/// Asks the dispatcher what follows each failure. When the worker leaves and there is no dispatcher, the runs are given back:
/// whoever runs them next will ask.
async fn judge(core: &Arc<Core>, failures: Vec<Failed>) -> Vec<Ending> {
    let now = core.clock.now();
    let questions = failures.iter().map(|(attempt, error, _)| pb::Failure {
        lease: Some(lease_key(&attempt.key)),
        queue: attempt.grant.queue.to_string(),
        attempt: scalar::to_count(attempt.number),
        retry_policy: Some(value::to_retry_policy(&attempt.retry)),
        error: Some(without_detail(error.clone().into_failure())),
        deadline_remaining: attempt.deadline_at.map(|at| scalar::to_duration(until(at, now))),
    });
    let mut verdicts = Vec::with_capacity(failures.len());
    for chunk in chunks(questions.collect()) {
        let count = chunk.len();
        let answer = tokio::select! {
            answer = core.session.judge(chunk) => answer,
            () = core.hurry.cancelled() => None,
        };
        let mut answer: Vec<Option<Decision>> = answer.unwrap_or_default().into_iter().map(|verdict| verdict.decision).collect();
        // A verdict that is missing is no verdict.
        answer.resize(count, None);
        verdicts.extend(answer);
    }
    failures.into_iter().zip(verdicts).map(|((attempt, error, told), decision)| judged(attempt, error, told, decision)).collect()
}

fn judged(
    attempt: Arc<Attempt>,
    error: TaskError,
    told: Option<(HandlerEntry, TaskContext)>,
    decision: Option<Decision>,
) -> Ending {
    let (kind, delay, reason) = match decision {
        Some(Decision::RetryIn(backoff)) => (EndKind::Retry, scalar::duration_or_zero(Some(backoff)), ""),
        Some(Decision::Fail(_)) => (EndKind::Failed, Duration::ZERO, ""),
        None => (EndKind::Released, Duration::ZERO, "no verdict"),
    };
    let mut failure = error.clone().into_failure();
    if let Some(Decision::Fail(cause)) = decision {
        // The failure stays what people read; that time ran out is told beside it.
        if cause == i32::from(pb::FailCause::Deadline) && failure.kind.as_str() != FailureKind::DEADLINE {
            failure = Failure::new(FailureKind::DEADLINE, format!("no time left for another attempt after {error}"));
        }
    }
    let hook = told.filter(|_| kind != EndKind::Released).map(|(handler, ctx)| Hook { handler, ctx, error });
    let failure = (kind != EndKind::Released).then_some(failure);
    Ending { attempt, kind, result: None, failure, delay, reason: reason.to_owned(), hook }
}

/// Writes ends and settles the leases. While the database fails the ends are kept, and the leases with them.
async fn end(core: &Arc<Core>, endings: Vec<Ending>) {
    for endings in by_size(endings) {
        let spans: Vec<Span> = endings.iter().map(|ending| outcome_span(&ending.attempt)).collect();
        flush(core, &endings).await;
        match write(core, &endings).await {
            Written::All(written) => settle_all(core, endings, written, &spans),
            Written::None => core.held.remove(endings.iter().map(|ending| ending.attempt.key.token)),
            // One of them is at fault, and the others must not wait for it.
            Written::Refused(error) => {
                tracing::warn!(error = chain(&error), runs = endings.len(), "ends were refused; writing them one by one");
                for (ending, span) in endings.into_iter().zip(spans) {
                    end_alone(core, ending, span).await;
                }
            }
        }
    }
}

/// Writes the end of one run. What the database refuses is ended as failed instead, so that nothing waits for it for ever.
async fn end_alone(core: &Arc<Core>, ending: Ending, span: Span) {
    let mut ending = vec![ending];
    let mut written = write(core, &ending).await;
    if let Written::Refused(error) = &written {
        let failure = Failure::new(FailureKind::ERROR, format!("the end of the run could not be stored: {}", chain(error))).fatal();
        tracing::error!(task_id = %ending[0].attempt.key.task, error = chain(error), "the end of a run was refused; it fails");
        for ending in &mut ending {
            (ending.kind, ending.result, ending.failure) = (EndKind::Failed, None, Some(failure.clone()));
        }
        written = write(core, &ending).await;
    }
    match written {
        Written::All(written) => settle_all(core, ending, written, &[span]),
        // The run stays open in SQL; its lease runs out and another worker takes it over.
        Written::None | Written::Refused(_) => core.held.remove(ending.iter().map(|ending| ending.attempt.key.token)),
    }
}

/// What became of an attempt to write ends.
enum Written {
    /// They are there: outcomes, and when the next runs are due.
    All(Vec<(EndOutcome, Option<Timestamp>)>),
    /// The worker gave up. The runs stay open in SQL; their leases run out and another worker takes them over.
    None,
    /// The database will never take them.
    Refused(StoreError),
}

/// Writes ends, for as long as the database is away.
async fn write(core: &Core, endings: &[Ending]) -> Written {
    let mut pauses = Pauses::new();
    loop {
        let now = core.clock.now();
        let (ends, due): (Vec<_>, Vec<_>) = endings.iter().map(|ending| ending.to_end(now)).unzip();
        match core.store.end(&ends, now).await {
            Ok(outcomes) => {
                core.store_works();
                return Written::All(outcomes.into_iter().zip(due).collect());
            }
            Err(error) if error.is_permanent() => return Written::Refused(error),
            Err(error) => core.store_failed("end", &error),
        }
        if core.give_up.is_cancelled() {
            return Written::None;
        }
        pauses.wait().await;
    }
}

fn settle_all(core: &Arc<Core>, endings: Vec<Ending>, written: Vec<(EndOutcome, Option<Timestamp>)>, spans: &[Span]) {
    for ((ending, (outcome, _)), span) in endings.iter().zip(&written).zip(spans) {
        describe(span, ending, outcome);
    }
    let tokens: Vec<_> = endings.iter().map(|ending| ending.attempt.key.token).collect();
    let small = core.settings().max_result_bytes;
    let now = core.clock.now();
    let settles = endings.into_iter().zip(written).map(|(ending, (outcome, due))| {
        let delay = due.map_or(Duration::ZERO, |due| until(due, now));
        settle(core, ending, outcome, delay, small)
    });
    core.session.settle(settles.collect());
    core.held.remove(tokens);
    core.meters.leases_held.set(i64::try_from(core.held.len()).unwrap_or(i64::MAX));
}

impl Ending {
    fn to_end(&self, now: Timestamp) -> (End, Option<Timestamp>) {
        let follows = matches!(self.kind, EndKind::Retry | EndKind::Released);
        // A delay of any length comes from outside: handlers and verdicts.
        let next_run_at = follows.then(|| oxcart_types::clock::to_micros(now + self.delay.min(Limits::BACKOFF)));
        let given_back = u32::from(self.kind == EndKind::Released);
        let end = End {
            task: self.attempt.key.task,
            run: self.attempt.key.run,
            token: self.attempt.key.token,
            kind: self.kind,
            attempts_used: self.attempt.number.saturating_sub(given_back),
            result: self.result.clone(),
            failure: self.failure.clone(),
            next_run_at,
        };
        (end, next_run_at)
    }

    fn result_bytes(&self) -> usize {
        self.result.as_ref().map_or(0, |result| result.as_bytes().len())
    }
}

/// Says in the trace how a run ended.
fn describe(span: &Span, ending: &Ending, outcome: &EndOutcome) {
    match outcome {
        EndOutcome::Written(kind) => span.record(names::END, kind.as_str()),
        EndOutcome::Fenced(_) | EndOutcome::NotMine => span.record(names::END, FENCED),
    };
    if let Some(failure) = &ending.failure {
        span.record(names::ERROR_KIND, failure.kind.as_str());
    }
}

/// What is left to do once the end stands, whoever wrote it.
fn settle(core: &Arc<Core>, ending: Ending, outcome: EndOutcome, delay: Duration, small: usize) -> Settle {
    let Ending { attempt, result, failure, reason, hook, .. } = ending;
    let next = attempt.key.run.next();
    let failure = || failure.unwrap_or_else(|| Failure::new(FailureKind::ERROR, ""));
    let how = match outcome {
        EndOutcome::Written(EndKind::Succeeded) => {
            core.meters.succeeded.inc();
            core.count_success();
            Settlement::Done(result.filter(|result| result.as_bytes().len() <= small))
        }
        EndOutcome::Written(EndKind::Failed) => {
            core.meters.failed.inc();
            core.count_failure();
            tell(core, hook, None);
            Settlement::Failed(failure(), None)
        }
        EndOutcome::Written(EndKind::Retry) => {
            core.meters.failed.inc();
            tell(core, hook, Some(delay));
            Settlement::Failed(failure(), Some((next, delay)))
        }
        EndOutcome::Written(EndKind::Released) => {
            core.meters.released.inc();
            if core.gate.is_draining() {
                core.released_by_drain.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            Settlement::Released { next, delay, uncounted: false, reason }
        }
        EndOutcome::Written(EndKind::Cancelled) => Settlement::Cancelled,
        EndOutcome::Written(kind @ (EndKind::Expired | EndKind::Lost)) => Settlement::Dropped(terminal_state(kind)),
        EndOutcome::Fenced(kind) => {
            core.meters.fenced.inc();
            tracing::info!(task_id = %attempt.key.task, run = attempt.key.run.get(), %kind, "another end stands; this run is dropped");
            Settlement::Dropped(terminal_state(kind))
        }
        EndOutcome::NotMine => {
            core.meters.fenced.inc();
            tracing::warn!(task_id = %attempt.key.task, run = attempt.key.run.get(), "the run is not this worker's; it is dropped");
            Settlement::Dropped(None)
        }
    };
    Settle::new(attempt.key, &attempt.grant, attempt.number, how)
}

/// Hooks run with the handlers: they are the user's code, too.
fn tell(core: &Core, hook: Option<Hook>, backoff: Option<Duration>) {
    if let Some(Hook { handler, ctx, error }) = hook {
        core.handler_runtime.spawn(async move { handler.failed(&ctx, &error, backoff).await });
    }
}

/// Writes checkpoints that the next run needs. They are a cache: one try.
async fn flush(core: &Core, endings: &[Ending]) {
    let follows = |ending: &&Ending| matches!(ending.kind, EndKind::Retry | EndKind::Released);
    let live: Vec<Live> =
        endings.iter().filter(follows).filter_map(|ending| watch::unwritten(&ending.attempt, core.clock.now())).collect();
    if !live.is_empty()
        && let Err(error) = core.store.set_live(&live, core.clock.now()).await
    {
        tracing::warn!(%error, runs = live.len(), "checkpoints could not be written");
    }
}

/// Cuts a batch so that no statement carries too many bytes.
fn by_size(endings: Vec<Ending>) -> Vec<Vec<Ending>> {
    let (mut batches, mut bytes) = (Vec::<Vec<Ending>>::new(), 0);
    for ending in endings {
        let size = ending.result_bytes();
        match batches.last_mut() {
            Some(batch) if bytes + size <= STATEMENT_BYTES => {
                bytes += size;
                batch.push(ending);
            }
            Some(_) | None => {
                bytes = size;
                batches.push(vec![ending]);
            }
        }
    }
    batches
}
