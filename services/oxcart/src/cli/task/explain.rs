//! `oxcart task explain`

use clap::Args;
use oxcart_proto::{
    convert::scalar,
    pb::monitor::v1::{Blocker, BlockerCode, ExplainTaskRequest},
};

use super::show;
use crate::cli::{
    CliError, Exit, Global,
    output::{Format, Output},
};

/// Arguments of `task explain`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  oxcart task explain 0190f3c5-7b1e-7cc3-98c4-dc0c0c07398f
  oxcart task explain 0190f3c5-7b1e-7cc3-98c4-dc0c0c07398f --output json")]
pub(crate) struct ExplainArgs {
    /// Id of the task
    id: String,
}

impl ExplainArgs {
    pub(super) async fn run(self, global: &Global, output: &mut Output) -> Result<Exit, CliError> {
        let request = ExplainTaskRequest { task_id: self.id.clone() };
        let answer = global.monitor().await?.explain_task(request).await?.into_inner();
        match output.format() {
            Format::Table => {
                output.line(format!("{} {}", self.id, show::state(answer.task_state())))?;
                lines(&answer.blockers).iter().try_for_each(|line| output.line(line))?;
            }
            Format::Name => answer.blockers.iter().try_for_each(|blocker| output.line(name(blocker.code())))?,
            Format::Json | Format::Jsonl => output.message("oxcart.monitor.v1.ExplainTaskResponse", &answer)?,
        }
        Ok(Exit::Ok)
    }
}

fn lines(blockers: &[Blocker]) -> Vec<String> {
    if blockers.is_empty() {
        return vec!["  nothing holds it back: a worker should start it at any moment".to_owned()];
    }
    let line = |blocker: &Blocker| {
        let clears = blocker.clears_at.and_then(|at| scalar::timestamp(at).ok());
        let clears = clears.map(|at| format!(" [ends by itself at {}]", at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)));
        format!("  {}: {}{}", name(blocker.code()), blocker.message, clears.unwrap_or_default())
    };
    blockers.iter().map(line).collect()
}

fn name(code: BlockerCode) -> &'static str {
    code.as_str_name().trim_start_matches("BLOCKER_CODE_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blockers_are_told_one_a_line() {
        assert!(lines(&[])[0].contains("nothing holds it back"));
        let blocker = |code: BlockerCode, clears| Blocker {
            code: code.into(),
            message: "because".to_owned(),
            clears_at: clears,
            ..Blocker::default()
        };
        let told =
            lines(&[blocker(BlockerCode::Delayed, Some(prost_types::Timestamp::default())), blocker(BlockerCode::NoWorker, None)]);
        assert_eq!(told, ["  DELAYED: because [ends by itself at 1970-01-01T00:00:00Z]", "  NO_WORKER: because"]);
    }
}
