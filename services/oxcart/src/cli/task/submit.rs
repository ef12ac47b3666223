//! `oxcart task submit` and `oxcart task execute`

use std::time::Duration;

use clap::Args;
use oxcart_proto::{
    convert::scalar::{to_duration, to_timestamp},
    pb::{
        common::v1::{ParentLink, RetryPolicy, TaskSpec, task_spec::Start},
        submission::v1::SubmitTaskRequest,
    },
};
use oxcart_types::{IdSource as _, SystemIds, Timestamp};

use super::wait;
use crate::cli::{
    CliError, Exit, Global,
    args::{self, Source},
    output::{Format, Output},
};

/// What describes a task.
#[derive(Debug, Args)]
pub(crate) struct SpecArgs {
    /// Name of the handler
    name: String,
    /// Input: JSON, @file, or - for stdin
    #[arg(long, short = 'p', value_parser = args::source, value_name = "JSON|@FILE|-")]
    payload: Option<Source>,
    /// Media type of an input that is not JSON
    #[arg(long, requires = "payload", value_name = "TYPE")]
    content_type: Option<String>,
    /// Queue
    #[arg(long, short = 'q', default_value = "default")]
    queue: String,
    /// Priority, 0 (last) to 9 (first)
    #[arg(long, value_parser = clap::value_parser!(i32).range(0..=9), allow_hyphen_values = true)]
    priority: Option<i32>,
    /// Tag for search; may be repeated
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Do not start before this has passed
    #[arg(long, value_parser = args::duration, conflicts_with = "at", value_name = "DURATION", allow_hyphen_values = true)]
    delay: Option<Duration>,
    /// Do not start before this instant
    #[arg(long, value_parser = args::instant, value_name = "TIME")]
    at: Option<Timestamp>,
    /// Do not start later than this after the earliest start
    #[arg(long, value_parser = args::duration, value_name = "DURATION")]
    start_timeout: Option<Duration>,
    /// Do not start at or after this instant
    #[arg(long, value_parser = args::instant, value_name = "TIME")]
    expires_at: Option<Timestamp>,
    /// Limit of one attempt
    #[arg(long, value_parser = args::duration, value_name = "DURATION", allow_hyphen_values = true)]
    timeout: Option<Duration>,
    /// Longest silence of the handler
    #[arg(long, value_parser = args::duration, value_name = "DURATION")]
    heartbeat_timeout: Option<Duration>,
    /// Limit over all attempts
    #[arg(long, value_parser = args::duration, value_name = "DURATION", allow_hyphen_values = true)]
    deadline: Option<Duration>,
    /// Attempts in all, the first included
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=1000), allow_hyphen_values = true)]
    max_attempts: Option<i32>,
    /// Task that started this one: cancelled with its tree
    #[arg(long, value_name = "ID")]
    parent: Option<String>,
    /// Idempotency key: one task per key
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
}

impl SpecArgs {
    fn spec(self) -> Result<TaskSpec, CliError> {
        let payload = self.payload.map(|source| source.payload(self.content_type.as_deref())).transpose()?;
        let start = match (self.delay, self.at) {
            (Some(delay), _) => Some(Start::Delay(to_duration(delay))),
            (None, Some(at)) => Some(Start::RunAt(to_timestamp(at))),
            (None, None) => None,
        };
        let retry_policy = self.max_attempts.map(|max_attempts| RetryPolicy { max_attempts, jitter: 0.1, ..Default::default() });
        Ok(TaskSpec {
            // Chosen here, so that a repeat after a lost answer finds the first try.
            task_id: if self.key.is_some() { String::new() } else { SystemIds.task_id().to_string() },
            task_name: self.name,
            queue: self.queue,
            payload,
            priority: self.priority,
            tags: self.tags,
            start,
            expires_at: self.expires_at.map(to_timestamp),
            start_timeout: self.start_timeout.map(to_duration),
            timeout: self.timeout.map(to_duration),
            heartbeat_timeout: self.heartbeat_timeout.map(to_duration),
            deadline: self.deadline.map(to_duration),
            retry_policy,
            parent: self.parent.map(|parent_task_id| ParentLink { parent_task_id }),
            idempotency_key: self.key.unwrap_or_default(),
            ..Default::default()
        })
    }
}

/// Arguments of `task submit`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  oxcart task submit email.send --payload @mail.json --queue mail --priority 7
  oxcart task submit sleep --payload '{\"ms\": 500}' --delay 10s --tag nap --wait")]
pub(crate) struct SubmitArgs {
    #[command(flatten)]
    spec: SpecArgs,
    /// Wait for the end and print the result
    #[arg(long)]
    wait: bool,
    /// Longest wait; without end when not given
    #[arg(long, value_parser = args::duration, requires = "wait", value_name = "DURATION")]
    max_wait: Option<Duration>,
}

/// Arguments of `task execute`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit code: 0 succeeded, 1 ended otherwise, 124 not ended in time.

Examples:
  oxcart task execute echo --payload '{\"hello\": \"world\"}'
  oxcart task execute http.request --payload @request.json --max-wait 30s")]
pub(crate) struct ExecuteArgs {
    #[command(flatten)]
    spec: SpecArgs,
    /// Longest wait; without end when not given
    #[arg(long, value_parser = args::duration, value_name = "DURATION")]
    max_wait: Option<Duration>,
}

impl ExecuteArgs {
    pub(super) async fn run(self, global: &Global, output: &mut Output) -> Result<Exit, CliError> {
        SubmitArgs { spec: self.spec, wait: true, max_wait: self.max_wait }.run(global, output).await
    }
}

impl SubmitArgs {
    pub(super) async fn run(self, global: &Global, output: &mut Output) -> Result<Exit, CliError> {
        let mut submission = global.submission().await?;
        let request = SubmitTaskRequest { task: Some(self.spec.spec()?), ..Default::default() };
        let answer = submission.submit_task(request).await?.into_inner();
        let id = answer.result.as_ref().map(|result| result.task_id.clone()).unwrap_or_default();
        if self.wait {
            return wait::until_end(submission, &id, self.max_wait, output).await;
        }
        match output.format() {
            Format::Table | Format::Name => output.line(id)?,
            Format::Json | Format::Jsonl => output.message("oxcart.submission.v1.SubmitTaskResponse", &answer)?,
        }
        Ok(Exit::Ok)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use oxcart_proto::pb::common::v1::payload::Content;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        submit: SubmitArgs,
    }

    fn parse(line: &[&str]) -> Result<TaskSpec, clap::Error> {
        let line = Line::try_parse_from(["submit"].iter().chain(line))?;
        Ok(line.submit.spec.spec().expect("a specification"))
    }

    #[test]
    fn flags_become_a_specification() {
        let spec = parse(&[
            "echo",
            "-p",
            "[1]",
            "-q",
            "mail",
            "--priority",
            "7",
            "--tag",
            "a",
            "--tag",
            "b",
            "--delay",
            "2s",
            "--max-attempts",
            "5",
        ])
        .expect("a line");
        assert_eq!((spec.task_name.as_str(), spec.queue.as_str(), spec.priority), ("echo", "mail", Some(7)));
        assert_eq!(spec.tags, ["a", "b"]);
        assert_eq!(spec.start, Some(Start::Delay(to_duration(Duration::from_secs(2)))));
        assert_eq!(spec.payload.and_then(|p| p.content), Some(Content::Json("[1]".to_owned())));
        assert_eq!(spec.retry_policy.map(|p| p.max_attempts), Some(5));
        assert!(!spec.task_id.is_empty());
    }

    #[test]
    fn bad_flags_are_refused() {
        for line in [
            &["echo", "--priority", "10"][..],
            &["echo", "--delay", "2s", "--at", "2026-12-24T18:00:00Z"],
            &["echo", "--delay", "soon"],
            &["echo", "--max-wait", "1s"],
            &[],
        ] {
            assert!(parse(line).is_err(), "{line:?}");
        }
    }

    #[test]
    fn a_key_leaves_the_id_to_the_service() {
        let spec = parse(&["echo", "--key", "k"]).expect("a line");
        assert_eq!((spec.task_id.as_str(), spec.idempotency_key.as_str()), ("", "k"));
    }
}
