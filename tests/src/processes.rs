//! The four services as processes of their own, on private MariaDB and Redis servers.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};
use oxcart_testkit::{MariaDbServer, RedisOptions, RedisServer};
use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::transport::{Channel, Endpoint};

use crate::{
    binary::oxcart,
    client::Clients,
    replica::{Launch, Replica},
};

/// A service of the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// Submission.
    Submission,
    /// Dispatcher.
    Dispatcher,
    /// Worker.
    Worker,
    /// Monitor.
    Monitor,
}

impl Service {
    /// All services, in the order in which they are started: the dispatcher first, since the others call it.
    pub const ALL: [Self; 4] = [Self::Dispatcher, Self::Submission, Self::Worker, Self::Monitor];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Submission => "submission",
            Self::Dispatcher => "dispatcher",
            Self::Worker => "worker",
            Self::Monitor => "monitor",
        }
    }
}

/// How to start the system.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Lines of configuration after those that the harness writes.
    pub extra: String,
    /// Environment of every service.
    pub environment: Vec<(String, String)>,
}

/// Systems at once: each is six processes, and more of them would wait for the machine and not for what they test.
static ROOM: Semaphore = Semaphore::const_new(2);

/// Waits until the machine has room for another system.
pub async fn room() -> Result<SemaphorePermit<'static>> {
    Ok(ROOM.acquire().await?)
}

/// A running system.
pub struct Processes {
    /// The database.
    pub mariadb: MariaDbServer,
    /// Redis.
    pub redis: RedisServer,
    database_url: String,
    replicas: Vec<Replica>,
    directory: TempDir,
    _room: SemaphorePermit<'static>,
}

impl Processes {
    /// Starts servers and services, and waits until each service is ready.
    pub async fn start(options: Options) -> Result<Self> {
        let room = room().await?;
        let (mariadb, redis) = tokio::try_join!(MariaDbServer::start(), RedisServer::start(RedisOptions::default()))?;
        let database_url = mariadb.create_database().await?;
        let directory = TempDir::new()?;
        let config = directory.path().join("oxcart.toml");
        let mut replicas = Vec::new();
        for service in Service::ALL {
            let args = ["serve", service.name(), "--config"].map(str::to_owned).into_iter().chain([config.display().to_string()]);
            let launch = Launch { program: oxcart().clone(), args: args.collect(), environment: options.environment.clone() };
            replicas.push(Replica::new(service, launch, &directory.path().join(format!("{}.log", service.name())))?);
        }
        let system = Self { mariadb, redis, database_url, replicas, directory, _room: room };
        system.write_config(&options.extra)?;
        let migrated = Command::new(oxcart()).args(["migrate", "up", "--config"]).arg(system.config()).output()?;
        anyhow::ensure!(migrated.status.success(), "migrate: {}", String::from_utf8_lossy(&migrated.stderr));
        for replica in &system.replicas {
            replica.spawn()?;
        }
        for replica in &system.replicas {
            replica.wait_until_ready().await?;
        }
        Ok(system)
    }

    /// Clients of the system. They find a restarted service again by themselves.
    pub fn clients(&self) -> Result<Clients> {
        Ok(Clients::new(self.channel(Service::Submission)?, self.channel(Service::Monitor)?))
    }

    /// A channel to a service.
    pub fn channel(&self, service: Service) -> Result<Channel> {
        Ok(Endpoint::from_shared(self.address(service)?)?.tcp_nodelay(true).connect_timeout(Duration::from_secs(5)).connect_lazy())
    }

    /// Where a service listens.
    pub fn address(&self, service: Service) -> Result<String> {
        Ok(format!("http://127.0.0.1:{}", self.replica(service)?.grpc()))
    }

    /// Liveness, readiness and metrics of a service.
    pub fn admin(&self, service: Service) -> Result<SocketAddr> {
        Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, self.replica(service)?.admin())))
    }

    /// URL of the database.
    pub fn database_url(&self) -> &str {
        &self.database_url
    }

    /// Runs a query and gives its output: rows as lines, columns separated by tabs.
    pub async fn sql(&self, query: &str) -> Result<String> {
        let database = self.database_url.rsplit('/').next().context("a database name")?;
        self.mariadb.execute(&format!("USE `{database}`; {query}")).await
    }

    /// Ends a service at once.
    pub fn kill(&self, service: Service) -> Result<()> {
        self.replica(service)?.process().kill()
    }

    /// Asks a service to end and waits until it has.
    pub async fn terminate(&self, service: Service) -> Result<()> {
        self.replica(service)?.terminate().await
    }

    /// Starts a service that has ended again, on the same addresses.
    pub async fn restart(&self, service: Service) -> Result<()> {
        self.replica(service)?.start().await
    }

    /// What a service has written.
    pub fn log(&self, service: Service) -> String {
        self.replica(service).map(|replica| replica.process().output()).unwrap_or_default()
    }

    fn replica(&self, service: Service) -> Result<&Replica> {
        self.replicas.iter().find(|replica| replica.service() == service).with_context(|| format!("no {service:?}"))
    }

    fn config(&self) -> PathBuf {
        self.directory.path().join("oxcart.toml")
    }

    fn write_config(&self, extra: &str) -> Result<()> {
        let text = format!(
            "[store]\nurl = \"{}\"\n[redis]\nurl = \"{}\"\n[server]\ndispatcher_addresses = [\"http://127.0.0.1:{}\"]\n{extra}",
            self.database_url,
            self.redis.url(),
            self.replica(Service::Dispatcher)?.grpc()
        );
        Ok(fs::write(self.config(), text)?)
    }
}
