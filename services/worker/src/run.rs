//! Running a handler: on the handlers' own runtime, within its time, and concluded exactly once whatever happens to it.

use std::{sync::Arc, time::Duration};

use oxcart_sdk::{HandlerEntry, Reporter, RunInfo, StopReason, TaskContext};
use oxcart_types::{Payload, TaskSpec};
use tracing::Instrument as _;

use crate::{
    attempt::Attempt,
    conclude::{Conclusion, Outcome, conclude},
    core::Core,
    refusal::until,
};

/// A run that is over and is to be ended.
pub(crate) struct Concluded {
    pub(crate) attempt: Arc<Attempt>,
    pub(crate) conclusion: Conclusion,
    /// To tell the handler what becomes of its failure.
    pub(crate) told: Option<(HandlerEntry, TaskContext)>,
}

/// Runs the handler of a run that SQL took.
pub(crate) fn spawn(core: &Arc<Core>, attempt: &Arc<Attempt>, handler: HandlerEntry, spec: TaskSpec, restored: Option<Payload>) {
    core.meters.started.inc();
    let info = RunInfo {
        task_id: attempt.key.task,
        task_name: spec.name,
        run: attempt.key.run,
        attempt: attempt.number,
        max_attempts: spec.retry.max_attempts(),
        queue: spec.queue,
        tags: spec.tags,
        metadata: spec.metadata,
        deadline: attempt.deadline_at,
        worker_id: core.worker,
    };
    let span = span(&info);
    let reporter: Arc<dyn Reporter> = Arc::clone(attempt) as Arc<dyn Reporter>;
    let ctx = TaskContext::new(info, attempt.stop.clone(), restored, reporter);
    // A handler that is aborted, or whose runtime goes down, is concluded by the drop of this.
    let end = EndOnDrop { core: Arc::clone(core), attempt: Arc::clone(attempt), told: Some((handler.clone(), ctx.clone())) };
    let input = spec.payload;
    let job = core.handler_runtime.spawn(
        async move {
            let mut end = end;
            let result = handler.run(ctx, input).await;
            end.conclude(Outcome::Returned(result));
        }
        .instrument(span),
    );
    attempt.set_abort(job.abort_handle());
    let now = core.clock.now();
    let deadline = attempt.deadline_at.map(|at| (until(at, now), StopReason::Deadline));
    let timeout = attempt.timeout.map(|timeout| (timeout, StopReason::Timeout));
    // Most tasks have no limit, and cost no timer.
    if let Some((limit, reason)) = timeout.into_iter().chain(deadline).min_by_key(|(limit, _)| *limit) {
        let (core, attempt) = (Arc::clone(core), Arc::clone(attempt));
        tokio::spawn(async move {
            if tokio::time::timeout(limit, attempt.over.cancelled()).await.is_err() {
                stop(&core, &attempt, reason, core.config.abort_grace);
            }
        });
    }
}

fn span(info: &RunInfo) -> tracing::Span {
    let span = tracing::info_span!(
        "run",
        otel.kind = "consumer",
        task.id = %info.task_id,
        task.name = %info.task_name,
        queue = %info.queue,
        run = info.run.get(),
        attempt = info.attempt,
    );
    oxcart_service::telemetry::propagation::continue_from_map(&span, &info.metadata);
    span
}

/// Asks a handler to stop, and aborts it when it has not after `grace`. The first reason stands.
pub(crate) fn stop(core: &Arc<Core>, attempt: &Arc<Attempt>, reason: StopReason, grace: Duration) {
    if !attempt.stop.stop(reason) {
        return;
    }
    let (core, attempt) = (Arc::clone(core), Arc::clone(attempt));
    tokio::spawn(async move {
        if tokio::time::timeout(grace, attempt.over.cancelled()).await.is_err() {
            attempt.abort();
            // One that blocks its thread cannot be aborted: the run is over all the same.
            conclude_once(&core, &attempt, Outcome::Aborted, None);
        }
    });
}

/// Concludes a run of which no handler is entered.
pub(crate) fn conclude_unentered(core: &Arc<Core>, attempt: &Arc<Attempt>, conclusion: Conclusion) {
    if attempt.claim_conclusion() {
        send(core, Concluded { attempt: Arc::clone(attempt), conclusion, told: None });
    }
}

fn conclude_once(core: &Arc<Core>, attempt: &Arc<Attempt>, outcome: Outcome, told: Option<(HandlerEntry, TaskContext)>) {
    if attempt.claim_conclusion() {
        core.meters.run_seconds.observe(attempt.started.elapsed().as_secs_f64());
        let conclusion = conclude(outcome, attempt.stop.reason(), core.config.max_result_bytes);
        send(core, Concluded { attempt: Arc::clone(attempt), conclusion, told });
    }
}

fn send(core: &Core, concluded: Concluded) {
    // The receiver lives until no lease is held.
    let _ = core.concluded.send(concluded);
}

struct EndOnDrop {
    core: Arc<Core>,
    attempt: Arc<Attempt>,
    told: Option<(HandlerEntry, TaskContext)>,
}

impl EndOnDrop {
    fn conclude(&mut self, outcome: Outcome) {
        conclude_once(&self.core, &self.attempt, outcome, self.told.take());
    }
}

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.conclude(Outcome::Aborted);
    }
}
