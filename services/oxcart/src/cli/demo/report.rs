//! What the demo found.

use std::{path::Path, time::Duration};

use hdrhistogram::Histogram;
use oxcart_proto::{
    convert::scalar,
    pb::common::v1::{Run, RunEnd, Task},
};

use super::{
    check::result,
    run::{Job, Outcome},
};
use crate::cli::{CliError, output::Output};

/// Files shown of all.
const SHOWN_FILES: usize = 10;
/// Mistakes shown of all.
const SHOWN_MISTAKES: usize = 20;

/// Prints the tables.
pub(super) fn print(
    output: &mut Output,
    root: &Path,
    outcomes: &[Outcome],
    wrong: &[String],
    took: Duration,
) -> Result<(), CliError> {
    output.line("")?;
    output.table(&["LINES", "WORDS", "BYTES", "SHA-256", "FILE"], largest(root, outcomes))?;
    output.line("")?;
    let headers = ["HANDLER", "TASKS", "RETRIED", "P50 MS", "P95 MS", "P99 MS", "MAX MS"];
    output.table(&headers, Job::ALL.map(|job| Summary::of(job, outcomes).row(job)).to_vec())?;
    output.line("")?;
    if let Some(retried) = outcomes.iter().find(|outcome| outcome.task.runs.len() > 1) {
        output.line(format!("retried as told: {}", story(&retried.task.runs)))?;
    }
    #[expect(clippy::cast_precision_loss, reason = "a demo has far fewer than 2^52 tasks")]
    let rate = outcomes.len() as f64 / took.as_secs_f64().max(1e-9);
    output.line(format!("{} tasks in {:.2} s: {rate:.0} a second, reading files included", outcomes.len(), took.as_secs_f64()))?;
    for mistake in wrong.iter().take(SHOWN_MISTAKES) {
        output.line(format!("WRONG {mistake}"))?;
    }
    let right = outcomes.len() - wrong.len();
    output.line(format!("{right} of {} results are those of an independent count", outcomes.len()))
}

/// All of it for programs.
pub(super) fn json(root: &Path, outcomes: &[Outcome], skipped: usize, wrong: &[String], took: Duration) -> serde_json::Value {
    let handlers = Job::ALL.map(|job| {
        let Summary { tasks, retried, latencies } = Summary::of(job, outcomes);
        let ms = |quantile| micros_to_ms(latencies.value_at_quantile(quantile));
        serde_json::json!({
            "handler": job.handler(),
            "tasks": tasks,
            "retried": retried,
            "p50_ms": ms(0.5),
            "p95_ms": ms(0.95),
            "p99_ms": ms(0.99),
            "max_ms": micros_to_ms(latencies.max()),
        })
    });
    serde_json::json!({
        "root": root,
        "files": outcomes.len() / Job::ALL.len(),
        "files_left_out": skipped,
        "tasks": outcomes.len(),
        "seconds": took.as_secs_f64(),
        "right": outcomes.len() - wrong.len(),
        "wrong": wrong,
        "handlers": handlers,
    })
}

/// Says how to go on.
pub(super) fn further(output: &mut Output, db: Option<&Path>) -> Result<(), CliError> {
    output.line("")?;
    output.line("look further:")?;
    match db {
        None => output.line("  oxcart demo --db demo.db              # keeps the tasks, then:")?,
        Some(_) => output.line("  # the tasks are kept:")?,
    }
    let db = db.unwrap_or(Path::new("demo.db")).display();
    output.line(format!("  oxcart dev --db {db}"))?;
    output.line("  oxcart task list 'tags:demo AND task_name = file.checksum'")?;
    output.line("  oxcart task watch                     # while tasks run")
}

/// The largest files, with what was found about them.
fn largest(root: &Path, outcomes: &[Outcome]) -> Vec<Vec<String>> {
    let mut rows: Vec<_> = outcomes
        .chunks_exact(Job::ALL.len())
        .filter_map(|jobs| {
            let of = |job| jobs.iter().find(|outcome| outcome.job == job).and_then(|outcome| result(&outcome.task));
            let (sum, count) = (of(Job::Checksum)?, of(Job::Wordcount)?);
            let file = &jobs.first()?.file;
            let number = |name: &str| count.get(name).and_then(serde_json::Value::as_u64);
            let sha256 = sum.get("sha256")?.as_str()?.get(..16)?.to_owned();
            let name = file.strip_prefix(root).unwrap_or(file).display().to_string();
            Some((number("lines")?, number("words")?, number("bytes")?, sha256, name))
        })
        .collect();
    rows.sort_by(|left, right| right.2.cmp(&left.2).then_with(|| left.4.cmp(&right.4)));
    rows.truncate(SHOWN_FILES);
    rows.into_iter()
        .map(|(lines, words, bytes, sha256, name)| vec![lines.to_string(), words.to_string(), bytes.to_string(), sha256, name])
        .collect()
}

/// All tasks of a job; latencies count from submission to the end.
struct Summary {
    tasks: usize,
    retried: usize,
    /// Microseconds.
    latencies: Histogram<u64>,
}

impl Summary {
    fn of(job: Job, outcomes: &[Outcome]) -> Self {
        let tasks = || outcomes.iter().filter(|outcome| outcome.job == job).map(|outcome| &outcome.task);
        let mut latencies = histogram();
        for latency in tasks().filter_map(latency_micros) {
            // It grows as needed; an hour is far from what it cannot hold.
            let _ = latencies.record(latency);
        }
        Self { tasks: tasks().count(), retried: tasks().filter(|task| task.attempt > 1).count(), latencies }
    }

    fn row(&self, job: Job) -> Vec<String> {
        let quantiles = [0.5, 0.95, 0.99].map(|quantile| self.latencies.value_at_quantile(quantile));
        let latencies = quantiles.into_iter().chain([self.latencies.max()]).map(|micros| format!("{:.1}", micros_to_ms(micros)));
        [job.handler().to_owned(), self.tasks.to_string(), self.retried.to_string()].into_iter().chain(latencies).collect()
    }
}

/// Two digits are as much as a demo can tell.
#[expect(clippy::expect_used, reason = "fails only for a number of digits that is out of bounds")]
fn histogram() -> Histogram<u64> {
    Histogram::new(2).expect("two digits are in bounds")
}

#[expect(clippy::cast_precision_loss, reason = "a latency in microseconds is far below 2^52")]
fn micros_to_ms(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

fn latency_micros(task: &Task) -> Option<u64> {
    let time = |time: Option<prost_types::Timestamp>| time.and_then(|time| scalar::timestamp(time).ok());
    let latency = time(task.end_time)?.signed_duration_since(time(task.create_time)?);
    u64::try_from(latency.num_microseconds()?).ok()
}

fn story(runs: &[Run]) -> String {
    let told = runs.iter().map(|run| {
        let end = match run.end() {
            RunEnd::Unspecified => "open",
            end => end.as_str_name().trim_start_matches("RUN_END_"),
        };
        let error = run.error.as_ref().map(|error| format!(" ({})", error.message)).unwrap_or_default();
        format!("run {} {end}{error}", run.run)
    });
    told.collect::<Vec<_>>().join(", ")
}
