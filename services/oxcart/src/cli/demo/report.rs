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
    output.table(&headers, Job::ALL.map(|job| summary(job, outcomes)).to_vec())?;
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

/// One line on all tasks of a job: latencies count from submission to the end.
fn summary(job: Job, outcomes: &[Outcome]) -> Vec<String> {
    let tasks: Vec<_> = outcomes.iter().filter(|outcome| outcome.job == job).map(|outcome| &outcome.task).collect();
    let retried = tasks.iter().filter(|task| task.attempt > 1).count();
    let mut row = vec![job.handler().to_owned(), tasks.len().to_string(), retried.to_string()];
    // Three digits are more than a demo can tell.
    let histogram = Histogram::<u64>::new(3).ok().map(|mut histogram| {
        for latency in tasks.iter().filter_map(|task| latency_micros(task)) {
            // It grows as needed; an hour is far from what it cannot hold.
            let _ = histogram.record(latency);
        }
        histogram
    });
    #[expect(clippy::cast_precision_loss, reason = "a latency in microseconds is far below 2^52")]
    let ms = |micros: u64| format!("{:.1}", micros as f64 / 1000.0);
    if let Some(histogram) = histogram {
        row.extend([0.5, 0.95, 0.99].map(|quantile| ms(histogram.value_at_quantile(quantile))));
        row.push(ms(histogram.max()));
    }
    row
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
