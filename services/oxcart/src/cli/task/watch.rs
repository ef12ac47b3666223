//! `oxcart task watch`

use clap::Args;
use oxcart_proto::pb::{
    common::v1::Event,
    monitor::v1::{WatchEventsRequest, watch_events_response::Kind},
};

use super::show;
use crate::cli::{
    CliError, Exit, Global,
    output::{Format, Output},
};

/// Arguments of `task watch`.
#[derive(Debug, Args)]
#[command(after_help = "\
A filter is comparisons joined by AND over type, task_id and queue.

Examples:
  oxcart task watch 'type = task.failed AND queue = mail'
  oxcart task watch --output jsonl")]
pub(crate) struct WatchArgs {
    /// Which events; all when not given
    #[arg(default_value = "")]
    filter: String,
    /// Go on after this cursor; from now when not given
    #[arg(long, default_value = "", hide_default_value = true, value_name = "CURSOR")]
    since: String,
}

impl WatchArgs {
    pub(super) async fn run(self, global: &Global, output: &mut Output) -> Result<Exit, CliError> {
        let request = WatchEventsRequest { filter: self.filter, after_cursor: self.since };
        let mut events = global.monitor().await?.watch_events(request).await?.into_inner();
        loop {
            let message = tokio::select! {
                message = events.message() => message?,
                // Ctrl-C is how a watch is meant to end.
                _ = tokio::signal::ctrl_c() => return Ok(Exit::Ok),
            };
            let Some(message) = message else { return Ok(Exit::Ok) };
            if matches!(output.format(), Format::Json | Format::Jsonl) {
                output.message("oxcart.monitor.v1.WatchEventsResponse", &message)?;
                continue;
            }
            match message.kind {
                Some(Kind::Events(batch)) => batch.events.iter().try_for_each(|event| output.line(line(event, output.format())))?,
                Some(Kind::Gap(gap)) => output.line(format!("... events are missing here: {}", gap.reason))?,
                Some(Kind::Progress(_)) | None => {}
            }
        }
    }
}

fn line(event: &Event, format: Format) -> String {
    if format == Format::Name {
        return event.subject_id.clone();
    }
    let error = event.error.as_ref().map(|error| format!("  {}: {}", error.kind, error.message)).unwrap_or_default();
    format!(
        "{}  {:<16}  {}  run {}  {}{error}",
        show::time(event.event_time),
        event.r#type,
        event.subject_id,
        event.run,
        event.queue
    )
}
