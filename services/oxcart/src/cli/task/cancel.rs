//! `oxcart task cancel`

use std::time::Duration;

use clap::Args;
use oxcart_proto::{
    convert::scalar::to_duration,
    pb::submission::v1::{CancelOutcome, CancelTaskRequest},
};

use super::show;
use crate::cli::{
    CliError, Exit, Global, args,
    output::{Format, Output},
};

/// Arguments of `task cancel`.
#[derive(Debug, Args)]
#[command(after_help = "\
A task that waits is CANCELLED at once. The handler of one that runs is asked to stop.

Examples:
  oxcart task cancel 0190f3c5-7b1e-7cc3-98c4-dc0c0c07398f --reason 'wrong input'
  oxcart task list 'tags:nap' --output name | xargs oxcart task cancel")]
pub(crate) struct CancelArgs {
    /// Ids of the tasks
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    /// Why, for people
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    /// Time for a running handler to stop by itself
    #[arg(long, value_parser = args::duration, value_name = "DURATION")]
    grace: Option<Duration>,
}

impl CancelArgs {
    pub(super) async fn run(self, global: &Global, output: &mut Output) -> Result<Exit, CliError> {
        let mut submission = global.submission().await?;
        let mut exit = Exit::Ok;
        for id in self.ids {
            let grace_period = self.grace.map(to_duration);
            let request = CancelTaskRequest { task_id: id.clone(), reason: self.reason.clone(), grace_period };
            match submission.cancel_task(request).await {
                Ok(answer) => {
                    let answer = answer.into_inner();
                    let outcome = match answer.outcome() {
                        CancelOutcome::Acknowledged => "acknowledged",
                        CancelOutcome::Requested => "requested",
                        CancelOutcome::Unspecified => "unknown",
                    };
                    let state = answer.task.as_ref().map(|task| show::state(task.state())).unwrap_or_default();
                    match output.format() {
                        Format::Table => output.line(format!("{id} {outcome}, {state}"))?,
                        Format::Name => output.line(id)?,
                        Format::Json | Format::Jsonl => output.message("oxcart.submission.v1.CancelTaskResponse", &answer)?,
                    }
                }
                // The others are cancelled all the same; the first failure decides the exit code.
                Err(status) => {
                    let error = CliError::from(status);
                    error.tell();
                    exit = if exit == Exit::Ok { error.exit() } else { exit };
                }
            }
        }
        Ok(exit)
    }
}
