//! `oxcart bench`: puts load on a running system and says what it took.
//!
//! Every figure in the README comes from here. The load goes through the public contracts only; times are taken at this
//! client, or read from the tasks themselves, whose clock is this machine's when everything runs on it.

mod flow;
mod latency;
mod probe;
mod report;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result};
use oxcart_proto::pb::{
    common::v1::{Payload, TaskSpec, payload::Content},
    monitor::v1::monitor_service_client::MonitorServiceClient,
    submission::v1::submission_service_client::SubmissionServiceClient,
};
use tonic::transport::Channel;

use self::{probe::Probes, report::Report};

/// Puts load on a running system and measures it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  oxcart bench flow --tasks 100000 --pid worker=4711 --pid mariadbd=4712
  oxcart bench latency --rate 100 --duration 30s -o json")]
pub(crate) struct Args {
    /// What to measure.
    #[arg(value_enum)]
    mode: Mode,
    /// Tasks to submit (submit and flow).
    #[arg(long, default_value_t = 100_000)]
    tasks: usize,
    /// Bytes of each task's payload, JSON quotes included.
    #[arg(long, default_value_t = 200)]
    payload_bytes: usize,
    /// Tasks of one message, 1 to 1000.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..=1000))]
    batch: u16,
    /// Messages that may be unanswered at once.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    in_flight: u16,
    /// Tasks a second, started on schedule however slow the answers are (latency).
    #[arg(long, default_value_t = 100.0)]
    rate: f64,
    /// How long to keep that rate (latency).
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Handler of the tasks.
    #[arg(long, default_value = "echo")]
    name: String,
    /// Queue of the tasks. Nothing else should use it meanwhile.
    #[arg(long, default_value = "default")]
    queue: String,
    /// Monitor, when it has an address of its own.
    #[arg(long)]
    pub(crate) monitor: Option<String>,
    /// A process whose CPU time and memory are to be reported, as name=pid; may be repeated.
    #[arg(long = "pid", value_parser = probe::parse_process)]
    processes: Vec<(String, u32)>,
    /// MySQL whose statements are to be counted, as mysql://…
    #[arg(long)]
    mysql_url: Option<String>,
    /// Redis whose calls are to be counted, as host:port.
    #[arg(long)]
    redis: Option<String>,
    /// Give up when nothing has moved for so long.
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    patience: Duration,
    /// Also write the report, as JSON, to this file.
    #[arg(long)]
    report: Option<PathBuf>,
}

/// What to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    /// Bulk submission alone: ends when the last batch is answered.
    Submit,
    /// Draining alone: waits until the queue moves, and measures until it is empty. Fill it first, then start a worker.
    Drain,
    /// Submission and execution together: ends when every task has ended, and checks each.
    Flow,
    /// Single tasks at a fixed rate: time of the submit call, until the start, until the result is seen.
    Latency,
}

/// A running system and what to send it.
struct Bench {
    args: Args,
    submission: SubmissionServiceClient<Channel>,
    monitor: MonitorServiceClient<Channel>,
}

impl Bench {
    fn task(&self) -> TaskSpec {
        let text = "x".repeat(self.args.payload_bytes.saturating_sub(2));
        let payload = Payload { content: Some(Content::Json(format!("\"{text}\""))), ..Default::default() };
        TaskSpec { task_name: self.args.name.clone(), queue: self.args.queue.clone(), payload: Some(payload), ..Default::default() }
    }
}

/// Runs the bench against the system behind the two channels and prints the report.
///
/// The exit code is a failure when a task did not succeed.
pub(crate) async fn run(args: Args, submission: Channel, monitor: Channel, json: bool) -> Result<ExitCode> {
    let bench = Bench { submission: SubmissionServiceClient::new(submission), monitor: MonitorServiceClient::new(monitor), args };
    let probes = Probes::open(&bench.args).await?;
    let before = probes.read().await?;
    let mut report = match bench.args.mode {
        Mode::Submit => flow::submit(&bench).await?.0,
        Mode::Drain => flow::drain(&bench).await?,
        Mode::Flow => flow::flow(&bench).await?,
        Mode::Latency => latency::measure(&bench).await?,
    };
    report.costs = probes.read().await?.since(&before, report.tasks);
    if let Some(path) = &bench.args.report {
        std::fs::write(path, serde_json::to_string_pretty(&report)?).with_context(|| format!("cannot write {}", path.display()))?;
    }
    report.print(json)?;
    Ok(if report.not_succeeded == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// An empty report of this bench.
fn report(bench: &Bench, tasks: usize) -> Report {
    Report {
        mode: format!("{:?}", bench.args.mode).to_lowercase(),
        tasks,
        payload_bytes: bench.args.payload_bytes,
        ..Report::default()
    }
}
