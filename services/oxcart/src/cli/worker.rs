//! `oxcart worker …`

use clap::{Args, Subcommand};
use oxcart_proto::{
    convert::scalar,
    pb::{
        common::v1::WorkerInfo,
        monitor::v1::{ListWorkersRequest, ListWorkersResponse},
    },
};

use super::{
    CliError, Exit, Global,
    output::{Format, Output},
};

/// Workers.
#[derive(Debug, Args)]
pub(crate) struct WorkerArgs {
    #[command(subcommand)]
    command: WorkerCommand,
}

#[derive(Debug, Subcommand)]
enum WorkerCommand {
    /// List workers, live and recently lost
    #[command(after_help = "\
Examples:
  oxcart worker list
  oxcart worker list --output jsonl")]
    List,
}

impl WorkerArgs {
    pub(super) async fn run(self, global: &Global, output: &mut Output) -> Result<Exit, CliError> {
        let WorkerCommand::List = self.command;
        let workers = all(global).await?;
        match output.format() {
            Format::Table => {
                let headers = ["ID", "NAME", "STATE", "SLOTS", "QUEUES", "HANDLERS", "SEEN"];
                output.table(&headers, workers.iter().map(row).collect())?;
            }
            Format::Name => workers.iter().try_for_each(|worker| output.line(&worker.worker_id))?,
            Format::Jsonl => workers.iter().try_for_each(|worker| output.message("oxcart.common.v1.WorkerInfo", worker))?,
            Format::Json => {
                let answer = ListWorkersResponse { workers, next_page_token: String::new() };
                output.message("oxcart.monitor.v1.ListWorkersResponse", &answer)?;
            }
        }
        Ok(Exit::Ok)
    }
}

async fn all(global: &Global) -> Result<Vec<WorkerInfo>, CliError> {
    let mut monitor = global.monitor().await?;
    let (mut workers, mut page_token) = (Vec::new(), String::new());
    loop {
        let page = monitor.list_workers(ListWorkersRequest { page_size: 1000, page_token }).await?.into_inner();
        workers.extend(page.workers);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(workers);
        }
    }
}

fn row(worker: &WorkerInfo) -> Vec<String> {
    let names = |names: Vec<&str>| names.join(",");
    let seen = worker.heartbeat_time.and_then(|time| scalar::timestamp(time).ok());
    vec![
        worker.worker_id.clone(),
        worker.display_name.clone(),
        worker.state().as_str_name().trim_start_matches("WORKER_STATE_").to_owned(),
        format!("{}/{}", worker.used_slots, worker.slots),
        names(worker.queues.iter().map(|queue| queue.queue.as_str()).collect()),
        names(worker.task_names.iter().map(String::as_str).collect()),
        seen.map_or_else(|| "-".to_owned(), |time| time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)),
    ]
}
