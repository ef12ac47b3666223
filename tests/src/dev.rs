//! `oxcart dev` as a process of its own: what it takes of the machine can be measured from outside.

use std::{fs, net::SocketAddr, process::Command, time::Duration};

use anyhow::{Context as _, Result};
use oxcart_testkit::{ChildGuard, free_port, wait_for};
use tempfile::TempDir;
use tonic::transport::Endpoint;

use crate::{binary::oxcart, client::Clients};

/// A running process. It is killed when dropped.
pub struct Dev {
    guard: ChildGuard,
    address: SocketAddr,
    _directory: TempDir,
}

impl Dev {
    /// Starts one in memory, and waits until it is ready.
    pub async fn start(config: &str) -> Result<Self> {
        let directory = TempDir::new()?;
        let file = directory.path().join("oxcart.toml");
        fs::write(&file, config)?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let mut command = Command::new(oxcart());
        command.args(["dev", "--in-memory", "--port", &address.port().to_string(), "--admin-port", "0", "--config"]).arg(&file);
        let guard = ChildGuard::spawn(command, &directory.path().join("log"), None)?;
        let dev = Self { guard, address, _directory: directory };
        let ask = || async {
            let checked = Command::new(oxcart()).args(["healthcheck", "--address", &format!("http://{address}")]).output();
            checked.is_ok_and(|output| output.status.success()).then_some(())
        };
        let ready = wait_for("the process to be ready", Duration::from_secs(60), ask).await;
        ready.with_context(|| dev.guard.output())?;
        Ok(dev)
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Clients on a connection of their own.
    pub fn clients(&self) -> Result<Clients> {
        let channel = Endpoint::from_shared(format!("http://{}", self.address))?.tcp_nodelay(true).connect_lazy();
        Ok(Clients::new(channel.clone(), channel))
    }

    /// Bytes that it has resident.
    pub fn resident_bytes(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.guard.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? * 1024)
    }

    /// Descriptors that it has open: connections among them.
    pub fn descriptors(&self) -> Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.guard.id()))?.count())
    }

    /// What it has written.
    pub fn output(&self) -> String {
        self.guard.output()
    }
}
