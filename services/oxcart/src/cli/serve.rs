//! `oxcart serve …`

use std::{net::SocketAddr, path::PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use oxcart::{
    Config,
    compose::{self, Shared},
    config::ListenConfig,
};
use oxcart_sdk::Handlers;
use oxcart_service::{Server, channel, shutdown, telemetry};
use tokio::net::TcpListener;
use tonic::transport::Channel;

use super::{CliError, Exit, config::read};

/// Arguments of `serve`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  oxcart serve submission --config oxcart.toml
  oxcart serve worker --config oxcart.toml --grpc 0.0.0.0:7602 --dispatcher http://dispatcher:7601")]
pub(crate) struct ServeArgs {
    /// Which service
    #[arg(value_enum)]
    service: Service,
    /// Configuration file
    #[arg(long, short = 'c', env = "OXCART_CONFIG", hide_env_values = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Listen here for gRPC; overrides the configuration
    #[arg(long, value_name = "ADDRESS:PORT")]
    grpc: Option<SocketAddr>,
    /// Listen here for liveness, readiness and metrics; overrides the configuration
    #[arg(long, value_name = "ADDRESS:PORT")]
    admin: Option<SocketAddr>,
    /// Reach the dispatcher here; may be repeated; overrides the configuration
    #[arg(long = "dispatcher", value_name = "URL")]
    dispatchers: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Service {
    /// The public task API
    Submission,
    /// Queues and leases
    Dispatcher,
    /// Handlers
    Worker,
    /// The read side
    Monitor,
}

impl ServeArgs {
    pub(super) async fn run(self) -> Result<Exit, CliError> {
        let mut config = read(self.config.as_deref())?;
        if !self.dispatchers.is_empty() {
            config.server.dispatcher_addresses = self.dispatchers.into_iter().collect();
        }
        let mut listen = listen(&config, self.service).clone();
        listen.grpc = self.grpc.unwrap_or(listen.grpc);
        listen.admin = self.admin.unwrap_or(listen.admin);
        let _telemetry = telemetry::init(&config.telemetry, name(self.service)).context("cannot set up telemetry")?;
        let shutdown = shutdown::on_signal().context("cannot handle signals")?;
        let grpc = bind(listen.grpc).await?;
        let admin = bind(listen.admin).await?;
        let server = server(&config, self.service).await?;
        Box::pin(server.serve(grpc, Some(admin), shutdown)).await.context("the service ended")?;
        Ok(Exit::Ok)
    }
}

fn listen(config: &Config, service: Service) -> &ListenConfig {
    match service {
        Service::Submission => &config.server.submission,
        Service::Dispatcher => &config.server.dispatcher,
        Service::Worker => &config.server.worker,
        Service::Monitor => &config.server.monitor,
    }
}

const fn name(service: Service) -> &'static str {
    match service {
        Service::Submission => "oxcart-submission",
        Service::Dispatcher => "oxcart-dispatcher",
        Service::Worker => "oxcart-worker",
        Service::Monitor => "oxcart-monitor",
    }
}

/// The server with the one service on it.
async fn server(config: &Config, service: Service) -> anyhow::Result<Server> {
    let shared = Shared::default();
    let server = Server::new(compose::server_options(config, &shared));
    Ok(match service {
        Service::Submission => {
            server.with(compose::submission(config, store(config, &shared).await?, dispatcher(config)?, &shared))
        }
        Service::Dispatcher => {
            let engine = compose::redis_engine(config).await.context("cannot use Redis")?;
            server.with(compose::dispatcher(config, engine, &shared))
        }
        Service::Worker => {
            let worker = compose::worker(config, store(config, &shared).await?, dispatcher(config)?, Handlers::new(), &shared);
            server.with(worker.context("cannot set up the worker")?)
        }
        Service::Monitor => server.with(compose::monitor(config, store(config, &shared).await?, dispatcher(config)?, &shared)),
    })
}

async fn store(config: &Config, shared: &Shared) -> anyhow::Result<oxcart_store::Store> {
    compose::measured_store(config, shared).await.context("cannot use the database")
}

fn dispatcher(config: &Config) -> anyhow::Result<Channel> {
    channel::connect(config.server.dispatcher_addresses.as_slice()).context("server.dispatcher_addresses")
}

pub(super) async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}
