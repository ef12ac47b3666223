//! `oxcart task …`

mod cancel;
mod explain;
mod list;
mod replay;
pub(super) mod show;
mod submit;
mod wait;
mod watch;

use clap::{Args, Subcommand};
use oxcart_proto::pb::submission::v1::GetTaskRequest;

use super::{CliError, Exit, Global, output::Output};

/// Tasks.
#[derive(Debug, Args)]
pub(crate) struct TaskArgs {
    #[command(subcommand)]
    command: TaskCommand,
}

#[derive(Debug, Subcommand)]
enum TaskCommand {
    /// Submit a task and print its id
    Submit(submit::SubmitArgs),
    /// Submit a task, wait for its end and print its result
    Execute(submit::ExecuteArgs),
    /// Show a task
    #[command(after_help = "\
Examples:
  oxcart task get 0190f3c5-7b1e-7cc3-98c4-dc0c0c07398f
  oxcart task get 0190f3c5-7b1e-7cc3-98c4-dc0c0c07398f --output json")]
    Get {
        /// Id of the task
        id: String,
    },
    /// Say what keeps a task from running or ending
    Explain(explain::ExplainArgs),
    /// Wait for the end of a task and print its result
    Wait(wait::WaitArgs),
    /// List tasks, newest first
    List(list::ListArgs),
    /// Cancel tasks
    Cancel(cancel::CancelArgs),
    /// Run finished tasks again, under their own ids
    Replay(replay::ReplayArgs),
    /// Show what happens, live
    Watch(watch::WatchArgs),
}

impl TaskArgs {
    pub(super) async fn run(self, global: &Global, output: &mut Output) -> Result<Exit, CliError> {
        match self.command {
            TaskCommand::Submit(args) => args.run(global, output).await,
            TaskCommand::Execute(args) => args.run(global, output).await,
            TaskCommand::Get { id } => {
                let request = GetTaskRequest { task_id: id, ..Default::default() };
                let answer = global.submission().await?.get_task(request).await?.into_inner();
                show::task(output, &answer.task.unwrap_or_default())?;
                Ok(Exit::Ok)
            }
            TaskCommand::Explain(args) => args.run(global, output).await,
            TaskCommand::Wait(args) => args.run(global, output).await,
            TaskCommand::List(args) => args.run(global, output).await,
            TaskCommand::Cancel(args) => args.run(global, output).await,
            TaskCommand::Replay(args) => args.run(global, output).await,
            TaskCommand::Watch(args) => args.run(global, output).await,
        }
    }
}
