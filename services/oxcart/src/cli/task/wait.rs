//! `oxcart task wait`

use std::time::Duration;

use clap::Args;
use oxcart_proto::{
    convert::scalar::to_duration,
    pb::{
        common::v1::{TaskState, TaskView},
        submission::v1::{WaitTaskRequest, submission_service_client::SubmissionServiceClient},
    },
};
use tokio::time::Instant;
use tonic::transport::Channel;

use super::show;
use crate::cli::{CliError, Exit, Global, args, output::Output};

/// Arguments of `task wait`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit code: 0 succeeded, 1 ended otherwise, 124 not ended in time.

Examples:
  oxcart task wait 0190f3c5-7b1e-7cc3-98c4-dc0c0c07398f
  oxcart task wait 0190f3c5-7b1e-7cc3-98c4-dc0c0c07398f --max-wait 1m --output json")]
pub(crate) struct WaitArgs {
    /// Id of the task
    id: String,
    /// Longest wait; without end when not given
    #[arg(long, value_parser = args::duration, value_name = "DURATION")]
    max_wait: Option<Duration>,
}

impl WaitArgs {
    pub(super) async fn run(self, global: &Global, output: &mut Output) -> Result<Exit, CliError> {
        until_end(global.submission().await?, &self.id, self.max_wait, output).await
    }
}

/// Waits for the end of a task, however long it takes.
pub(super) async fn ended(submission: &mut SubmissionServiceClient<Channel>, id: &str) -> Result<(), CliError> {
    loop {
        let request = WaitTaskRequest { task_id: id.to_owned(), view: TaskView::Basic.into(), ..Default::default() };
        if submission.wait_task(request).await?.into_inner().satisfied {
            return Ok(());
        }
    }
}

/// Waits for the end of a task and prints its result.
pub(super) async fn until_end(
    mut submission: SubmissionServiceClient<Channel>,
    id: &str,
    max_wait: Option<Duration>,
    output: &mut Output,
) -> Result<Exit, CliError> {
    let until = max_wait.map(|wait| Instant::now() + wait);
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let request = WaitTaskRequest { task_id: id.to_owned(), max_wait: left.map(to_duration), ..Default::default() };
        let answer = submission.wait_task(request).await?.into_inner();
        let task = answer.task.unwrap_or_default();
        if answer.satisfied {
            show::result(output, &task)?;
            return Ok(if task.state() == TaskState::Succeeded { Exit::Ok } else { Exit::Failed });
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            return Err(CliError::Timeout(format!("task {id} has not ended; it is {}", show::state(task.state()))));
        }
    }
}
