//! `oxcart operation …`

use std::time::Duration;

use clap::{Args, Subcommand};
use oxcart_proto::pb::{
    common::v1::{TaskSelector, task_selector::Selector},
    submission::v1::{
        BatchOperation, BatchOperationState, GetBatchOperationRequest, ListBatchOperationsRequest, ListBatchOperationsResponse,
        StopBatchOperationRequest, operation_service_client::OperationServiceClient,
    },
};
use oxcart_types::{IdSource as _, SystemIds};
use tonic::{Request, metadata::MetadataValue, transport::Channel};

use super::{
    CliError, Exit, Global,
    output::{Format, Output},
};
use crate::cli::task::show;

/// Metadata key of who asks.
const ACTOR: &str = "oxcart-actor";
/// Between two looks at an operation: the first, and the longest.
const LOOKS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Operations on many tasks.
#[derive(Debug, Args)]
pub(crate) struct OperationArgs {
    #[command(subcommand)]
    command: OperationCommand,
}

#[derive(Debug, Subcommand)]
enum OperationCommand {
    /// List operations, newest first
    #[command(after_help = "\
Examples:
  oxcart operation list
  oxcart operation list --limit 5 --output json")]
    List {
        /// Operations at most
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i32).range(1..=1000))]
        limit: i32,
    },
    /// Show an operation, or wait for its end
    #[command(after_help = "\
Examples:
  oxcart operation get 0190f3c5-7b1e-7cc3-98c4-dc0c0c07398f
  oxcart operation get 0190f3c5-7b1e-7cc3-98c4-dc0c0c07398f --wait")]
    Get {
        /// Id of the operation
        id: String,
        /// Wait for its end
        #[arg(long)]
        wait: bool,
    },
    /// Stop an operation; what it has done stays done
    #[command(after_help = "\
Examples:
  oxcart operation stop 0190f3c5-7b1e-7cc3-98c4-dc0c0c07398f
  oxcart operation stop 0190f3c5-7b1e-7cc3-98c4-dc0c0c07398f --output json")]
    Stop {
        /// Id of the operation
        id: String,
    },
}

impl OperationArgs {
    pub(super) async fn run(self, global: &Global, output: &mut Output) -> Result<Exit, CliError> {
        let mut operations = global.operations().await?;
        match self.command {
            OperationCommand::List { limit } => {
                let request = ListBatchOperationsRequest { page_size: limit, ..Default::default() };
                let page = operations.list_batch_operations(request).await?.into_inner();
                list(output, &page)?;
                Ok(Exit::Ok)
            }
            OperationCommand::Get { id, wait } => {
                let request = GetBatchOperationRequest { batch_operation_id: id };
                let found = operations.get_batch_operation(request).await?.into_inner().batch_operation.unwrap_or_default();
                if wait { until_end(operations, found, output).await } else { tell(output, &found) }
            }
            OperationCommand::Stop { id } => {
                let request = StopBatchOperationRequest { batch_operation_id: id };
                let stopped = operations.stop_batch_operation(request).await?.into_inner().batch_operation.unwrap_or_default();
                tell(output, &stopped)
            }
        }
    }
}

/// A request that says who asks, for the audit.
pub(super) fn by_user<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).ok();
    if let Some(user) = user.and_then(|user| MetadataValue::try_from(user).ok()) {
        request.metadata_mut().insert(ACTOR, user);
    }
    request
}

/// A name for a call, so that a repeat after a lost answer finds the first try.
pub(super) fn new_request_id() -> String {
    SystemIds.task_id().to_string()
}

/// Waits for the end of an operation and prints it; fails when it was stopped, or when tasks were not found.
pub(super) async fn until_end(
    mut operations: OperationServiceClient<Channel>,
    mut operation: BatchOperation,
    output: &mut Output,
) -> Result<Exit, CliError> {
    let mut pause = LOOKS.0;
    while operation.state() == BatchOperationState::Running {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LOOKS.1);
        let request = GetBatchOperationRequest { batch_operation_id: operation.batch_operation_id.clone() };
        operation = operations.get_batch_operation(request).await?.into_inner().batch_operation.unwrap_or_default();
    }
    tell(output, &operation)?;
    let whole = operation.state() == BatchOperationState::Completed && operation.failed_count == 0;
    Ok(if whole { Exit::Ok } else { Exit::Failed })
}

/// Prints an operation.
pub(super) fn tell(output: &mut Output, operation: &BatchOperation) -> Result<Exit, CliError> {
    match output.format() {
        Format::Json | Format::Jsonl => output.message("oxcart.submission.v1.BatchOperation", operation)?,
        Format::Name => output.line(&operation.batch_operation_id)?,
        Format::Table => {
            output.line(format!(
                "{} {}: {} matched, {} cancelled, {} asked to stop, {} ended already, {} failed",
                operation.batch_operation_id,
                state(operation.state()),
                operation.matched_count,
                operation.succeeded_count,
                operation.requested_count,
                operation.finished_count,
                operation.failed_count,
            ))?;
            operation.failure_samples.iter().try_for_each(|failure| output.line(failure))?;
        }
    }
    Ok(Exit::Ok)
}

fn list(output: &mut Output, page: &ListBatchOperationsResponse) -> Result<(), CliError> {
    let operations = &page.batch_operations;
    match output.format() {
        Format::Json => output.message("oxcart.submission.v1.ListBatchOperationsResponse", page),
        Format::Jsonl => operations.iter().try_for_each(|found| output.message("oxcart.submission.v1.BatchOperation", found)),
        Format::Name => operations.iter().try_for_each(|found| output.line(&found.batch_operation_id)),
        Format::Table => output.table(
            &["ID", "STATE", "PICKS", "MATCHED", "CANCELLED", "ASKED", "ENDED", "FAILED", "BY", "SINCE", "REASON"],
            operations.iter().map(row).collect(),
        ),
    }
}

fn row(operation: &BatchOperation) -> Vec<String> {
    let spec = operation.spec.clone().unwrap_or_default();
    vec![
        operation.batch_operation_id.clone(),
        state(operation.state()).to_owned(),
        picks(spec.selector.as_ref()),
        operation.matched_count.to_string(),
        operation.succeeded_count.to_string(),
        operation.requested_count.to_string(),
        operation.finished_count.to_string(),
        operation.failed_count.to_string(),
        operation.actor.clone(),
        show::time(operation.create_time),
        spec.reason,
    ]
}

/// What a selector picks, in short.
pub(super) fn picks(selector: Option<&TaskSelector>) -> String {
    match selector.and_then(|selector| selector.selector.as_ref()) {
        Some(Selector::Ids(list)) => format!("{} ids", list.task_ids.len()),
        Some(Selector::Tag(tag)) => format!("tag {tag}"),
        Some(Selector::Filter(filter)) => filter.clone(),
        Some(Selector::TreeRootTaskId(root)) => format!("tree {root}"),
        None => String::new(),
    }
}

const fn state(state: BatchOperationState) -> &'static str {
    match state {
        BatchOperationState::Unspecified => "UNKNOWN",
        BatchOperationState::Running => "RUNNING",
        BatchOperationState::Completed => "COMPLETED",
        BatchOperationState::Stopped => "STOPPED",
    }
}
