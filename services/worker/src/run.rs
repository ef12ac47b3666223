//! Running a handler: on the handlers' own runtime, within its time, and concluded exactly once whatever happens to it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use oxcart_sdk::{HandlerEntry, Reporter, RunInfo, StopReason, TaskContext};
use oxcart_service::telemetry::{names, propagation::TraceContext};
use oxcart_types::{Payload, TaskSpec};
use tracing::{Instrument as _, field};

use crate::{
    attempt::Attempt,
    conclude::{Bounds, Conclusion, Outcome, conclude},
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
    let submitted = TraceContext::from_map(&spec.metadata);
    let mut info = RunInfo {
        task_id: attempt.key.task,
        task_name: spec.name,
        run: attempt.key.run,
        attempt: attempt.number,
        max_attempts: spec.retry.max_attempts(),
        queue: spec.queue,
        tags: spec.tags,
        metadata: spec.metadata,
        trace_context: BTreeMap::new(),
        deadline: attempt.deadline_at,
        worker_id: core.worker,
    };
    let span = span(&info, submitted.as_ref());
    let exported = TraceContext::of(&span);
    if let Some(trace) = &exported {
        tell_lines(&span, trace, submitted.as_ref());
    }
    // Where nothing is exported, the handler passes on what came with the task.
    if let Some(trace) = exported.or(submitted) {
        trace.write(&mut info.trace_context);
        attempt.set_trace(trace);
    }
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
    if let Some(limit) = attempt.heartbeat_timeout {
        let (core, attempt) = (Arc::clone(core), Arc::clone(attempt));
        tokio::spawn(async move {
            tokio::select! {
                () = attempt.over.cancelled() => {}
                () = attempt.silent_for(limit) => stop(&core, &attempt, StopReason::HeartbeatTimeout, core.config.abort_grace),
            }
        });
    }
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

/// The span of a run, in the trace of the submission. A run that belongs to no trace begins one.
fn span(info: &RunInfo, submitted: Option<&TraceContext>) -> tracing::Span {
    let span = tracing::info_span!(
        parent: None,
        names::RUN,
        otel.kind = "consumer",
        { names::TASK_ID } = %info.task_id,
        { names::TASK_NAME } = %info.task_name,
        { names::QUEUE } = %info.queue,
        { names::RUN_NUMBER } = info.run.get(),
        { names::ATTEMPT } = info.attempt,
        { names::TRACE_ID } = submitted.map(|trace| field::display(trace.trace_id())),
        { names::SPAN_ID } = field::Empty,
    );
    if let Some(submitted) = submitted {
        submitted.continue_in(&span);
    }
    span
}

/// Puts into the log lines of a span what is known of its trace only once it has begun.
fn tell_lines(span: &tracing::Span, trace: &TraceContext, submitted: Option<&TraceContext>) {
    if submitted.is_none() {
        span.record(names::TRACE_ID, field::display(trace.trace_id()));
    }
    span.record(names::SPAN_ID, field::display(trace.span_id()));
}

/// The span of the end of a run on its way into SQL, below that of the run. It costs nothing when the task is not traced.
pub(crate) fn outcome_span(attempt: &Attempt) -> tracing::Span {
    let Some(trace) = attempt.trace().filter(|trace| trace.is_sampled()) else { return tracing::Span::none() };
    let span = tracing::info_span!(
        parent: None,
        names::OUTCOME,
        { names::TASK_ID } = %attempt.key.task,
        { names::TASK_NAME } = %attempt.name,
        { names::QUEUE } = %attempt.grant.queue,
        { names::RUN_NUMBER } = attempt.key.run.get(),
        { names::ATTEMPT } = attempt.number,
        { names::TRACE_ID } = %trace.trace_id(),
        { names::END } = field::Empty,
        { names::ERROR_KIND } = field::Empty,
    );
    trace.continue_in(&span);
    span
}

/// Asks a handler to stop, and aborts it when it has not after `grace`. The first reason stands.
pub(crate) fn stop(core: &Arc<Core>, attempt: &Arc<Attempt>, reason: StopReason, grace: Duration) {
    let lost = matches!(reason, StopReason::LeaseLost);
    if !attempt.stop.stop(reason) {
        return;
    }
    if lost {
        core.meters.leases_lost.inc();
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
        let bounds =
            Bounds { result_bytes: core.config.max_result_bytes, may_release: attempt.releases < core.config.max_releases };
        let conclusion = conclude(outcome, attempt.stop.reason(), bounds);
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

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Mutex, PoisonError},
    };

    use oxcart_service::telemetry::{TelemetryConfig, subscriber};
    use oxcart_types::{IdSource as _, QueueName, Run, SystemIds};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_name_the_trace_of_the_submission_where_nothing_is_exported() {
        let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let metadata: BTreeMap<_, _> = [("traceparent".to_owned(), traceparent.to_owned())].into();
        let submitted = TraceContext::from_map(&metadata);
        let info = RunInfo {
            task_id: SystemIds.task_id(),
            task_name: "report".parse().expect("a name"),
            run: Run::FIRST,
            attempt: 1,
            max_attempts: 1,
            queue: QueueName::default_queue(),
            tags: Vec::new(),
            metadata,
            trace_context: BTreeMap::new(),
            deadline: None,
            worker_id: SystemIds.worker_id(),
        };
        let lines = Lines::default();
        let (writer, config) = (lines.clone(), TelemetryConfig::default());
        let (subscriber, _guard) = subscriber(&config, "test", false, move || writer.clone()).expect("a good configuration");
        tracing::subscriber::with_default(subscriber, || {
            let span = span(&info, submitted.as_ref());
            assert_eq!(TraceContext::of(&span), None);
            span.in_scope(|| tracing::info!("halfway"));
        });
        let text = String::from_utf8(lines.0.lock().expect("not poisoned").clone()).expect("a text");
        let fields = format!(
            " task.id={} task.name=report queue=default run=1 attempt=1 trace_id=0af7651916cd43dd8448eb211c80319c}}",
            info.task_id
        );
        assert!(text.contains(&fields) && text.contains("halfway"), "{text}");
    }
}
