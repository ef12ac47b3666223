//! The command line: one file per command.

mod args;
mod cancel_rule;
mod config;
mod connect;
mod demo;
mod dev;
mod error;
mod healthcheck;
mod migrate;
mod operation;
mod output;
mod queue;
mod serve;
mod task;
mod verify;
mod version;
mod worker;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

pub(crate) use self::error::{CliError, Exit};
use self::output::{Format, Output};
use crate::bench;

/// Oxcart, a distributed task platform: services, and the tools of their operators.
#[derive(Debug, Parser)]
#[command(
    name = "oxcart",
    version,
    arg_required_else_help = true,
    after_help = "\
Examples:
  oxcart dev
  oxcart task execute echo --payload '{\"hello\": \"world\"}'"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Address of a running system
    #[arg(
        long,
        global = true,
        env = "OXCART_ADDRESS",
        hide_env_values = true,
        default_value = "http://127.0.0.1:7600",
        value_name = "URL"
    )]
    address: String,
    /// Address of the monitor service, where it has one of its own; else that of --address
    #[arg(long, global = true, env = "OXCART_MONITOR_ADDRESS", hide_env_values = true, value_name = "URL")]
    monitor_address: Option<String>,
    /// How to print results
    #[arg(long, short = 'o', global = true, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start all services in one process, on a file or in memory
    Dev(dev::DevArgs),
    /// Start one service
    Serve(serve::ServeArgs),
    /// Bring the database schema up to date, or show where it is
    Migrate(migrate::MigrateArgs),
    /// Print or check the configuration
    Config(config::ConfigArgs),
    /// Submit, read and control tasks
    Task(task::TaskArgs),
    /// Cancel what matches, and what is submitted later
    CancelRule(cancel_rule::CancelRuleArgs),
    /// See and stop operations on many tasks
    Operation(operation::OperationArgs),
    /// See, pause and resume queues
    Queue(queue::QueueArgs),
    /// See workers
    Worker(worker::WorkerArgs),
    /// Compare the database with the queues, and repair what does not agree
    Verify(verify::VerifyArgs),
    /// Run real work through an embedded system and check the results
    Demo(demo::DemoArgs),
    /// Measure a running system
    Bench(Box<bench::Args>),
    /// Ask a running service whether it is healthy; for containers
    Healthcheck(healthcheck::HealthcheckArgs),
    /// Print the version of this program, or of a running system
    Version(version::VersionArgs),
}

impl Cli {
    /// Carries out the command, and tells on stderr what went wrong.
    pub(crate) async fn run(self) -> ExitCode {
        let mut output = Output::stdout(self.global.output);
        match Box::pin(self.command.run(&self.global, &mut output)).await {
            Ok(exit) => exit.into(),
            Err(error) => {
                error.tell();
                error.exit().into()
            }
        }
    }
}

impl Command {
    async fn run(self, global: &Global, output: &mut Output) -> Result<Exit, CliError> {
        match self {
            Self::Dev(args) => Box::pin(args.run()).await,
            Self::Serve(args) => Box::pin(args.run()).await,
            Self::Migrate(args) => args.run(output).await,
            Self::Config(args) => args.run(output),
            Self::Task(args) => args.run(global, output).await,
            Self::CancelRule(args) => args.run(global, output).await,
            Self::Operation(args) => args.run(global, output).await,
            Self::Queue(args) => args.run(global, output).await,
            Self::Worker(args) => args.run(global, output).await,
            Self::Verify(args) => args.run(global, output).await,
            Self::Demo(args) => args.run(output).await,
            Self::Bench(args) => {
                let json = output.format() != Format::Table;
                let (submission, monitor) = (global.channel().await?, global.monitor_channel(args.monitor.as_deref()).await?);
                let succeeded = bench::run(*args, submission, monitor, json).await?;
                Ok(if succeeded == ExitCode::SUCCESS { Exit::Ok } else { Exit::Failed })
            }
            Self::Healthcheck(args) => args.run(global, output).await,
            Self::Version(args) => args.run(global, output).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn arguments_fit_together() {
        Cli::command().debug_assert();
    }

    /// Every command that does something shows how it is used.
    #[test]
    fn every_help_ends_with_two_examples() {
        fn walk(command: &clap::Command, path: &str) {
            let mut leaf = true;
            for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
                leaf = false;
                walk(sub, &format!("{path} {}", sub.get_name()));
            }
            if leaf {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                let examples = help.lines().filter(|line| line.contains("oxcart ") && line.starts_with("  ")).count();
                assert!(examples >= 2, "{path} has {examples} examples");
            }
        }
        walk(&Cli::command(), "oxcart");
    }

    #[test]
    fn help_of_the_root() {
        insta::assert_snapshot!(Cli::command().render_help().to_string());
    }

    #[test]
    fn help_of_task_submit() {
        let mut root = Cli::command();
        let submit = root.find_subcommand_mut("task").and_then(|task| task.find_subcommand_mut("submit")).expect("a command");
        insta::assert_snapshot!(submit.render_long_help().to_string());
    }
}
