//! `oxcart task replay`

use clap::Args;
use oxcart_proto::pb::submission::v1::ReplayTaskRequest;
use oxcart_types::{IdSource as _, SystemIds};

use super::show;
use crate::cli::{
    CliError, Exit, Global, args,
    output::{Format, Output},
};

/// Arguments of `task replay`.
#[derive(Debug, Args)]
#[command(after_help = "\
A replayed task keeps its id and its history. It is due at once, does not expire, and has a new budget of attempts.

Examples:
  oxcart task replay 0190f3c5-7b1e-7cc3-98c4-dc0c0c07398f --reason 'the mail server is back'
  oxcart task list 'state:FAILED' --output name | xargs oxcart task replay")]
pub(crate) struct ReplayArgs {
    /// Ids of the tasks
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    /// Attempts of the new budget; those of the task's policy when not given
    #[arg(long, value_parser = args::count, value_name = "COUNT")]
    max_attempts: Option<usize>,
    /// Begin anew instead of from the last checkpoint
    #[arg(long)]
    reset_checkpoint: bool,
    /// Replay also what has succeeded
    #[arg(long)]
    allow_succeeded: bool,
    /// Why, for people
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
}

impl ReplayArgs {
    pub(super) async fn run(self, global: &Global, output: &mut Output) -> Result<Exit, CliError> {
        let mut submission = global.submission().await?;
        let mut exit = Exit::Ok;
        for id in self.ids {
            let request = ReplayTaskRequest {
                task_id: id.clone(),
                // What is too large for the contract is too large for the service, which says so.
                max_attempts: self.max_attempts.map_or(0, |attempts| i32::try_from(attempts).unwrap_or(i32::MAX)),
                reset_checkpoint: self.reset_checkpoint,
                allow_succeeded: self.allow_succeeded,
                reason: self.reason.clone(),
                request_id: SystemIds.task_id().to_string(),
            };
            match submission.replay_task(request).await {
                Ok(answer) => {
                    let answer = answer.into_inner();
                    let state = answer.task.as_ref().map(|task| show::state(task.state())).unwrap_or_default();
                    match output.format() {
                        Format::Table => output.line(format!("{id} replayed, {state}"))?,
                        Format::Name => output.line(id)?,
                        Format::Json | Format::Jsonl => output.message("oxcart.submission.v1.ReplayTaskResponse", &answer)?,
                    }
                }
                // The others are replayed all the same; the first failure decides the exit code.
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
