//! A trace goes on over a call, and arrives at an OTLP receiver.

use std::{sync::Arc, time::Duration};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    trace::v1::Span,
};
use oxcart_service::{Server, ServerOptions, local, telemetry};
use oxcart_testkit::wait_for;
use tokio::{net::TcpListener, sync::Mutex};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tracing::Instrument as _;

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<Span>>>);

#[async_trait::async_trait]
impl TraceService for Sink {
    async fn export(&self, request: Request<ExportTraceServiceRequest>) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let spans =
            request.into_inner().resource_spans.into_iter().flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans);
        self.0.lock().await.extend(spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_continues_the_trace_of_its_caller() {
    let sink = Sink::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let receiver = TraceServiceServer::new(sink.clone());
    tokio::spawn(tonic::transport::Server::builder().add_service(receiver).serve_with_incoming(TcpListenerStream::new(listener)));
    let config = telemetry::TelemetryConfig {
        filter: "off,test=info,oxcart_service=info,trace=info".to_owned(),
        otlp_endpoint: Some(endpoint),
        ..Default::default()
    };
    let guard = telemetry::init(&config, "test").unwrap();

    let (connector, incoming) = local::transport();
    let shutdown = CancellationToken::new();
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = tokio::spawn(Server::new(ServerOptions::default()).with_local(incoming).serve(port, None, shutdown.clone()));
    let mut client = HealthClient::with_interceptor(connector.channel(), telemetry::propagation::interceptor);
    let caller = tracing::info_span!(target: "test", "caller");
    client.check(HealthCheckRequest::default()).instrument(caller.clone()).await.unwrap();
    // The hook that is set up with telemetry: a panic is logged where it happens, and so it is told in the trace, too.
    tokio::spawn(async { panic!("boom") }.instrument(caller)).await.unwrap_err();
    shutdown.cancel();
    server.await.unwrap().unwrap();
    // What is left is sent when the guard goes; the wait for it must not hold up the receiver.
    tokio::task::spawn_blocking(move || drop(guard)).await.unwrap();

    let find = async |name: &str| sink.0.lock().await.iter().find(|span| span.name == name).cloned();
    let called = wait_for("the call's span", Duration::from_secs(20), || find("grpc.health.v1.Health/Check")).await.unwrap();
    let caller = wait_for("the caller's span", Duration::from_secs(20), || find("caller")).await.unwrap();
    assert_eq!((called.trace_id, called.parent_span_id), (caller.trace_id, caller.span_id.clone()));
    assert!(caller.events.iter().any(|event| event.name == "panicked"), "{:?}", caller.events);
}
