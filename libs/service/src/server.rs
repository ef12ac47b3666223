//! Runs components: their gRPC on one port, health and reflection beside it, and a shutdown in order.

mod health;
mod opening;

use std::{collections::HashSet, future, time::Duration};

use futures_util::TryStreamExt as _;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;
use tonic::{
    service::{Routes, RoutesBuilder},
    transport::server::{Router, TcpIncoming},
};
use tower::layer::util::{Identity, Stack};

use crate::{admin, component::Component, error::ServiceError, layers::CallLayer, local::LocalIncoming, metrics::Metrics};
use health::Probe;
use opening::Opening;

/// Largest message, either way. Components set it on the services that they register.
pub const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;

const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
const NOT_READY_AT_START: &str = "starting";
const DRAINING: &str = "shutting down";

/// How a server runs.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Time from the shutdown to the end, after which what is open is cut off.
    pub drain_timeout: Duration,
    /// Calls and streams at once on one connection; more wait.
    pub max_calls_per_connection: u32,
    /// Where calls are counted, and what `/metrics` prints.
    pub metrics: Metrics,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self { drain_timeout: Duration::from_secs(30), max_calls_per_connection: 1024, metrics: Metrics::new() }
    }
}

/// Components about to be run.
pub struct Server {
    options: ServerOptions,
    components: Vec<Box<dyn Component>>,
    local: Option<LocalIncoming>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.components.iter().map(|component| component.name()).collect();
        f.debug_struct("Server").field("components", &names).finish_non_exhaustive()
    }
}

type App = Router<Stack<CallLayer, Identity>>;

/// A component that runs.
struct Running {
    name: &'static str,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), ServiceError>>,
}

impl Server {
    /// Without components.
    #[must_use]
    pub fn new(options: ServerOptions) -> Self {
        Self { options, components: Vec::new(), local: None }
    }

    /// Adds a component. At the shutdown those added last drain first: add what others depend on before them.
    #[must_use]
    pub fn with(self, component: impl Component) -> Self {
        self.with_boxed(Box::new(component))
    }

    /// Adds a component of a type not known here.
    #[must_use]
    pub fn with_boxed(mut self, component: Box<dyn Component>) -> Self {
        self.components.push(component);
        self
    }

    /// Serves connections from within the process too.
    #[must_use]
    pub fn with_local(mut self, incoming: LocalIncoming) -> Self {
        self.local = Some(incoming);
        self
    }

    /// Runs until `shutdown` is cancelled or a component ends. Then: health says so, components drain, the last added first,
    /// and connections close, all within the drain timeout.
    ///
    /// # Errors
    /// What ended it before the shutdown, or what did not drain in time.
    pub async fn serve(
        mut self,
        listener: TcpListener,
        admin: Option<TcpListener>,
        shutdown: CancellationToken,
    ) -> Result<(), ServiceError> {
        let (routes, services, probe) = self.assemble()?;
        probe.not_serving().await;
        let layer = CallLayer::new(self.options.metrics.clone(), services);
        let closing = CancellationToken::new();
        // What is still open when this function returns, or is dropped, ends with it.
        let _cut_off = closing.clone().drop_guard();

        let tcp = TcpIncoming::from(listener).with_nodelay(Some(true)).with_keepalive(Some(KEEPALIVE_INTERVAL));
        let opened = closing.clone();
        let tcp = tcp.map_ok(move |stream| Opening::new(stream, &opened));
        let over_tcp =
            app(&self.options, layer.clone(), routes.clone()).serve_with_incoming_shutdown(tcp, closing.clone().cancelled_owned());
        let within = async {
            match self.local.take() {
                Some(local) => {
                    app(&self.options, layer, routes).serve_with_incoming_shutdown(local, closing.clone().cancelled_owned()).await
                }
                None => Ok(()),
            }
        };
        let (unready_tx, unready_rx) = watch::channel(vec![NOT_READY_AT_START.to_owned()]);
        let administration = async {
            match admin {
                Some(listener) => admin::serve(listener, self.options.metrics.clone(), unready_rx, closing.clone()).await,
                None => Ok(()),
            }
        };
        let transports =
            async { tokio::try_join!(async { Ok(over_tcp.await?) }, async { Ok(within.await?) }, administration).map(drop) };
        tokio::pin!(transports);

        let mut running = start(std::mem::take(&mut self.components));
        let cause = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            failed = first_end(&mut running) => failed,
            () = probe.watch(&unready_tx) => Ok(()),
            failed = &mut transports => failed,
        };

        let deadline = Instant::now() + self.options.drain_timeout;
        probe.not_serving().await;
        unready_tx.send_replace(vec![DRAINING.to_owned()]);
        // Connections stay open meanwhile: components drain through each other.
        let drained = if cause.is_ok() || !running.is_empty() {
            tokio::select! {
                drained = drain(running, deadline, self.options.drain_timeout) => drained,
                Err(failed) = &mut transports => Err(failed),
            }
        } else {
            Ok(())
        };
        closing.cancel();
        let closed = match &cause {
            // The transports have ended already when they are the cause.
            Err(ServiceError::Transport(_) | ServiceError::Io { .. }) => Ok(()),
            _ => match tokio::time::timeout_at(deadline, &mut transports).await {
                Ok(ended) => ended,
                Err(_) => Err(ServiceError::DrainTimeout(self.options.drain_timeout)),
            },
        };
        cause.and(drained).and(closed)
    }

    /// The routes of all components with health and reflection, and the names of their services.
    fn assemble(&self) -> Result<(Routes, HashSet<String>, Probe), ServiceError> {
        let mut routes = RoutesBuilder::default();
        for component in &self.components {
            component.register(&mut routes);
        }
        let (reporter, health) = tonic_health::server::health_reporter();
        routes.add_service(health);
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(oxcart_proto::DESCRIPTOR_SET)
                // Without it clients print the details of errors as base64.
                .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                // Either version describes both: clients list with one and describe what they found.
                .include_reflection_service(false)
                .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET)
        };
        let served = || self.components.iter().flat_map(|component| component.grpc_services()).copied();
        let chassis = ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];
        let names: HashSet<String> = served().chain(chassis).map(str::to_owned).collect();
        // Advertise what this process serves, not every contract that there is.
        let advertised = |builder| {
            names.iter().fold(builder, |builder: tonic_reflection::server::Builder<'_>, name| builder.with_service_name(name))
        };
        routes.add_service(advertised(reflection()).build_v1()?);
        routes.add_service(advertised(reflection()).build_v1alpha()?);
        let probe = Probe::new(reporter, &self.components);
        Ok((routes.routes().prepare(), names, probe))
    }
}

fn app(options: &ServerOptions, layer: CallLayer, routes: Routes) -> App {
    tonic::transport::Server::builder()
        .max_concurrent_streams(options.max_calls_per_connection)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .layer(layer)
        .add_routes(routes)
}

fn start(components: Vec<Box<dyn Component>>) -> Vec<Running> {
    let start_one = |component: Box<dyn Component>| {
        let (name, shutdown) = (component.name(), CancellationToken::new());
        Running { name, task: tokio::spawn(component.run(shutdown.clone())), shutdown }
    };
    components.into_iter().map(start_one).collect()
}

/// Waits until a component ends, which none should, and takes it out.
async fn first_end(running: &mut Vec<Running>) -> Result<(), ServiceError> {
    let ended = future::poll_fn(|context| {
        let ready = |running: &mut Running| match Future::poll(std::pin::Pin::new(&mut running.task), context) {
            std::task::Poll::Ready(outcome) => Some(outcome),
            std::task::Poll::Pending => None,
        };
        match running.iter_mut().map(ready).enumerate().find_map(|(index, outcome)| Some((index, outcome?))) {
            Some(found) => std::task::Poll::Ready(found),
            None => std::task::Poll::Pending,
        }
    });
    let (index, outcome) = ended.await;
    let name = running.remove(index).name;
    tracing::error!(component = name, "ended before the shutdown");
    outcome.unwrap_or(Err(ServiceError::Panicked { component: name }))
}

/// Shuts components down one after the other, the last first. What does not drain in time is cut off.
async fn drain(running: Vec<Running>, deadline: Instant, limit: Duration) -> Result<(), ServiceError> {
    let mut result = Ok(());
    for mut component in running.into_iter().rev() {
        component.shutdown.cancel();
        let outcome = match tokio::time::timeout_at(deadline, &mut component.task).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(ServiceError::Panicked { component: component.name }),
            Err(_) => {
                component.task.abort();
                tracing::warn!(component = component.name, "cut off: did not drain in time");
                Err(ServiceError::DrainTimeout(limit))
            }
        };
        result = result.and(outcome);
    }
    result
}
