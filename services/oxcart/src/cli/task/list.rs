//! `oxcart task list`

use clap::Args;
use oxcart_proto::pb::{
    common::v1::Task,
    monitor::v1::{ListTasksRequest, ListTasksResponse},
};

use super::show;
use crate::cli::{
    CliError, Exit, Global,
    output::{Format, Output},
};

/// Arguments of `task list`.
#[derive(Debug, Args)]
#[command(after_help = "\
A filter is comparisons joined by AND over state, queue, task_name, tags, task_id, worker_id, error_kind and create_time.

Examples:
  oxcart task list 'state = FAILED AND create_time > now-1h'
  oxcart task list 'queue = mail AND tags:vip' --limit 500 --output jsonl")]
pub(crate) struct ListArgs {
    /// Which tasks; all when not given
    #[arg(default_value = "")]
    filter: String,
    /// Tasks at most; 0 for all
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// Go on where an earlier list ended
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TOKEN")]
    page_token: String,
}

impl ListArgs {
    pub(super) async fn run(self, global: &Global, output: &mut Output) -> Result<Exit, CliError> {
        let mut monitor = global.monitor().await?;
        let mut page_token = self.page_token;
        let mut tasks = Vec::new();
        loop {
            let left = if self.limit == 0 { 1000 } else { self.limit - tasks.len() };
            let page_size = i32::try_from(left.min(1000)).unwrap_or(1000);
            let request = ListTasksRequest { filter: self.filter.clone(), page_size, page_token };
            let page = monitor.list_tasks(request).await?.into_inner();
            page_token = page.next_page_token;
            match output.format() {
                // Line by line, so that a list of everything needs no memory here.
                Format::Jsonl => {
                    for task in &page.tasks {
                        output.message("oxcart.common.v1.Task", task)?;
                    }
                    tasks.extend(page.tasks.into_iter().map(|_| Task::default()));
                }
                Format::Table | Format::Json | Format::Name => tasks.extend(page.tasks),
            }
            if page_token.is_empty() || (self.limit > 0 && tasks.len() >= self.limit) {
                break;
            }
        }
        print(output, tasks, page_token)?;
        Ok(Exit::Ok)
    }
}

fn print(output: &mut Output, tasks: Vec<Task>, next_page_token: String) -> Result<(), CliError> {
    match output.format() {
        Format::Jsonl => Ok(()),
        Format::Json => output.message("oxcart.monitor.v1.ListTasksResponse", &ListTasksResponse { tasks, next_page_token }),
        Format::Name => tasks.iter().filter_map(|task| task.spec.as_ref()).try_for_each(|spec| output.line(&spec.task_id)),
        Format::Table => {
            output.table(&["ID", "NAME", "QUEUE", "STATE", "ATTEMPT", "CREATED", "ENDED"], tasks.iter().map(row).collect())?;
            if !next_page_token.is_empty() {
                output.line(format!("...more: --page-token {next_page_token}, or --limit 0 for all"))?;
            }
            Ok(())
        }
    }
}

fn row(task: &Task) -> Vec<String> {
    let spec = task.spec.clone().unwrap_or_default();
    vec![
        spec.task_id,
        spec.task_name,
        spec.queue,
        show::state(task.state()).to_owned(),
        task.attempt.to_string(),
        show::time(task.create_time),
        show::time(task.end_time),
    ]
}
