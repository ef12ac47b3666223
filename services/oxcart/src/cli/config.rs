//! `oxcart config …`

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use oxcart::Config;

use super::{
    CliError, Exit,
    output::{Format, Output},
};

/// The configuration.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
    /// Configuration file
    #[arg(long, short = 'c', global = true, env = "OXCART_CONFIG", hide_env_values = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum ConfigCommand {
    /// Print the configuration with all defaults; secrets are hidden
    #[command(after_help = "\
Examples:
  oxcart config print
  OXCART_WORKER__SLOTS=64 oxcart config print --config oxcart.toml --output json")]
    Print,
    /// Check the configuration
    #[command(after_help = "\
Exit code: 0 good, 2 not.

Examples:
  oxcart config check --config oxcart.toml
  oxcart config check -c oxcart.toml && oxcart serve worker -c oxcart.toml")]
    Check,
}

impl ConfigArgs {
    pub(super) fn run(self, output: &mut Output) -> Result<Exit, CliError> {
        let config = read(self.config.as_deref())?;
        match (self.command, output.format()) {
            (ConfigCommand::Check, _) => output.line("the configuration is good")?,
            (ConfigCommand::Print, Format::Json | Format::Jsonl) => {
                output.value(&serde_json::to_value(&config).map_err(anyhow::Error::from)?)?;
            }
            (ConfigCommand::Print, Format::Table | Format::Name) => {
                output.line(toml::to_string_pretty(&config).map_err(anyhow::Error::from)?.trim_end())?;
            }
        }
        Ok(Exit::Ok)
    }
}

/// Reads the configuration, and checks what one value cannot say alone.
pub(super) fn read(file: Option<&Path>) -> Result<Config, CliError> {
    let config = Config::load(file).map_err(|error| CliError::Usage(error.to_string()))?;
    config.check().map_err(CliError::Usage)?;
    Ok(config)
}
