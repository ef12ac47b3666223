//! Tasks as people read them.

use std::io::Write as _;

use oxcart_proto::{
    convert::scalar,
    pb::common::v1::{Payload, Run, RunEnd, Task, TaskState, payload::Content},
};

use crate::cli::{
    CliError,
    output::{Format, Output, table},
};

const TASK: &str = "oxcart.common.v1.Task";

/// A state without the prefix of the contract.
pub(super) fn state(state: TaskState) -> &'static str {
    state.as_str_name().trim_start_matches("TASK_STATE_")
}

/// An instant, in UTC; a dash when there is none.
pub(in crate::cli) fn time(time: Option<prost_types::Timestamp>) -> String {
    let time = time.and_then(|time| scalar::timestamp(time).ok());
    time.map_or_else(|| "-".to_owned(), |time| time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
}

/// Prints a task.
pub(super) fn task(output: &mut Output, task: &Task) -> Result<(), CliError> {
    match output.format() {
        Format::Json | Format::Jsonl => output.message(TASK, task),
        Format::Name => output.line(task.spec.as_ref().map(|spec| spec.task_id.as_str()).unwrap_or_default()),
        Format::Table => {
            output.line(details(task))?;
            if !task.runs.is_empty() {
                output.line(format!("\n{}", runs(&task.runs)))?;
            }
            Ok(())
        }
    }
}

/// Prints the result of a task that has ended; tells on stderr why there is none.
pub(super) fn result(output: &mut Output, task: &Task) -> Result<(), CliError> {
    match output.format() {
        Format::Json | Format::Jsonl => output.message(TASK, task)?,
        Format::Name => output.line(task.spec.as_ref().map(|spec| spec.task_id.as_str()).unwrap_or_default())?,
        Format::Table => {
            if let Some(result) = &task.result {
                output.line(payload(result))?;
            }
        }
    }
    if task.state() != TaskState::Succeeded {
        let error = task.error.as_ref().map(|error| format!(": {}: {}", error.kind, error.message)).unwrap_or_default();
        writeln!(std::io::stderr(), "error: the task ended {}{error}", state(task.state()))?;
        writeln!(std::io::stderr(), "reason: {}", state(task.state()))?;
    }
    Ok(())
}

fn details(task: &Task) -> String {
    let spec = task.spec.clone().unwrap_or_default();
    let mut rows = vec![
        ("id", spec.task_id),
        ("name", spec.task_name),
        ("queue", spec.queue),
        ("state", state(task.state()).to_owned()),
        ("run", task.run.to_string()),
        ("attempt", task.attempt.to_string()),
        ("created", time(task.create_time)),
        ("started", time(task.start_time)),
        ("ended", time(task.end_time)),
    ];
    if !spec.tags.is_empty() {
        rows.push(("tags", spec.tags.join(", ")));
    }
    if task.next_run_at.is_some() {
        rows.push(("next run", time(task.next_run_at)));
    }
    if !task.worker_id.is_empty() {
        rows.push(("worker", task.worker_id.clone()));
    }
    if task.cancel_requested {
        rows.push(("cancel", "requested".to_owned()));
    }
    if let Some(progress) = &task.progress {
        rows.push(("progress", format!("{}/{} {}", progress.current, progress.total, progress.message)));
    }
    if let Some(error) = &task.error {
        rows.push(("error", format!("{}: {}", error.kind, error.message)));
    }
    if let Some(result) = &task.result {
        rows.push(("result", payload(result)));
    }
    rows.iter().map(|(name, value)| format!("{name:<9} {value}")).collect::<Vec<_>>().join("\n")
}

fn runs(runs: &[Run]) -> String {
    let rows = runs.iter().map(|run| {
        let end = match run.end() {
            RunEnd::Unspecified => "open",
            end => end.as_str_name().trim_start_matches("RUN_END_"),
        };
        let end = if run.replayed { format!("{end}, replayed") } else { end.to_owned() };
        let error = run.error.as_ref().map(|error| format!("{}: {}", error.kind, error.message)).unwrap_or_default();
        vec![run.run.to_string(), run.attempt.to_string(), end, time(run.start_time), time(run.end_time), error]
    });
    table(&["RUN", "ATTEMPT", "END", "STARTED", "ENDED", "ERROR"], rows.collect())
}

fn payload(payload: &Payload) -> String {
    match &payload.content {
        Some(Content::Json(text)) => text.clone(),
        Some(Content::Data(bytes)) => std::str::from_utf8(bytes)
            .map_or_else(|_| format!("({} bytes of {})", bytes.len(), payload.content_type), str::to_owned),
        Some(Content::Value(_)) | None => "null".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use oxcart_proto::pb::common::v1::{TaskError, TaskSpec};

    use super::*;

    #[test]
    fn a_task_and_its_runs() {
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let spec = TaskSpec {
            task_id: "0190f3c5-7b1e-7cc3-98c4-dc0c0c07398f".to_owned(),
            task_name: "flaky".to_owned(),
            queue: "default".to_owned(),
            tags: vec!["a".to_owned(), "b".to_owned()],
            ..Default::default()
        };
        let error = TaskError { kind: "ERROR".to_owned(), message: "not yet".to_owned(), ..Default::default() };
        let ended = |run, end: RunEnd, error: Option<&TaskError>| Run {
            run,
            attempt: run,
            end: end.into(),
            start_time: at(1),
            end_time: at(2),
            error: error.cloned(),
            ..Default::default()
        };
        let task = Task {
            spec: Some(spec),
            state: TaskState::Succeeded.into(),
            run: 2,
            attempt: 2,
            result: Some(Payload { content: Some(Content::Json("{\"n\":1}".to_owned())), ..Default::default() }),
            create_time: at(0),
            start_time: at(1),
            end_time: at(2),
            runs: vec![ended(1, RunEnd::Retry, Some(&error)), ended(2, RunEnd::Succeeded, None)],
            ..Default::default()
        };
        insta::assert_snapshot!(format!("{}\n\n{}", details(&task), runs(&task.runs)));
    }
}
