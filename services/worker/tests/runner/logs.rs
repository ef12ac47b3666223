//! What is logged while a handler runs says which task and which trace it belongs to.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use oxcart_service::telemetry::{self, LogFormat, TelemetryConfig};
use oxcart_types::{TaskId, TaskSpec, TaskState};
use serde_json::{Value, json};
use tracing_subscriber::{layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::support::{Rig, SPOKEN};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SUBMISSION: &str = "b7ad6b7169203331";

/// Log lines, as they would stand in a file.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one line that holds all of these.
    fn find(&self, parts: &[&str]) -> String {
        let text = String::from_utf8_lossy(&self.bytes()).into_owned();
        let mut found = text.lines().filter(|line| parts.iter().all(|part| line.contains(part)));
        match (found.next(), found.next()) {
            (Some(line), None) => line.to_owned(),
            other => panic!("one line with {parts:?}, not {other:?}, in:\n{text}"),
        }
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Logs {
    json: Lines,
    pretty: Lines,
}

/// The subscriber of a service that exports spans, once a process: handlers run on threads of their own.
fn logs() -> &'static Logs {
    static LOGS: OnceLock<Logs> = OnceLock::new();
    LOGS.get_or_init(|| {
        let (json, pretty) = (Lines::default(), Lines::default());
        let config = TelemetryConfig {
            filter: "off,runner=info,oxcart_worker=info,oxcart_service=info".to_owned(),
            format: LogFormat::Json,
            // Nobody listens there: a service whose collector is down logs as well.
            otlp_endpoint: Some("http://127.0.0.1:9".to_owned()),
            sample_ratio: 1.0,
        };
        let (lines, others) = (json.clone(), pretty.clone());
        let (subscriber, guard) =
            telemetry::subscriber(&config, "test", false, move || lines.clone()).expect("a good configuration");
        subscriber.with(telemetry::lines(LogFormat::Pretty, false, move || others.clone())).try_init().expect("the first");
        // To the end of the process.
        std::mem::forget(guard);
        let shown = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            assert!(telemetry::log_panic(panic));
            shown(panic);
        }));
        Logs { json, pretty }
    })
}

/// Runs a task that was submitted in a trace to its end.
async fn run(rig: &Rig, name: &str, state: TaskState) -> TaskId {
    let metadata = [("traceparent".to_owned(), format!("00-{TRACE}-{SUBMISSION}-01"))].into();
    let id = rig.submit(TaskSpec { metadata, ..Rig::spec(name, "null", 1) }).await;
    rig.dispatcher.grant(id, 1);
    rig.wait_state(id, state).await;
    id
}

/// Checks the span `run` of a JSON line, and returns the id of that span.
fn span_of_run(line: &Value, id: TaskId, name: &str) -> String {
    let spans = line["spans"].as_array().expect("spans");
    let mut run = spans.iter().find(|span| span["name"] == "run").expect("the span of the run").clone();
    let span_id = run.as_object_mut().and_then(|run| run.remove("span_id")).expect("the id of the span");
    let expected = json!({
        "name": "run", "otel.kind": "consumer", "task.id": id.to_string(), "task.name": name, "queue": "default", "run": 1,
        "attempt": 1, "trace_id": TRACE,
    });
    assert_eq!(run, expected);
    span_id.as_str().expect("a text").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_json_line_of_a_handler_names_its_task_and_its_place_in_the_trace() {
    let logs = logs();
    let rig = Rig::start().await;
    for (name, innermost) in [("speaks", "run"), ("speaks.blocking", "run"), ("speaks.deeper", "deeper")] {
        let id = run(&rig, name, TaskState::Succeeded).await;
        let line: Value = serde_json::from_str(&logs.json.find(&[SPOKEN, &id.to_string()])).expect("JSON");
        assert_eq!((&line["message"], &line["level"]), (&json!(SPOKEN), &json!("INFO")));
        assert_eq!(line["span"]["name"], innermost, "{line}");
        let span_id = span_of_run(&line, id, name);
        // What the handler tells other systems is what the line says, and a place of its own.
        assert_eq!(line["traceparent"], format!("00-{TRACE}-{span_id}-01"));
        assert_ne!(span_id, SUBMISSION);
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pretty_line_of_a_handler_names_its_task_and_its_place_in_the_trace() {
    let logs = logs();
    let rig = Rig::start().await;
    let id = run(&rig, "speaks", TaskState::Succeeded).await;
    let line = logs.pretty.find(&[SPOKEN, &id.to_string()]);
    let span = format!(" task.id={id} task.name=speaks queue=default run=1 attempt=1 trace_id={TRACE} span_id=");
    let (_, rest) = line.split_once(&span).unwrap_or_else(|| panic!("{span} in {line}"));
    let (span_id, _) = rest.split_once('}').expect("the end of the span");
    assert!(line.contains(&format!("00-{TRACE}-{span_id}-01")), "{line}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lines_of_a_panic_name_the_task_and_its_place_in_the_trace() {
    let logs = logs();
    let rig = Rig::start().await;
    let id = run(&rig, "panics", TaskState::Failed).await;
    let line: Value = serde_json::from_str(&logs.json.find(&["panicked", &id.to_string()])).expect("JSON");
    assert_eq!((&line["level"], &line["panic.message"]), (&json!("ERROR"), &json!("boom")));
    assert!(line["panic.location"].as_str().is_some_and(|location| location.contains("support/mod.rs:")), "{line}");
    let span_id = span_of_run(&line, id, "panics");
    let pretty = logs.pretty.find(&["panicked", &id.to_string()]);
    assert!(pretty.contains("ERROR") && pretty.contains(&format!("trace_id={TRACE} span_id={span_id}}}")), "{pretty}");
    rig.stop().await;
}
