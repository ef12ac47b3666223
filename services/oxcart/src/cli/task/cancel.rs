//! `oxcart task cancel`

use std::time::Duration;

use clap::Args;
use oxcart_proto::{
    convert::scalar::to_duration,
    pb::{
        common::v1::{TaskIdList, TaskSelector, task_selector::Selector},
        submission::v1::{
            BatchAction, BatchOperationSpec, CancelOutcome, CancelTaskRequest, StartBatchOperationRequest,
            StartBatchOperationResponse,
        },
    },
};

use super::show;
use crate::cli::{
    CliError, Exit, Global, args, operation,
    output::{Format, Output},
};

/// Arguments of `task cancel`.
#[derive(Debug, Args)]
#[command(after_help = "\
A task that waits is CANCELLED at once. The handler of one that runs is asked to stop, and aborted after the grace period; its
task is CANCELLED then, unless it succeeds before. With --tag, --filter or --tree the system works through the tasks in the
background; what is submitted meanwhile is left alone, for which there is oxcart cancel-rule.

Examples:
  oxcart task cancel 0190f3c5-7b1e-7cc3-98c4-dc0c0c07398f --reason 'wrong input'
  oxcart task cancel --filter 'queue = mail AND create_time < now-1h' --dry-run
  oxcart task cancel --tag import-42 --grace 5s --wait
  oxcart task cancel --tree 0190f3c5-7b1e-7cc3-98c4-dc0c0c07398f --wait")]
pub(crate) struct CancelArgs {
    /// Ids of the tasks
    #[arg(value_name = "ID", required_unless_present_any = ["tag", "filter", "tree"], conflicts_with_all = ["tag", "filter", "tree"])]
    ids: Vec<String>,
    /// Every task with this tag
    #[arg(long, value_name = "TAG", conflicts_with_all = ["filter", "tree"])]
    tag: Option<String>,
    /// Every task that matches, as in task list
    #[arg(long, value_name = "FILTER", conflicts_with = "tree")]
    filter: Option<String>,
    /// This task, and all that it and its children started
    #[arg(long, value_name = "ID")]
    tree: Option<String>,
    /// Why, for people
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    /// Time for a running handler to stop by itself; 30s when not given
    #[arg(long, value_parser = args::duration, value_name = "DURATION")]
    grace: Option<Duration>,
    /// Count only, and name some of the tasks
    #[arg(long)]
    dry_run: bool,
    /// Wait until the tasks have been worked through
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
}

impl CancelArgs {
    pub(super) async fn run(self, global: &Global, output: &mut Output) -> Result<Exit, CliError> {
        let selector = match (&self.tag, &self.filter, &self.tree) {
            (Some(tag), _, _) => Selector::Tag(tag.clone()),
            (_, Some(filter), _) => Selector::Filter(filter.clone()),
            (_, _, Some(root)) => Selector::TreeRootTaskId(root.clone()),
            (None, None, None) if self.dry_run => Selector::Ids(TaskIdList { task_ids: self.ids.clone() }),
            (None, None, None) => return self.each(global, output).await,
        };
        let spec = BatchOperationSpec {
            action: BatchAction::Cancel.into(),
            selector: Some(TaskSelector { selector: Some(selector) }),
            reason: self.reason,
            grace_period: self.grace.map(to_duration),
        };
        let request =
            StartBatchOperationRequest { spec: Some(spec), request_id: operation::new_request_id(), dry_run: self.dry_run };
        let mut operations = global.operations().await?;
        let answer = operations.start_batch_operation(operation::by_user(request)).await?.into_inner();
        if self.dry_run {
            tell_count(output, &answer)?;
            return Ok(Exit::Ok);
        }
        let started = answer.batch_operation.unwrap_or_default();
        if self.wait { operation::until_end(operations, started, output).await } else { operation::tell(output, &started) }
    }

    async fn each(self, global: &Global, output: &mut Output) -> Result<Exit, CliError> {
        let mut submission = global.submission().await?;
        let mut exit = Exit::Ok;
        for id in self.ids {
            let grace_period = self.grace.map(to_duration);
            let request = CancelTaskRequest { task_id: id.clone(), reason: self.reason.clone(), grace_period, tree: false };
            match submission.cancel_task(operation::by_user(request)).await {
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
                        Format::Name => output.line(&id)?,
                        Format::Json | Format::Jsonl => output.message("oxcart.submission.v1.CancelTaskResponse", &answer)?,
                    }
                    if self.wait && answer.outcome() == CancelOutcome::Requested {
                        super::wait::ended(&mut submission, &id).await?;
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

fn tell_count(output: &mut Output, answer: &StartBatchOperationResponse) -> Result<(), CliError> {
    match output.format() {
        Format::Json | Format::Jsonl => output.message("oxcart.submission.v1.StartBatchOperationResponse", answer),
        Format::Name => answer.sample_task_ids.iter().try_for_each(|id| output.line(id)),
        Format::Table => {
            let count = answer.batch_operation.clone().unwrap_or_default();
            let more = if count.matched_count_capped { " or more" } else { "" };
            output.line(format!(
                "would cancel {}{more} ({} waiting, {} running); {} ended already, {} not found",
                count.succeeded_count + count.requested_count,
                count.succeeded_count,
                count.requested_count,
                count.finished_count,
                count.failed_count,
            ))?;
            answer.sample_task_ids.iter().try_for_each(|id| output.line(id))
        }
    }
}
