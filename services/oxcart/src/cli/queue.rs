//! `oxcart queue …`

use clap::{Args, Subcommand};
use oxcart_proto::{
    convert::scalar::duration_or_zero,
    pb::monitor::v1::{ListQueuesRequest, ListQueuesResponse, QueueStats},
};

use super::{
    CliError, Exit, Global,
    output::{Format, Output},
};

/// Queues.
#[derive(Debug, Args)]
pub(crate) struct QueueArgs {
    #[command(subcommand)]
    command: QueueCommand,
}

#[derive(Debug, Subcommand)]
enum QueueCommand {
    /// List queues with their live numbers
    #[command(after_help = "\
PENDING waits in SQL, DELAYED for its time, LEASED is with a worker, DEAD was given out too often.

Examples:
  oxcart queue list
  oxcart queue list --output json")]
    List,
}

impl QueueArgs {
    pub(super) async fn run(self, global: &Global, output: &mut Output) -> Result<Exit, CliError> {
        let QueueCommand::List = self.command;
        let queues = all(global).await?;
        match output.format() {
            Format::Table => output.table(
                &["QUEUE", "READY", "DELAYED", "LEASED", "PENDING", "DEAD", "OLDEST", "WORKERS", "SLOTS"],
                queues.iter().map(row).collect(),
            )?,
            Format::Name => queues.iter().try_for_each(|queue| output.line(&queue.queue))?,
            Format::Jsonl => queues.iter().try_for_each(|queue| output.message("oxcart.monitor.v1.QueueStats", queue))?,
            Format::Json => {
                let answer = ListQueuesResponse { queues, next_page_token: String::new() };
                output.message("oxcart.monitor.v1.ListQueuesResponse", &answer)?;
            }
        }
        Ok(Exit::Ok)
    }
}

async fn all(global: &Global) -> Result<Vec<QueueStats>, CliError> {
    let mut monitor = global.monitor().await?;
    let (mut queues, mut page_token) = (Vec::new(), String::new());
    loop {
        let page = monitor.list_queues(ListQueuesRequest { page_size: 1000, page_token }).await?.into_inner();
        queues.extend(page.queues);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(queues);
        }
    }
}

fn row(queue: &QueueStats) -> Vec<String> {
    let oldest = queue.oldest_ready_age.map(|age| format!("{:.1}s", duration_or_zero(Some(age)).as_secs_f64()));
    vec![
        queue.queue.clone(),
        queue.ready_count.to_string(),
        queue.delayed_count.to_string(),
        queue.leased_count.to_string(),
        queue.pending_count.to_string(),
        queue.quarantined_count.to_string(),
        oldest.unwrap_or_else(|| "-".to_owned()),
        queue.worker_count.to_string(),
        queue.slot_count.to_string(),
    ]
}
