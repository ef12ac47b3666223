//! The life of a server: ready, not ready, draining, gone; over TCP and within the process.

#![expect(clippy::unwrap_used, reason = "helpers of tests; clippy exempts only the tests themselves")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use oxcart_service::{Component, Metrics, NotReady, Readiness, Server, ServerOptions, ServiceError, channel, local};
use oxcart_testkit::wait_for;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tonic::{service::RoutesBuilder, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

const SOON: Duration = Duration::from_secs(20);
const SERVICE: &str = "oxcart.test.v1.TestService";

#[derive(Clone, Default)]
struct Switch(Arc<AtomicBool>);

#[async_trait]
impl Readiness for Switch {
    async fn check(&self) -> Result<(), NotReady> {
        if self.0.load(Ordering::Relaxed) { Ok(()) } else { Err(NotReady("no store".to_owned())) }
    }
}

/// Waits for `release` once it is told to drain.
struct Fake {
    ready: Switch,
    release: CancellationToken,
    fail: CancellationToken,
}

#[async_trait]
impl Component for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn grpc_services(&self) -> &'static [&'static str] {
        &[SERVICE]
    }

    fn register(&self, _: &mut RoutesBuilder) {}

    fn readiness(&self) -> Arc<dyn Readiness> {
        Arc::new(self.ready.clone())
    }

    async fn run(self: Box<Self>, shutdown: CancellationToken) -> Result<(), ServiceError> {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.fail.cancelled() => return Err(ServiceError::component("fake", std::io::Error::other("disk full"))),
        }
        self.release.cancelled().await;
        Ok(())
    }
}

struct Fixture {
    ready: Switch,
    release: CancellationToken,
    fail: CancellationToken,
    shutdown: CancellationToken,
    address: String,
    tcp: Channel,
    within: Channel,
    admin: String,
    server: JoinHandle<Result<(), ServiceError>>,
}

async fn start(drain_timeout: Duration) -> Fixture {
    let (ready, release, fail, shutdown) =
        (Switch::default(), CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let admin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let tcp = channel::connect(std::slice::from_ref(&address)).unwrap();
    let admin_address = admin.local_addr().unwrap().to_string();
    let (connector, incoming) = local::transport();
    let component = Fake { ready: ready.clone(), release: release.clone(), fail: fail.clone() };
    let options = ServerOptions { drain_timeout, metrics: Metrics::new(), ..ServerOptions::default() };
    let server = Server::new(options).with(component).with_local(incoming).serve(listener, Some(admin), shutdown.clone());
    Fixture {
        ready,
        release,
        fail,
        shutdown,
        address,
        tcp,
        within: connector.channel(),
        admin: admin_address,
        server: tokio::spawn(server),
    }
}

async fn health(channel: &Channel, service: &str) -> Option<ServingStatus> {
    let request = HealthCheckRequest { service: service.to_owned() };
    HealthClient::new(channel.clone()).check(request).await.ok().map(|answer| answer.into_inner().status())
}

async fn becomes(channel: &Channel, service: &str, status: ServingStatus) {
    wait_for("the health", SOON, || async { health(channel, service).await.filter(|now| *now == status) }).await.unwrap();
}

async fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn health_follows_readiness_on_every_transport() {
    let fixture = start(SOON).await;
    becomes(&fixture.tcp, SERVICE, ServingStatus::NotServing).await;
    assert!(get(&fixture.admin, "/livez").await.starts_with("HTTP/1.1 200"));
    wait_for("the reason", SOON, || async { get(&fixture.admin, "/readyz").await.contains("fake: no store").then_some(()) })
        .await
        .unwrap();
    fixture.ready.0.store(true, Ordering::Relaxed);
    for service in ["", SERVICE] {
        becomes(&fixture.tcp, service, ServingStatus::Serving).await;
        becomes(&fixture.within, service, ServingStatus::Serving).await;
    }
    wait_for("readyz", SOON, || async { get(&fixture.admin, "/readyz").await.starts_with("HTTP/1.1 200").then_some(()) })
        .await
        .unwrap();
    let metrics = get(&fixture.admin, "/metrics").await;
    assert!(metrics.contains("grpc_service=\"grpc.health.v1.Health\",grpc_method=\"Check\",grpc_code=\"OK\""), "{metrics}");
}

#[tokio::test]
async fn while_components_drain_calls_are_answered() {
    let fixture = start(SOON).await;
    fixture.ready.0.store(true, Ordering::Relaxed);
    becomes(&fixture.within, SERVICE, ServingStatus::Serving).await;
    fixture.shutdown.cancel();
    becomes(&fixture.within, SERVICE, ServingStatus::NotServing).await;
    assert!(!fixture.server.is_finished());
    fixture.release.cancel();
    fixture.server.await.unwrap().unwrap();
}

/// A client may connect long before its first call, and a probe may never speak.
#[tokio::test]
async fn connections_that_say_nothing_do_not_hold_up_the_shutdown() {
    let fixture = start(Duration::from_secs(3600)).await;
    let silent = TcpStream::connect(&fixture.address).await.unwrap();
    let mut stuck = TcpStream::connect(&fixture.address).await.unwrap();
    stuck.write_all(b"PRI * HTTP/2.0").await.unwrap();
    // Accepted after the two.
    becomes(&fixture.tcp, SERVICE, ServingStatus::NotServing).await;
    fixture.shutdown.cancel();
    fixture.release.cancel();
    tokio::time::timeout(SOON, fixture.server).await.expect("the end, in time").unwrap().unwrap();
    drop((silent, stuck));
}

#[tokio::test]
async fn a_component_that_does_not_drain_is_cut_off() {
    let fixture = start(Duration::from_millis(50)).await;
    fixture.shutdown.cancel();
    let error = tokio::time::timeout(SOON, fixture.server).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(error, ServiceError::DrainTimeout(_)), "{error}");
}

#[tokio::test]
async fn a_component_that_fails_ends_the_server() {
    let fixture = start(SOON).await;
    fixture.fail.cancel();
    let error = tokio::time::timeout(SOON, fixture.server).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(error, ServiceError::Component { component: "fake", .. }), "{error}");
}

#[tokio::test]
async fn errors_of_the_library_have_details_and_known_labels() {
    let fixture = start(SOON).await;
    // A path that nobody serves, by way of a client for another service.
    let error = HealthClient::with_origin(fixture.within.clone(), "http://localhost/made.up".parse().unwrap())
        .check(HealthCheckRequest::default())
        .await
        .unwrap_err();
    assert_eq!(oxcart_service::status::reason_of(&error).as_deref(), Some("FEATURE_DISABLED"));
    assert!(error.message().contains("no such method"), "{error}");
    let unknown = HealthCheckRequest { service: "made.up".to_owned() };
    let error = HealthClient::new(fixture.within.clone()).check(unknown).await.unwrap_err();
    assert_eq!(oxcart_service::status::reason_of(&error).as_deref(), Some("SERVICE_NOT_FOUND"));
    let metrics = get(&fixture.admin, "/metrics").await;
    assert!(metrics.contains("grpc_service=\"unknown\"") && !metrics.contains("made.up"), "{metrics}");
}

/// Every service that is listed can be described, by a client of either version.
#[tokio::test]
async fn reflection_describes_what_it_lists() {
    use tonic_reflection::pb::{v1, v1alpha};
    const NAMES: [&str; 3] =
        ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];

    let fixture = start(SOON).await;
    for name in NAMES {
        let ask = v1::server_reflection_request::MessageRequest::FileContainingSymbol(name.to_owned());
        let ask = tokio_stream::once(v1::ServerReflectionRequest { host: String::new(), message_request: Some(ask) });
        let mut client = v1::server_reflection_client::ServerReflectionClient::new(fixture.within.clone());
        assert!(
            client.server_reflection_info(ask).await.unwrap().into_inner().message().await.is_ok_and(|it| it.is_some()),
            "{name}"
        );

        let ask = v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(name.to_owned());
        let ask = tokio_stream::once(v1alpha::ServerReflectionRequest { host: String::new(), message_request: Some(ask) });
        let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(fixture.within.clone());
        assert!(
            client.server_reflection_info(ask).await.unwrap().into_inner().message().await.is_ok_and(|it| it.is_some()),
            "{name}"
        );
    }
}
