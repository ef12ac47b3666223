//! One process of a service.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use oxcart_testkit::{ManagedProcess, free_port, wait_for};

use crate::{http, processes::Service};

/// Longest wait for a service to be ready, on a machine that does much else.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest wait for a service to end after it was asked to.
const END_TIMEOUT: Duration = Duration::from_secs(60);

/// How a replica is started.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The program.
    pub program: PathBuf,
    /// Its arguments, without addresses.
    pub args: Vec<String>,
    /// Its environment, besides the one of this process.
    pub environment: Vec<(String, String)>,
}

/// A replica of a service, on addresses that it keeps over restarts.
#[derive(Debug)]
pub struct Replica {
    service: Service,
    launch: Launch,
    grpc: u16,
    admin: u16,
    process: ManagedProcess,
}

impl Replica {
    /// Starts nothing yet.
    ///
    /// # Errors
    /// No port is free.
    pub fn new(service: Service, launch: Launch, log: &Path) -> Result<Self> {
        let process = ManagedProcess::new(service.name(), log.to_owned(), None);
        Ok(Self { service, launch, grpc: free_port()?, admin: free_port()?, process })
    }

    /// Starts it, killing it first if it runs, and waits until it is ready.
    ///
    /// # Errors
    /// It ends, or does not become ready.
    pub async fn start(&self) -> Result<()> {
        self.start_as(&self.launch).await
    }

    /// Starts it without waiting.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&self) -> Result<()> {
        self.process.spawn(self.command(&self.launch))
    }

    /// Waits until one that was spawned is ready.
    ///
    /// # Errors
    /// It does not become ready in time.
    pub async fn wait_until_ready(&self) -> Result<()> {
        let what = format!("{} to be ready", self.service.name());
        let ready = wait_for(&what, READY_TIMEOUT, || async { self.is_ready().await.then_some(()) });
        ready.await.with_context(|| format!("{} said:\n{}", self.service.name(), self.process.output()))
    }

    /// Starts it in another way than it was made for, this once.
    ///
    /// # Errors
    /// It ends, or does not become ready.
    pub async fn start_as(&self, launch: &Launch) -> Result<()> {
        self.process.start(self.command(launch), READY_TIMEOUT, || self.is_ready()).await
    }

    /// How it is started.
    #[must_use]
    pub const fn launch(&self) -> &Launch {
        &self.launch
    }

    /// Asks it to end and waits until it has, in good order.
    ///
    /// # Errors
    /// It does not run, does not end in time, or ends with an error.
    pub async fn terminate(&self) -> Result<()> {
        let status = self.process.terminate(END_TIMEOUT).await?;
        ensure!(status.success(), "{} ended with {status}", self.service.name());
        Ok(())
    }

    /// The service.
    #[must_use]
    pub const fn service(&self) -> Service {
        self.service
    }

    /// The process: to kill and freeze it.
    #[must_use]
    pub const fn process(&self) -> &ManagedProcess {
        &self.process
    }

    /// Where it listens for gRPC.
    #[must_use]
    pub const fn grpc(&self) -> u16 {
        self.grpc
    }

    /// Where it listens for probes.
    #[must_use]
    pub const fn admin(&self) -> u16 {
        self.admin
    }

    /// Whether it says that it is ready.
    pub async fn is_ready(&self) -> bool {
        http::get(self.admin, "/readyz").await.is_ok_and(|(status, _)| status == 200)
    }

    fn command(&self, launch: &Launch) -> Command {
        let mut command = Command::new(&launch.program);
        command.args(&launch.args);
        command.args(["--grpc", &format!("127.0.0.1:{}", self.grpc), "--admin", &format!("127.0.0.1:{}", self.admin)]);
        command.envs(launch.environment.iter().map(|(key, value)| (key, value)));
        command
    }
}
