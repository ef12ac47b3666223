//! `oxcart dev`

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use anyhow::Context as _;
use clap::Args;
use oxcart::{Addresses, Storage, System};
use oxcart_service::{shutdown, telemetry};

use super::{
    CliError, Exit,
    config::read,
    output::{Format, Output},
};

/// Arguments of `dev`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  oxcart dev
  oxcart dev --in-memory --port 7700 --file-root .")]
pub(crate) struct DevArgs {
    /// Keep tasks in this SQLite file
    #[arg(long, default_value = "oxcart.db", value_name = "FILE")]
    db: PathBuf,
    /// Keep tasks in memory: they are gone when it stops
    #[arg(long, conflicts_with = "db")]
    in_memory: bool,
    /// Listen on this address; the services have no authentication yet
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    ip: IpAddr,
    /// Port of gRPC; 0 for a free one
    #[arg(long, default_value_t = 7600, value_name = "PORT")]
    port: u16,
    /// Port of liveness, readiness and metrics; 0 for a free one
    #[arg(long, default_value_t = 7650, value_name = "PORT")]
    admin_port: u16,
    /// Let the built-in file handlers read below this directory; may be repeated
    #[arg(long = "file-root", value_name = "DIR")]
    file_roots: Vec<PathBuf>,
    /// Configuration file
    #[arg(long, short = 'c', env = "OXCART_CONFIG", hide_env_values = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl DevArgs {
    pub(super) async fn run(self) -> Result<Exit, CliError> {
        let mut config = read(self.config.as_deref())?;
        config.worker.builtin.files.roots.extend(self.file_roots);
        let _telemetry = telemetry::init(&config.telemetry, "oxcart-dev").context("cannot set up telemetry")?;
        let shutdown = shutdown::on_signal().context("cannot handle signals")?;
        let storage = if self.in_memory { Storage::InMemory } else { Storage::File(self.db) };
        let system = System::embedded(storage.clone())
            .config(config)
            .grpc(SocketAddr::new(self.ip, self.port))
            .admin(SocketAddr::new(self.ip, self.admin_port))
            .start()
            .await
            .context("cannot start")?;
        announce(&mut Output::stdout(Format::Table), &storage, system.addresses())?;
        system.run_until(shutdown).await.context("the system ended")?;
        Ok(Exit::Ok)
    }
}

fn announce(output: &mut Output, storage: &Storage, addresses: Addresses) -> Result<(), CliError> {
    let grpc = addresses.grpc;
    output.line(format!("oxcart {} is ready", env!("CARGO_PKG_VERSION")))?;
    output.line(format!("  gRPC     http://{grpc}"))?;
    if let Some(admin) = addresses.admin {
        output.line(format!("  metrics  http://{admin}/metrics"))?;
    }
    match storage {
        Storage::File(path) => output.line(format!("  tasks    {}", path.display()))?,
        Storage::InMemory => output.line("  tasks    in memory, gone when it stops")?,
    }
    output.line("try:")?;
    output.line(format!("  oxcart --address http://{grpc} task execute echo -p '{{\"hello\": \"world\"}}'"))?;
    output.line(format!(
        "  grpcurl -plaintext -d '{{\"task\": {{\"task_name\": \"echo\", \"payload\": {{\"value\": {{\"hello\": \"world\"}}}}}}}}' \
         {grpc} oxcart.submission.v1.SubmissionService/ExecuteTask"
    ))
}
