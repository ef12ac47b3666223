//! A private mariadbd.

use std::{
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Result, ensure};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::{managed::ManagedProcess, program, wait::free_port};

const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Somebody else may take the port between finding and binding it.
const START_ATTEMPTS: usize = 3;
/// Runs at each start, before connections are taken.
const INIT_SQL: &str =
    "CREATE USER IF NOT EXISTS 'oxcart'@'%' IDENTIFIED BY 'oxcart';\nGRANT ALL ON *.* TO 'oxcart'@'%' WITH GRANT OPTION;\n";

/// A mariadbd on the loopback address, small, that flushes its log at each commit. It ends with its handle.
#[derive(Debug)]
pub struct MariaDbServer {
    // Before the directory: fields drop in order, and the server writes there until it is gone.
    process: ManagedProcess,
    directory: TempDir,
    port: u16,
    databases: AtomicU32,
}

impl MariaDbServer {
    /// Starts one with an empty data directory and waits until it answers.
    ///
    /// # Errors
    /// When MariaDB is not installed, or does not come up.
    pub async fn start() -> Result<Self> {
        let mut attempt = 1;
        loop {
            let directory = tempfile::Builder::new().prefix("oxcart-mariadb-").tempdir()?;
            install(directory.path()).await?;
            let log = directory.path().join("mariadb.log");
            let process = ManagedProcess::new("mariadbd", log, Some(directory.path().to_owned()));
            let server = Self { process, directory, port: free_port()?, databases: AtomicU32::new(0) };
            match server.spawn().await {
                Ok(()) => return Ok(server),
                Err(error) if attempt == START_ATTEMPTS => return Err(error),
                Err(_) => attempt += 1,
            }
        }
    }

    /// One server for the whole test binary; it ends with the process. Each test takes a database of its own, and none stops it.
    ///
    /// # Errors
    /// As [`MariaDbServer::start`].
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<MariaDbServer> = OnceCell::const_new();
        SHARED.get_or_try_init(Self::start).await
    }

    /// The URL of a new, empty database.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn create_database(&self) -> Result<String> {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.execute(&format!("CREATE DATABASE {name} CHARACTER SET utf8mb4")).await?;
        Ok(format!("mysql://oxcart:oxcart@127.0.0.1:{}/{name}", self.port))
    }

    /// Runs SQL with the command line client, and returns the rows as it prints them: columns apart by tabs, without names.
    ///
    /// # Errors
    /// When the server does not answer or refuses the statement.
    pub async fn execute(&self, sql: &str) -> Result<String> {
        let output = tokio::process::Command::new(program::find(&["mariadb", "mysql"])?)
            .args(["--no-defaults", "--protocol=tcp", "--host=127.0.0.1", "--user=oxcart", "--password=oxcart", "--batch"])
            .args(["--skip-column-names", &format!("--port={}", self.port), &format!("--execute={sql}")])
            .kill_on_drop(true)
            .output()
            .await?;
        ensure!(output.status.success(), "{sql:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
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

    /// Starts it again on the same port and data, killing it first if it runs.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn restart(&self) -> Result<()> {
        self.spawn().await
    }

    async fn spawn(&self) -> Result<()> {
        let directory = self.directory.path();
        let init_file = directory.join("init.sql");
        std::fs::write(&init_file, INIT_SQL)?;
        let mut command = Command::new(program::find(&["mariadbd", "mysqld"])?);
        command
            .args([
                "--no-defaults",
                "--bind-address=127.0.0.1",
                "--skip-name-resolve",
                "--skip-log-bin",
                "--performance-schema=OFF",
            ])
            .args(["--innodb-flush-log-at-trx-commit=1", "--innodb-buffer-pool-size=64M", "--innodb-log-file-size=32M"])
            .args(["--innodb-lock-wait-timeout=10", "--max-connections=300", "--character-set-server=utf8mb4"])
            .arg(format!("--port={}", self.port))
            .arg(argument("--datadir=", &directory.join("data")))
            // A server that starts removes the temporary tables that it finds: those of others, in a folder that they share.
            .env("TMPDIR", directory)
            .arg(argument("--socket=", &directory.join("socket")))
            .arg(argument("--pid-file=", &directory.join("pid")))
            .arg(argument("--init-file=", &init_file))
            .args(as_user());
        self.process.start(command, START_TIMEOUT, || async { self.execute("SELECT 1").await.is_ok() }).await
    }
}

/// Makes the system tables.
async fn install(directory: &Path) -> Result<()> {
    let output = tokio::process::Command::new(program::find(&["mariadb-install-db", "mysql_install_db"])?)
        .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"])
        .arg(argument("--datadir=", &directory.join("data")))
        .env("TMPDIR", directory)
        .args(as_user())
        .kill_on_drop(true)
        .output()
        .await?;
    ensure!(output.status.success(), "mariadb-install-db: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The server refuses to run as root unless told to.
fn as_user() -> Option<&'static str> {
    let root = std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    root.then_some("--user=root")
}

fn argument(name: &str, path: &Path) -> std::ffi::OsString {
    let mut argument = std::ffi::OsString::from(name);
    argument.push(path);
    argument
}
