//! `oxcart healthcheck`

use std::time::Duration;

use clap::Args;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use super::{CliError, Exit, Global, args, output::Output};

/// Arguments of `healthcheck`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit code: 0 serving, 1 not serving, 5 not reachable, 124 no answer in time.

Examples:
  oxcart healthcheck
  oxcart healthcheck --service oxcart.submission.v1.SubmissionService --address http://submission:7600")]
pub(crate) struct HealthcheckArgs {
    /// Full name of a service; everything at the address when not given
    #[arg(long, default_value = "", hide_default_value = true)]
    service: String,
    /// Longest wait for an answer
    #[arg(long, value_parser = args::duration, default_value = "3s", value_name = "DURATION")]
    max_wait: Duration,
}

impl HealthcheckArgs {
    pub(super) async fn run(self, global: &Global, output: &mut Output) -> Result<Exit, CliError> {
        let check = async {
            let mut health = HealthClient::new(global.channel().await?);
            Ok::<_, CliError>(health.check(HealthCheckRequest { service: self.service }).await?.into_inner())
        };
        let answer = tokio::time::timeout(self.max_wait, check).await;
        let status = answer.map_err(|_| CliError::Timeout(format!("no answer within {:?}", self.max_wait)))??.status();
        output.line(status.as_str_name())?;
        Ok(if status == ServingStatus::Serving { Exit::Ok } else { Exit::Failed })
    }
}
