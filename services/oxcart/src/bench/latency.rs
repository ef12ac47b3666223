//! Single tasks at a fixed rate.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use oxcart_proto::pb::{
    common::v1::TaskState,
    submission::v1::{SubmitTaskRequest, WaitTaskRequest},
};
use oxcart_types::{Clock as _, SystemClock};
use tokio::task::JoinSet;

use super::{
    Bench, report,
    report::{Latency, Report},
};

/// Times of one task, in microseconds from the moment it was sent.
struct Sample {
    submit: u64,
    start: u64,
    result: u64,
    succeeded: bool,
}

/// Sends tasks on schedule, whether or not earlier ones were answered: a slow system cannot slow its own measurement down.
pub(super) async fn measure(bench: &Bench) -> Result<Report> {
    let period = Duration::from_secs_f64(1.0 / bench.args.rate.max(0.001));
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    let end = Instant::now() + bench.args.duration;
    let mut running = JoinSet::new();
    let mut samples = Vec::new();
    while Instant::now() < end {
        ticks.tick().await;
        running.spawn(one(bench.submission.clone(), bench.task()));
        while let Some(done) = running.try_join_next() {
            samples.push(done??);
        }
    }
    while let Some(done) = running.join_next().await {
        samples.push(done??);
    }
    let histogram = |what: &'static str, value: fn(&Sample) -> u64| -> Result<Latency> {
        let mut micros = Histogram::<u64>::new(3)?;
        for sample in &samples {
            micros.record(value(sample))?;
        }
        Ok(Latency::of(what, &micros))
    };
    Ok(Report {
        not_succeeded: samples.iter().filter(|s| !s.succeeded).count(),
        latencies: vec![
            histogram("submit call", |s| s.submit)?,
            histogram("submit to start", |s| s.start)?,
            histogram("submit to result", |s| s.result)?,
        ],
        ..report(bench, samples.len())
    })
}

type Client = oxcart_proto::pb::submission::v1::submission_service_client::SubmissionServiceClient<tonic::transport::Channel>;

async fn one(mut submission: Client, task: oxcart_proto::pb::common::v1::TaskSpec) -> Result<Sample> {
    let (sent, sent_at) = (Instant::now(), SystemClock.now());
    let answer = submission.submit_task(SubmitTaskRequest { task: Some(task), ..Default::default() }).await?.into_inner();
    let submit = micros(sent.elapsed());
    let task_id = answer.result.context("an answer without a result")?.task_id;
    let task = loop {
        let answer = submission.wait_task(WaitTaskRequest { task_id: task_id.clone(), ..Default::default() }).await?.into_inner();
        if answer.satisfied {
            break answer.task.context("an answer without a task")?;
        }
    };
    let result = micros(sent.elapsed());
    // The worker's clock against this client's: only meaningful where both run on one machine.
    let started = task.start_time.context("a finished task that never started")?;
    let started_micros = started.seconds * 1_000_000 + i64::from(started.nanos) / 1000;
    let start = u64::try_from(started_micros - sent_at.timestamp_micros()).unwrap_or_default();
    Ok(Sample { submit, start, result, succeeded: task.state() == TaskState::Succeeded })
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
