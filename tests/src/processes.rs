//! The four services as processes of their own, on private MariaDB and Redis servers.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};
use oxcart_testkit::{ChildGuard, MariaDbServer, RedisOptions, RedisServer, Signal, free_port, wait_for};
use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::transport::{Channel, Endpoint};

use crate::{binary::oxcart, client::Clients};

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

/// Where a service listens on the loopback interface.
#[derive(Debug, Clone, Copy)]
struct Ports {
    grpc: u16,
    admin: u16,
}

/// Systems at once: each is six processes, and more of them would wait for the machine and not for what they test.
static ROOM: Semaphore = Semaphore::const_new(2);

/// A running system.
pub struct Processes {
    /// The database.
    pub mariadb: MariaDbServer,
    /// Redis.
    pub redis: RedisServer,
    database_url: String,
    options: Options,
    running: Vec<(Service, ChildGuard)>,
    ports: Vec<(Service, Ports)>,
    directory: TempDir,
    _room: SemaphorePermit<'static>,
}

impl Processes {
    /// Starts servers and services, and waits until each service is ready.
    pub async fn start(options: Options) -> Result<Self> {
        let room = ROOM.acquire().await?;
        let (mariadb, redis) = tokio::try_join!(MariaDbServer::start(), RedisServer::start(RedisOptions::default()))?;
        let database_url = mariadb.create_database().await?;
        let mut ports = Vec::new();
        for service in Service::ALL {
            ports.push((service, Ports { grpc: free_port()?, admin: free_port()? }));
        }
        let directory = TempDir::new()?;
        let mut system = Self { mariadb, redis, database_url, options, running: Vec::new(), ports, directory, _room: room };
        system.write_config()?;
        let migrated = Command::new(oxcart()).args(["migrate", "up", "--config"]).arg(system.config()).output()?;
        anyhow::ensure!(migrated.status.success(), "migrate: {}", String::from_utf8_lossy(&migrated.stderr));
        for service in Service::ALL {
            system.spawn(service)?;
        }
        for service in Service::ALL {
            system.wait_until_ready(service).await?;
        }
        Ok(system)
    }

    /// Clients of the system. They find a restarted service again by themselves.
    pub fn clients(&self) -> Result<Clients> {
        Ok(Clients::new(self.channel(Service::Submission)?, self.channel(Service::Monitor)?))
    }

    /// A channel to a service.
    pub fn channel(&self, service: Service) -> Result<Channel> {
        let address = format!("http://127.0.0.1:{}", self.ports(service)?.grpc);
        Ok(Endpoint::from_shared(address)?.tcp_nodelay(true).connect_timeout(Duration::from_secs(5)).connect_lazy())
    }

    /// Liveness, readiness and metrics of a service.
    pub fn admin(&self, service: Service) -> Result<SocketAddr> {
        Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports(service)?.admin)))
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
    pub fn kill(&mut self, service: Service) -> Result<()> {
        self.guard(service)?.kill()
    }

    /// Asks a service to end and waits until it has.
    pub async fn terminate(&mut self, service: Service) -> Result<()> {
        let guard = self.guard(service)?;
        guard.signal(Signal::Terminate)?;
        guard.wait(Duration::from_secs(60)).await?;
        Ok(())
    }

    /// Sends a signal to a service.
    pub fn signal(&mut self, service: Service, signal: Signal) -> Result<()> {
        self.guard(service)?.signal(signal)
    }

    /// Starts a service that has ended again, on the same addresses.
    pub async fn restart(&mut self, service: Service) -> Result<()> {
        self.running.retain(|(running, _)| *running != service);
        self.spawn(service)?;
        self.wait_until_ready(service).await
    }

    /// What a service has written.
    pub fn log(&self, service: Service) -> String {
        fs::read_to_string(self.log_path(service)).unwrap_or_default()
    }

    fn guard(&mut self, service: Service) -> Result<&mut ChildGuard> {
        let found = self.running.iter_mut().find(|(running, _)| *running == service);
        found.map(|(_, guard)| guard).with_context(|| format!("{service:?} does not run"))
    }

    fn ports(&self, service: Service) -> Result<Ports> {
        let found = self.ports.iter().find(|(known, _)| *known == service);
        found.map(|(_, ports)| *ports).with_context(|| format!("{service:?} has no ports"))
    }

    fn config(&self) -> PathBuf {
        self.directory.path().join("oxcart.toml")
    }

    fn log_path(&self, service: Service) -> PathBuf {
        self.directory.path().join(format!("{}.log", service.name()))
    }

    fn write_config(&self) -> Result<()> {
        let mut text = format!(
            "[store]\nurl = \"{}\"\n[redis]\nurl = \"{}\"\n[server]\ndispatcher_addresses = [\"http://127.0.0.1:{}\"]\n",
            self.database_url,
            self.redis.url(),
            self.ports(Service::Dispatcher)?.grpc
        );
        for service in Service::ALL {
            let Ports { grpc, admin } = self.ports(service)?;
            let name = service.name();
            text += &format!("[server.{name}]\ngrpc = \"127.0.0.1:{grpc}\"\nadmin = \"127.0.0.1:{admin}\"\n");
        }
        text += &self.options.extra;
        Ok(fs::write(self.config(), text)?)
    }

    fn spawn(&mut self, service: Service) -> Result<()> {
        let mut command = Command::new(oxcart());
        command.args(["serve", service.name(), "--config"]).arg(self.config());
        command.envs(self.options.environment.iter().map(|(k, v)| (k, v)));
        let guard = ChildGuard::spawn(command, &self.log_path(service), None)?;
        self.running.push((service, guard));
        Ok(())
    }

    async fn wait_until_ready(&self, service: Service) -> Result<()> {
        let address = format!("http://127.0.0.1:{}", self.ports(service)?.grpc);
        let ask = || async {
            let checked = Command::new(oxcart()).args(["healthcheck", "--address", &address]).output();
            checked.is_ok_and(|output| output.status.success()).then_some(())
        };
        let ready = wait_for(&format!("{service:?} to be ready"), Duration::from_secs(60), ask).await;
        ready.with_context(|| format!("{service:?} said:\n{}", self.log(service)))
    }
}
