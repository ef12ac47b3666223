//! Tasks as they are shown.

use oxcart_types::{
    Failure, Violations,
    record::{Progress, RunRecord, TaskRecord, View},
    spec::TRACE_CONTEXT,
    violation::reason,
};

use super::{enums, scalar, spec, value};
use crate::pb::common::v1 as pb;

/// Reads a view; `unset` stands for none.
///
/// # Errors
/// An unknown number, under the field `view`.
pub fn view(number: i32, unset: View) -> Result<View, Violations> {
    match pb::TaskView::try_from(number) {
        Ok(pb::TaskView::Unspecified) => Ok(unset),
        Ok(pb::TaskView::Basic) => Ok(View::Basic),
        Ok(pb::TaskView::Full) => Ok(View::Full),
        Err(_) => {
            let mut bad = Violations::new();
            bad.add("view", reason::FIELD_INVALID, format!("{number} is no TaskView"));
            Err(bad)
        }
    }
}

/// Writes a task.
#[must_use]
pub fn to_task(task: TaskRecord, view: View) -> pb::Task {
    let full = view == View::Full;
    let trace_id = trace_id(&task);
    pb::Task {
        state: enums::to_task_state(task.state).into(),
        wait_reason: match task.head.waiting {
            Some(why) if !task.state.is_terminal() => enums::to_wait_reason(why).into(),
            _ => pb::WaitReason::Unspecified.into(),
        },
        run: task.head.latest.map_or(0, |latest| scalar::to_run(latest.run)),
        attempt: scalar::to_count(task.head.attempts_used()),
        etag: task.etag(),
        result: task.result.filter(|_| full).map(value::to_payload),
        error: task.failure.map(|failure| to_error(failure, full)),
        progress: task.progress.map(to_progress),
        worker_id: task.worker.map(|worker| worker.to_string()).unwrap_or_default(),
        create_time: Some(scalar::to_timestamp(task.created_at)),
        start_time: task.started_at.map(scalar::to_timestamp),
        end_time: task.ended_at.map(scalar::to_timestamp),
        next_run_at: task.next_run_at.map(scalar::to_timestamp),
        cancel_requested: task.cancel.is_some() && !task.state.is_terminal(),
        runs: if full { task.runs.into_iter().map(|run| to_run(run, &trace_id)).collect() } else { Vec::new() },
        spec: Some(spec::to_task_spec(task.spec, full)),
    }
}

/// Writes a link of a chain. All runs of a task belong to the trace that submitted it.
#[must_use]
pub fn to_run(run: RunRecord, trace_id: &str) -> pb::Run {
    let end = run.end;
    pb::Run {
        run: scalar::to_run(run.run),
        attempt: scalar::to_count(run.attempt),
        worker_id: run.worker.map(|worker| worker.to_string()).unwrap_or_default(),
        start_time: Some(scalar::to_timestamp(run.started_at)),
        end: end.as_ref().map_or(pb::RunEnd::Unspecified, |end| enums::to_run_end(end.kind)).into(),
        end_time: end.as_ref().map(|end| scalar::to_timestamp(end.at)),
        next_run_at: end.as_ref().and_then(|end| end.next_run_at).map(scalar::to_timestamp),
        replayed: end.as_ref().is_some_and(|end| end.replay.is_some()),
        error: end.and_then(|end| end.failure).map(value::to_failure),
        trace_id: trace_id.to_owned(),
    }
}

/// The trace that a task was submitted in, 32 hexadecimal digits; empty when there is none.
#[must_use]
pub fn trace_id(task: &TaskRecord) -> String {
    let parts = task.spec.metadata.get(TRACE_CONTEXT[0]).and_then(|parent| parent.split('-').nth(1));
    parts.filter(|id| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())).unwrap_or_default().to_owned()
}

fn to_error(mut failure: Failure, full: bool) -> pb::TaskError {
    if !full {
        failure.detail = String::new();
    }
    value::to_failure(failure)
}

fn to_progress(progress: Progress) -> pb::Progress {
    pb::Progress {
        current: progress.current,
        total: progress.total,
        message: progress.message,
        update_time: Some(scalar::to_timestamp(progress.at)),
    }
}
