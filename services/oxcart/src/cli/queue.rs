//! `oxcart queue …`

use clap::{Args, Subcommand};
use oxcart_proto::{
    convert::scalar::{self, duration_or_zero},
    pb::{
        monitor::v1::{ListQueuesRequest, ListQueuesResponse, QueueStats},
        submission::v1::{GetQueueRequest, PauseQueueRequest, Queue, ResumeQueueRequest},
    },
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
    /// Hand out nothing from a queue until it is resumed; what runs goes on
    #[command(after_help = "\
Examples:
  oxcart queue pause mail --reason 'the mail server is down'
  oxcart queue pause mail --by anna --output json")]
    Pause {
        /// Name of the queue; it may be one that is not used yet
        queue: String,
        /// Why, for people
        #[arg(long, default_value = "", hide_default_value = true)]
        reason: String,
        /// Who, for people
        #[arg(long, env = "USER", hide_env_values = true, default_value = "", hide_default_value = true, value_name = "NAME")]
        by: String,
    },
    /// Hand out again
    #[command(after_help = "\
Examples:
  oxcart queue resume mail
  oxcart queue resume mail --output json")]
    Resume {
        /// Name of the queue
        queue: String,
    },
    /// Show a queue and who paused it
    #[command(after_help = "\
Examples:
  oxcart queue get mail
  oxcart queue get mail --output json")]
    Get {
        /// Name of the queue
        queue: String,
    },
}

impl QueueArgs {
    pub(super) async fn run(self, global: &Global, output: &mut Output) -> Result<Exit, CliError> {
        let queue = match self.command {
            QueueCommand::List => return list(global, output).await,
            QueueCommand::Pause { queue, reason, by } => {
                let request = PauseQueueRequest { queue, reason, actor: by };
                global.queues().await?.pause_queue(request).await?.into_inner().queue
            }
            QueueCommand::Resume { queue } => {
                global.queues().await?.resume_queue(ResumeQueueRequest { queue }).await?.into_inner().queue
            }
            QueueCommand::Get { queue } => global.queues().await?.get_queue(GetQueueRequest { queue }).await?.into_inner().queue,
        };
        let queue = queue.unwrap_or_default();
        match output.format() {
            Format::Table => output.line(in_words(&queue))?,
            Format::Name => output.line(&queue.queue)?,
            Format::Json | Format::Jsonl => output.message("oxcart.submission.v1.Queue", &queue)?,
        }
        Ok(Exit::Ok)
    }
}

/// One sentence on a queue.
fn in_words(queue: &Queue) -> String {
    let Some(pause) = &queue.pause else { return format!("{} is active", queue.queue) };
    let part = |words: &str, text: &str| if text.is_empty() { String::new() } else { format!("{words}{text}") };
    let since = pause.pause_time.and_then(|time| scalar::timestamp(time).ok());
    let since = since.map(|time| time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)).unwrap_or_default();
    let (since, by, reason) = (part(" since ", &since), part(" by ", &pause.actor), part(": ", &pause.reason));
    format!("{} is paused{since}{by}{reason}", queue.queue)
}

async fn list(global: &Global, output: &mut Output) -> Result<Exit, CliError> {
    let queues = all(global).await?;
    match output.format() {
        Format::Table => output.table(
            &["QUEUE", "STATE", "READY", "DELAYED", "LEASED", "PENDING", "DEAD", "OLDEST", "WORKERS", "SLOTS"],
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
        if queue.paused { "paused" } else { "active" }.to_owned(),
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

#[cfg(test)]
mod tests {
    use oxcart_proto::pb::submission::v1::PauseInfo;

    use super::*;

    #[test]
    fn a_pause_is_told_with_what_is_known_of_it() {
        let pause_time = Some(prost_types::Timestamp::default());
        let pause = PauseInfo { actor: "anna".to_owned(), reason: "server down".to_owned(), pause_time };
        let queue = |pause| Queue { queue: "mail".to_owned(), pause, ..Queue::default() };
        assert_eq!(in_words(&queue(Some(pause))), "mail is paused since 1970-01-01T00:00:00Z by anna: server down");
        assert_eq!(in_words(&queue(Some(PauseInfo::default()))), "mail is paused");
        assert_eq!(in_words(&queue(None)), "mail is active");
    }
}
