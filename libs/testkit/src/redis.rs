//! A private redis-server.

use std::{process::Command, time::Duration};

use anyhow::{Result, bail, ensure};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    sync::OnceCell,
};

use crate::{managed::ManagedProcess, program, wait::free_port};

const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Somebody else may take the port between finding and binding it.
const START_ATTEMPTS: usize = 3;

/// How a server is started.
#[derive(Debug, Clone, Copy, Default)]
pub struct RedisOptions {
    /// Append-only file, flushed each second: a restart keeps what was written.
    pub append_only: bool,
    /// Memory after which writes are refused, in MiB; unlimited when unset.
    pub max_memory_mib: Option<u32>,
}

/// A redis-server on the loopback address that never evicts. It ends with its handle.
#[derive(Debug)]
pub struct RedisServer {
    // Before the directory: fields drop in order, and the server writes there until it is gone.
    process: ManagedProcess,
    directory: TempDir,
    options: RedisOptions,
    port: u16,
}

impl RedisServer {
    /// Starts one and waits until it answers.
    ///
    /// # Errors
    /// When redis-server is not installed, or does not come up.
    pub async fn start(options: RedisOptions) -> Result<Self> {
        let mut attempt = 1;
        loop {
            let directory = tempfile::Builder::new().prefix("oxcart-redis-").tempdir()?;
            let log = directory.path().join("redis.log");
            let process = ManagedProcess::new("redis-server", log, Some(directory.path().to_owned()));
            let server = Self { process, directory, options, port: free_port()? };
            match server.spawn().await {
                Ok(()) => return Ok(server),
                Err(error) if attempt == START_ATTEMPTS => return Err(error),
                Err(_) => attempt += 1,
            }
        }
    }

    /// One server for the whole test binary, without an append-only file; it ends with the process. Tests that share it keep
    /// apart by key prefixes, and neither flush nor stop it.
    ///
    /// # Errors
    /// As [`RedisServer::start`].
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<RedisServer> = OnceCell::const_new();
        SHARED.get_or_try_init(|| Self::start(RedisOptions::default())).await
    }

    /// Where it listens, database 0.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The port; it stays the same over restarts.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The process: to kill, freeze and measure it.
    #[must_use]
    pub const fn process(&self) -> &ManagedProcess {
        &self.process
    }

    /// Forgets everything, as a lost Redis does.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn flush_all(&self) -> Result<()> {
        self.command("FLUSHALL").await.map(drop)
    }

    /// Sends one command written in a line, and returns the first line of the reply without its type mark.
    ///
    /// # Errors
    /// When the server does not answer, or answers with an error.
    pub async fn command(&self, line: &str) -> Result<String> {
        let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", self.port)).await?);
        stream.write_all(format!("{line}\r\n").as_bytes()).await?;
        let mut reply = String::new();
        stream.read_line(&mut reply).await?;
        let reply = reply.trim_end();
        ensure!(!reply.is_empty(), "redis closed the connection");
        if let Some(error) = reply.strip_prefix('-') {
            bail!("redis: {error}");
        }
        Ok(reply.trim_start_matches(['+', ':', '$', '*']).to_owned())
    }

    /// Starts it again on the same port and directory, killing it first if it runs.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn restart(&self) -> Result<()> {
        self.spawn().await
    }

    async fn spawn(&self) -> Result<()> {
        let mut command = Command::new(program::find(&["redis-server"])?);
        command
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--save", "", "--maxmemory-policy", "noeviction"])
            .args(["--appendonly", if self.options.append_only { "yes" } else { "no" }, "--appendfsync", "everysec"])
            .args(["--enable-debug-command", "local"])
            .arg("--dir")
            .arg(self.directory.path());
        if let Some(mib) = self.options.max_memory_mib {
            command.args(["--maxmemory", &format!("{mib}mb")]);
        }
        let answers = || async { self.command("PING").await.is_ok_and(|reply| reply == "PONG") };
        self.process.start(command, START_TIMEOUT, answers).await
    }
}
