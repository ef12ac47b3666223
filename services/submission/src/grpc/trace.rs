//! Which trace a task belongs to.

use oxcart_service::telemetry::{names, propagation::TraceContext};
use oxcart_store::{NewTask, SubmitUnit};
use tracing::Span;

/// Puts every task of a unit into a trace: into that which its metadata name, else into that of the call. The spans that come
/// back are the submission as the former see it; they last until they are dropped.
#[must_use = "the spans end when they are dropped"]
pub(super) fn join(unit: &mut SubmitUnit, call: Option<&TraceContext>) -> Vec<Span> {
    let Some(call) = call else { return Vec::new() };
    let mut spans = Vec::new();
    for task in &mut unit.tasks {
        match TraceContext::from_map(&task.spec.metadata) {
            None => call.write(&mut task.spec.metadata),
            Some(own) if own.is_sampled() && own.trace_id() != call.trace_id() => spans.push(submit_span(task, &own, call)),
            Some(_) => {}
        }
    }
    spans
}

fn submit_span(task: &NewTask, own: &TraceContext, call: &TraceContext) -> Span {
    let spec = &task.spec;
    let span = tracing::info_span!(
        parent: None,
        names::SUBMIT,
        otel.kind = "producer",
        { names::TASK_ID } = %spec.id,
        { names::TASK_NAME } = %spec.name,
        { names::QUEUE } = %spec.queue,
        { names::TRACE_ID } = %own.trace_id(),
    );
    own.continue_in(&span);
    call.link_from(&span);
    span
}
