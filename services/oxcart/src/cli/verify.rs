//! `oxcart verify`

use std::time::Duration;

use clap::Args;
use oxcart_proto::{
    convert::scalar::to_duration,
    pb::submission::v1::{
        Disagreement, VerifyQueuesRequest, VerifyQueuesResponse, VerifySummary, verify_queues_response::Message,
        verify_service_client::VerifyServiceClient,
    },
};

use super::{
    CliError, Exit, Global, args,
    output::{Format, Output, to_json},
};

/// Arguments of `verify`.
#[derive(Debug, Args)]
#[command(after_help = "\
Looks at every entry of the queues and at every open task, twice: what is in motion settles, and what stays is told.
Exit code: 0 nothing is left in disagreement, 1 something is.

Examples:
  oxcart verify
  oxcart verify --repair --output json")]
pub(crate) struct VerifyArgs {
    /// Bring in order what is found, by the steps that the system takes by itself
    #[arg(long)]
    repair: bool,
    /// Time between the two looks
    #[arg(long, default_value = "5s", value_parser = args::duration, value_name = "DURATION")]
    settle: Duration,
    /// Look at all tasks of the database, not only from the mark below which none should be open
    #[arg(long)]
    full: bool,
}

impl VerifyArgs {
    pub(super) async fn run(self, global: &Global, output: &mut Output) -> Result<Exit, CliError> {
        let mut client = VerifyServiceClient::new(global.channel().await?);
        let request = VerifyQueuesRequest { repair: self.repair, settle: Some(to_duration(self.settle)), full: self.full };
        let mut answers = client.verify_queues(request).await?.into_inner();
        let (mut disagreements, mut summary) = (Vec::new(), VerifySummary::default());
        while let Some(answer) = answers.message().await? {
            if output.format() == Format::Jsonl {
                output.message("oxcart.submission.v1.VerifyQueuesResponse", &answer)?;
            }
            let VerifyQueuesResponse { message } = answer;
            match message {
                Some(Message::Disagreement(found)) => {
                    print(output, &found)?;
                    disagreements.push(found);
                }
                Some(Message::Summary(told)) => summary = told,
                None => {}
            }
        }
        match output.format() {
            Format::Table => output.line(in_words(&summary, self.repair))?,
            Format::Json => {
                let list = disagreements.iter().map(|found| to_json("oxcart.submission.v1.Disagreement", found));
                let value = serde_json::json!({
                    "disagreements": list.collect::<Result<Vec<_>, _>>()?,
                    "summary": to_json("oxcart.submission.v1.VerifySummary", &summary)?,
                });
                output.value(&value)?;
            }
            Format::Jsonl | Format::Name => {}
        }
        let left = summary.disagreement_count - summary.repaired_count;
        Ok(if left > 0 || summary.more { Exit::Failed } else { Exit::Ok })
    }
}

fn print(output: &mut Output, found: &Disagreement) -> Result<(), CliError> {
    match output.format() {
        Format::Table => {
            output.line(&found.message)?;
            if !found.repair.is_empty() {
                let what = if found.repair_failed { "not repaired" } else { "repaired" };
                output.line(format!("  {what}: {}", found.repair))?;
            }
            Ok(())
        }
        Format::Name => output.line(&found.task_id),
        Format::Json | Format::Jsonl => Ok(()),
    }
}

fn in_words(summary: &VerifySummary, repair: bool) -> String {
    let VerifySummary { entry_count, open_task_count, disagreement_count, repaired_count, settled_count, more } = summary;
    let looked = format!("looked at {entry_count} entries of the queues and {open_task_count} open tasks");
    let found = match disagreement_count {
        0 => "SQL and the queues agree".to_owned(),
        1 => "1 disagreement".to_owned(),
        count => format!("{count} disagreements"),
    };
    let repaired = if repair && *disagreement_count > 0 { format!(", {repaired_count} repaired") } else { String::new() };
    let settled = if *settled_count > 0 { format!(", {settled_count} settled between the looks") } else { String::new() };
    let more = if *more { "; there are more: run it again" } else { "" };
    format!("{looked}: {found}{repaired}{settled}{more}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_says_what_was_found() {
        let clean = VerifySummary { entry_count: 7, open_task_count: 2, ..VerifySummary::default() };
        assert_eq!(in_words(&clean, true), "looked at 7 entries of the queues and 2 open tasks: SQL and the queues agree");
        let found = VerifySummary { disagreement_count: 3, repaired_count: 2, settled_count: 1, more: true, ..clean };
        assert_eq!(
            in_words(&found, true),
            "looked at 7 entries of the queues and 2 open tasks: 3 disagreements, 2 repaired, 1 settled between the looks; \
             there are more: run it again"
        );
        assert!(!in_words(&found, false).contains("repaired"));
    }
}
