//! `oxcart migrate …`

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use oxcart::Config;
use oxcart_store::{Store, StoreError};

use super::{CliError, Exit, config::read, output::Output};

/// The database schema.
#[derive(Debug, Args)]
pub(crate) struct MigrateArgs {
    #[command(subcommand)]
    command: MigrateCommand,
    /// Configuration file
    #[arg(long, short = 'c', global = true, env = "OXCART_CONFIG", hide_env_values = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum MigrateCommand {
    /// Bring the schema up to date; several processes may do it at once
    #[command(after_help = "\
Examples:
  oxcart migrate up --config oxcart.toml
  OXCART_STORE__URL=mysql://oxcart@db/oxcart oxcart migrate up")]
    Up,
    /// Say whether the schema is the one this program needs
    #[command(after_help = "\
Exit code: 0 up to date, 4 not.

Examples:
  oxcart migrate status
  oxcart migrate status --config oxcart.toml")]
    Status,
}

impl MigrateArgs {
    pub(super) async fn run(self, output: &mut Output) -> Result<Exit, CliError> {
        let config = read(self.config.as_deref())?;
        match self.command {
            MigrateCommand::Up => up(&config, output).await,
            MigrateCommand::Status => status(&config, output).await,
        }
    }
}

async fn up(config: &Config, output: &mut Output) -> Result<Exit, CliError> {
    let applied = Store::migrate(&config.store.options()).await.context("cannot bring the schema up to date")?;
    if applied.is_empty() {
        output.line("the schema is up to date")?;
    }
    for version in applied {
        output.line(format!("applied {version}"))?;
    }
    Ok(Exit::Ok)
}

async fn status(config: &Config, output: &mut Output) -> Result<Exit, CliError> {
    match oxcart::compose::store(config).await {
        Ok(_) => {
            output.line("the schema is up to date")?;
            Ok(Exit::Ok)
        }
        Err(error @ StoreError::Schema { .. }) => {
            output.line(error.to_string())?;
            Ok(Exit::Conflict)
        }
        Err(error) => Err(anyhow::Error::from(error).context("cannot look at the schema").into()),
    }
}
