//! `oxcart version`

use clap::Args;
use oxcart_proto::pb::monitor::v1::{GetServerInfoRequest, GetServerInfoResponse};

use super::{
    CliError, Exit, Global,
    output::{Format, Output},
};

/// Arguments of `version`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  oxcart version
  oxcart version --server --output json")]
pub(crate) struct VersionArgs {
    /// Of the running system instead of this program
    #[arg(long)]
    server: bool,
}

impl VersionArgs {
    pub(super) async fn run(self, global: &Global, output: &mut Output) -> Result<Exit, CliError> {
        let info = if self.server {
            global.monitor().await?.get_server_info(GetServerInfoRequest {}).await?.into_inner()
        } else {
            let build = option_env!("OXCART_BUILD").unwrap_or_default().to_owned();
            GetServerInfoResponse { version: env!("CARGO_PKG_VERSION").to_owned(), build, ..Default::default() }
        };
        match output.format() {
            Format::Table | Format::Name => output.line(format!("oxcart {} {}", info.version, info.build).trim_end())?,
            Format::Json | Format::Jsonl => output.message("oxcart.monitor.v1.GetServerInfoResponse", &info)?,
        }
        Ok(Exit::Ok)
    }
}
