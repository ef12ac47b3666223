//! `oxcart cancel-rule …`

use std::time::Duration;

use chrono::TimeDelta;
use clap::{Args, Subcommand};
use oxcart_proto::{
    convert::scalar::{to_duration, to_timestamp},
    pb::{
        common::v1::{TaskSelector, task_selector::Selector},
        submission::v1::{
            CancelRule, CreateCancelRuleRequest, CreateCancelRuleResponse, DeleteCancelRuleRequest, ListCancelRulesRequest,
            ListCancelRulesResponse,
        },
    },
};
use oxcart_types::{Clock as _, SystemClock, Timestamp};

use super::{
    CliError, Exit, Global, args, operation,
    output::{Format, Output},
    task::show,
};

/// Rules that cancel what matches, and what is submitted until they end.
#[derive(Debug, Args)]
pub(crate) struct CancelRuleArgs {
    #[command(subcommand)]
    command: CancelRuleCommand,
}

#[derive(Debug, Subcommand)]
enum CancelRuleCommand {
    /// Make a rule
    Create(CreateArgs),
    /// List rules, newest first
    #[command(after_help = "\
Examples:
  oxcart cancel-rule list
  oxcart cancel-rule list --all --output json")]
    List {
        /// Those that have ended, too
        #[arg(long)]
        all: bool,
    },
    /// End rules; what they cancelled stays cancelled
    #[command(after_help = "\
Examples:
  oxcart cancel-rule delete 0190f3c5-7b1e-7cc3-98c4-dc0c0c07398f
  oxcart cancel-rule list --output name | xargs oxcart cancel-rule delete")]
    Delete {
        /// Ids of the rules
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
    },
}

/// Arguments of `cancel-rule create`.
#[derive(Debug, Args)]
#[command(after_help = "\
From the answer on no task that matches starts. What waits is CANCELLED, what runs is asked to stop, and what is submitted later
is accepted and CANCELLED at once. A filter compares queue, task_name, tags, task_id and create_time.

Examples:
  oxcart cancel-rule create --tag import-42 --for 6h --reason 'bad source data'
  oxcart cancel-rule create --filter 'queue = mail AND tags:campaign' --until 2026-12-24T18:00:00Z --dry-run")]
struct CreateArgs {
    /// Every task with this tag
    #[arg(long, value_name = "TAG", required_unless_present = "filter", conflicts_with = "filter")]
    tag: Option<String>,
    /// Every task that matches
    #[arg(long, value_name = "FILTER")]
    filter: Option<String>,
    /// The rule ends then
    #[arg(long, value_parser = args::instant, value_name = "TIME", required_unless_present = "lasting", conflicts_with = "lasting")]
    until: Option<Timestamp>,
    /// The rule ends after this
    #[arg(long = "for", id = "lasting", value_parser = args::duration, value_name = "DURATION")]
    lasting: Option<Duration>,
    /// Why, for people
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    /// Time for running handlers to stop by themselves; 30s when not given
    #[arg(long, value_parser = args::duration, value_name = "DURATION")]
    grace: Option<Duration>,
    /// Count what it would pick now, and name some of the tasks
    #[arg(long)]
    dry_run: bool,
    /// Wait until what was there before has been worked through
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
}

impl CancelRuleArgs {
    pub(super) async fn run(self, global: &Global, output: &mut Output) -> Result<Exit, CliError> {
        match self.command {
            CancelRuleCommand::Create(args) => args.run(global, output).await,
            CancelRuleCommand::List { all } => list(global, output, all).await,
            CancelRuleCommand::Delete { ids } => {
                let mut operations = global.operations().await?;
                for id in ids {
                    operations.delete_cancel_rule(DeleteCancelRuleRequest { cancel_rule_id: id.clone() }).await?;
                    match output.format() {
                        Format::Table => output.line(format!("{id} ended"))?,
                        Format::Name => output.line(id)?,
                        Format::Json | Format::Jsonl => output.value(&serde_json::json!({ "cancelRuleId": id }))?,
                    }
                }
                Ok(Exit::Ok)
            }
        }
    }
}

impl CreateArgs {
    async fn run(self, global: &Global, output: &mut Output) -> Result<Exit, CliError> {
        let selector = match (self.tag, self.filter) {
            (Some(tag), _) => Selector::Tag(tag),
            (None, filter) => Selector::Filter(filter.unwrap_or_default()),
        };
        let expires_at = match (self.until, self.lasting) {
            (Some(until), _) => until,
            (None, lasting) => after(lasting.unwrap_or_default())?,
        };
        let rule = CancelRule {
            selector: Some(TaskSelector { selector: Some(selector) }),
            expires_at: Some(to_timestamp(expires_at)),
            reason: self.reason,
            grace_period: self.grace.map(to_duration),
            ..Default::default()
        };
        let request =
            CreateCancelRuleRequest { cancel_rule: Some(rule), request_id: operation::new_request_id(), dry_run: self.dry_run };
        let mut operations = global.operations().await?;
        let answer = operations.create_cancel_rule(operation::by_user(request)).await?.into_inner();
        if self.dry_run {
            tell_count(output, &answer)?;
            return Ok(Exit::Ok);
        }
        let rule = answer.cancel_rule.unwrap_or_default();
        tell(output, &rule)?;
        if !self.wait {
            return Ok(Exit::Ok);
        }
        let request = oxcart_proto::pb::submission::v1::GetBatchOperationRequest { batch_operation_id: rule.batch_operation_id };
        let sweep = operations.get_batch_operation(request).await?.into_inner().batch_operation.unwrap_or_default();
        operation::until_end(operations, sweep, output).await
    }
}

/// The instant that comes after a time from now.
fn after(lasting: Duration) -> Result<Timestamp, CliError> {
    let lasting = TimeDelta::from_std(lasting).ok().and_then(|lasting| SystemClock.now().checked_add_signed(lasting));
    lasting.ok_or_else(|| CliError::Usage("--for is too long".to_owned()))
}

fn tell_count(output: &mut Output, answer: &CreateCancelRuleResponse) -> Result<(), CliError> {
    match output.format() {
        Format::Json | Format::Jsonl => output.message("oxcart.submission.v1.CreateCancelRuleResponse", answer),
        Format::Name => answer.sample_task_ids.iter().try_for_each(|id| output.line(id)),
        Format::Table => {
            let more = if answer.matched_count_capped { " or more" } else { "" };
            output.line(format!(
                "would cancel {}{more} now, and what is submitted until the end of the rule",
                answer.matched_count
            ))?;
            answer.sample_task_ids.iter().try_for_each(|id| output.line(id))
        }
    }
}

fn tell(output: &mut Output, rule: &CancelRule) -> Result<(), CliError> {
    match output.format() {
        Format::Json | Format::Jsonl => output.message("oxcart.submission.v1.CancelRule", rule),
        Format::Name => output.line(&rule.cancel_rule_id),
        Format::Table => output.line(format!(
            "{} holds until {}; operation {} cancels what is there",
            rule.cancel_rule_id,
            show::time(rule.expires_at),
            rule.batch_operation_id
        )),
    }
}

async fn list(global: &Global, output: &mut Output, all: bool) -> Result<Exit, CliError> {
    let mut operations = global.operations().await?;
    let (mut rules, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListCancelRulesRequest { include_ended: all, page_size: 1000, page_token };
        let page = operations.list_cancel_rules(request).await?.into_inner();
        rules.extend(page.cancel_rules);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    match output.format() {
        Format::Json => {
            let answer = ListCancelRulesResponse { cancel_rules: rules, next_page_token: String::new() };
            output.message("oxcart.submission.v1.ListCancelRulesResponse", &answer)?;
        }
        Format::Jsonl => rules.iter().try_for_each(|rule| output.message("oxcart.submission.v1.CancelRule", rule))?,
        Format::Name => rules.iter().try_for_each(|rule| output.line(&rule.cancel_rule_id))?,
        Format::Table => output
            .table(&["ID", "PICKS", "UNTIL", "CANCELLED", "BY", "SINCE", "ENDED", "REASON"], rules.iter().map(row).collect())?,
    }
    Ok(Exit::Ok)
}

fn row(rule: &CancelRule) -> Vec<String> {
    vec![
        rule.cancel_rule_id.clone(),
        operation::picks(rule.selector.as_ref()),
        show::time(rule.expires_at),
        rule.cancelled_count.to_string(),
        rule.actor.clone(),
        show::time(rule.create_time),
        show::time(rule.end_time),
        rule.reason.clone(),
    ]
}
