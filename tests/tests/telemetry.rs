//! One task is one trace: from the client over submission into the handler, to the end of each run.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
    trace::v1::Span,
};
use oxcart::{Storage, System};
use oxcart_proto::pb::{
    common::v1::{RetryPolicy, TaskSpec, TaskState},
    submission::v1::SubmitTaskRequest,
};
use oxcart_service::telemetry::{self, TelemetryConfig, names};
use oxcart_testkit::wait_for;
use oxcart_tests::{
    client::{Clients, spec},
    processes::{Options, Processes},
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request, Response, Status,
    transport::{Endpoint, Server},
};

const TRACEPARENT: &str = "traceparent";
/// The span of every submission in these tests.
const SUBMIT_TASK: &str = "oxcart.submission.v1.SubmissionService/SubmitTask";
/// Longer than exporters wait for a batch to fill.
const EXPORT_PATIENCE: Duration = Duration::from_secs(30);

/// Keeps what services export.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Sink {
    async fn export(&self, request: Request<ExportTraceServiceRequest>) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans;
        let spans = resources.into_iter().flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Sink {
    /// A sink, and where it listens.
    async fn start() -> Result<(Self, String)> {
        let sink = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let server = Server::builder().add_service(TraceServiceServer::new(sink.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Ok((sink, endpoint))
    }

    fn spans(&self) -> Vec<Span> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The spans of a trace, once `count` of them have this name.
    async fn trace(&self, client: &ClientSpan, name: &str, count: usize) -> Result<Trace> {
        let complete = async || {
            let spans: Vec<_> = self.spans().into_iter().filter(|span| span.trace_id == client.trace_id).collect();
            (spans.iter().filter(|span| span.name == name).count() >= count)
                .then_some(Trace { spans, root: client.span_id.clone() })
        };
        wait_for(&format!("{count} spans {name:?}"), EXPORT_PATIENCE, complete).await
    }
}

/// A span that the client would have: the tests play it.
struct ClientSpan {
    trace_id: Vec<u8>,
    span_id: Vec<u8>,
}

impl ClientSpan {
    fn new(seed: u8) -> Self {
        Self { trace_id: vec![seed; 16], span_id: vec![seed; 8] }
    }

    fn traceparent(&self) -> String {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        format!("00-{}-{}-01", hex(&self.trace_id), hex(&self.span_id))
    }
}

/// All spans of a trace that were exported.
struct Trace {
    spans: Vec<Span>,
    root: Vec<u8>,
}

impl Trace {
    fn named(&self, name: &str) -> Vec<&Span> {
        let mut found: Vec<_> = self.spans.iter().filter(|span| span.name == name).collect();
        found.sort_by_key(|span| span.start_time_unix_nano);
        found
    }

    /// Names of the spans above, the nearest first, up to the client's.
    fn ancestors(&self, span: &Span) -> Result<Vec<&str>> {
        let mut names = Vec::new();
        let mut parent = &span.parent_span_id;
        while *parent != self.root {
            let above = self.spans.iter().find(|span| span.span_id == *parent);
            let above = above.with_context(|| format!("{:?} has no way up to the client: {names:?}", span.name))?;
            names.push(above.name.as_str());
            parent = &above.parent_span_id;
        }
        Ok(names)
    }
}

fn attributes(span: &Span) -> BTreeMap<&str, String> {
    let text = |value: Option<&Value>| match value {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    let value = |pair: &opentelemetry_proto::tonic::common::v1::KeyValue| text(pair.value.as_ref().and_then(|v| v.value.as_ref()));
    span.attributes.iter().map(|pair| (pair.key.as_str(), value(pair))).collect()
}

fn ensure_attributes(span: &Span, expected: &[(&str, &str)]) -> Result<()> {
    let found = attributes(span);
    for (key, value) in expected {
        ensure!(found.get(key).map(String::as_str) == Some(*value), "{} has no {key} = {value}: {found:?}", span.name);
    }
    Ok(())
}

/// A task that fails once.
fn flaky() -> TaskSpec {
    let soon = Some(prost_types::Duration { seconds: 0, nanos: 50_000_000 });
    let policy = RetryPolicy { max_attempts: 2, initial_backoff: soon, ..Default::default() };
    TaskSpec { retry_policy: Some(policy), ..spec("flaky", r#"{"times":1}"#) }
}

async fn submit(clients: &Clients, task: TaskSpec, traceparent: Option<String>) -> Result<String> {
    let mut request = Request::new(SubmitTaskRequest { task: Some(task), ..Default::default() });
    if let Some(traceparent) = traceparent {
        request.metadata_mut().insert(TRACEPARENT, traceparent.parse()?);
    }
    let answer = clients.submission.clone().submit_task(request).await?.into_inner();
    let id = answer.result.context("a result")?.task_id;
    let task = clients.wait(&id).await?;
    ensure!(task.state() == TaskState::Succeeded, "{task:?}");
    Ok(id)
}

/// The context in the metadata of the call: submission puts it into the task.
async fn of_the_call(clients: &Clients, sink: &Sink) -> Result<()> {
    let client = ClientSpan::new(0xc1);
    let id = submit(clients, flaky(), Some(client.traceparent())).await?;
    let trace = sink.trace(&client, names::OUTCOME, 2).await?;
    let (calls, runs, outcomes) = (trace.named(SUBMIT_TASK), trace.named(names::RUN), trace.named(names::OUTCOME));
    ensure!((calls.len(), runs.len(), outcomes.len()) == (1, 2, 2), "{:?}", trace.spans);
    ensure!(trace.ancestors(calls[0])?.is_empty());
    for (number, end) in [(1, "RETRY"), (2, "SUCCEEDED")] {
        let (run, outcome, attempt) = (runs[number - 1], outcomes[number - 1], number.to_string());
        let shared = [
            (names::TASK_ID, id.as_str()),
            (names::TASK_NAME, "flaky"),
            (names::QUEUE, "default"),
            (names::RUN_NUMBER, &attempt),
            (names::ATTEMPT, &attempt),
        ];
        ensure!(trace.ancestors(run)? == [SUBMIT_TASK]);
        ensure_attributes(run, &shared)?;
        ensure!(outcome.parent_span_id == run.span_id, "the end of run {number} is not below its run");
        ensure!(trace.ancestors(outcome)? == [names::RUN, SUBMIT_TASK]);
        ensure_attributes(outcome, &shared)?;
        ensure_attributes(outcome, &[(names::END, end)])?;
    }
    ensure_attributes(outcomes[0], &[(names::ERROR_KIND, "Flaky")])?;
    // Every span of the trace, whatever its name, hangs below the client's.
    for span in &trace.spans {
        trace.ancestors(span)?;
    }
    Ok(())
}

/// The context in the metadata of the task: it stays, and the call that brought it is linked.
async fn of_the_task(clients: &Clients, sink: &Sink) -> Result<()> {
    let client = ClientSpan::new(0xc2);
    let metadata = [(TRACEPARENT.to_owned(), client.traceparent())].into();
    let id = submit(clients, TaskSpec { metadata, ..spec("echo", "1") }, None).await?;
    let kept = clients.get(&id).await?.spec.context("a specification")?.metadata;
    ensure!(kept.get(TRACEPARENT) == Some(&client.traceparent()), "{kept:?}");
    let trace = sink.trace(&client, names::OUTCOME, 1).await?;
    let trace = if trace.named(names::SUBMIT).is_empty() { sink.trace(&client, names::SUBMIT, 1).await? } else { trace };
    let (submits, runs, outcomes) = (trace.named(names::SUBMIT), trace.named(names::RUN), trace.named(names::OUTCOME));
    ensure!((submits.len(), runs.len(), outcomes.len()) == (1, 1, 1), "{:?}", trace.spans);
    ensure!(trace.ancestors(submits[0])?.is_empty() && trace.ancestors(runs[0])?.is_empty());
    ensure!(trace.ancestors(outcomes[0])? == [names::RUN]);
    ensure_attributes(submits[0], &[(names::TASK_ID, &id), (names::TASK_NAME, "echo"), (names::QUEUE, "default")])?;
    let link = submits[0].links.first().context("a link to the call")?;
    let linked = async || sink.spans().into_iter().find(|span| span.span_id == link.span_id);
    let call = wait_for("the call that is linked", EXPORT_PATIENCE, linked).await?;
    ensure!(call.name == SUBMIT_TASK && call.trace_id == link.trace_id, "{call:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_one_trace_over_four_processes() -> Result<()> {
    let (sink, endpoint) = Sink::start().await?;
    let environment = [("OXCART_TELEMETRY__OTLP_ENDPOINT", endpoint.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "100")];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let system = Processes::start(Options { environment, ..Options::default() }).await?;
    let clients = system.clients()?;
    of_the_call(&clients, &sink).await?;
    of_the_task(&clients, &sink).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_one_trace_in_embedded_mode() -> Result<()> {
    let (sink, endpoint) = Sink::start().await?;
    // The exporter's own calls must not be traced: their spans would be exported in turn.
    let filter = "off,oxcart_service=info,oxcart_submission=info,oxcart_worker=info".to_owned();
    let guard =
        telemetry::init(&TelemetryConfig { filter, otlp_endpoint: Some(endpoint), ..Default::default() }, "oxcart-embedded")?;
    let system = System::embedded(Storage::InMemory).start().await?;
    let channel = Endpoint::from_shared(format!("http://{}", system.addresses().grpc))?.tcp_nodelay(true).connect_lazy();
    let clients = Clients::new(channel.clone(), channel);
    of_the_call(&clients, &sink).await?;
    of_the_task(&clients, &sink).await?;
    system.stop().await?;
    // The guard waits for the sink, which runs on this runtime.
    Ok(tokio::task::spawn_blocking(move || drop(guard)).await?)
}
