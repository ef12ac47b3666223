//! Bulk load: submit, drain, and both together.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use oxcart_proto::pb::{
    common::v1::TaskState,
    monitor::v1::{ListQueuesRequest, QueueStats},
    submission::v1::{BatchGetTasksRequest, StreamSubmitTasksRequest},
};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};

use super::{Bench, report, report::Report};

/// How often the queue is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Submits all tasks over one stream; their ids.
pub(super) async fn submit(bench: &Bench) -> Result<(Report, Vec<String>)> {
    let task = bench.task();
    let (batch, total) = (usize::from(bench.args.batch), bench.args.tasks);
    let permits = Semaphore::new(usize::from(bench.args.in_flight));
    let (messages, stream) = mpsc::channel(usize::from(bench.args.in_flight));
    let start = Instant::now();
    let mut answers = bench.submission.clone().stream_submit_tasks(ReceiverStream::new(stream)).await?.into_inner();
    let send = async {
        for (sequence, first) in (1..).zip((0..total).step_by(batch)) {
            // A permit stands for an unanswered message; the receiving side gives it back.
            permits.acquire().await?.forget();
            let tasks = vec![task.clone(); batch.min(total - first)];
            if messages.send(StreamSubmitTasksRequest { sequence, tasks, ..Default::default() }).await.is_err() {
                // The stream is over; the receiving side knows why.
                break;
            }
        }
        drop(messages);
        anyhow::Ok(())
    };
    let mut ids = Vec::with_capacity(total);
    let receive = async {
        while let Some(answer) = answers.next().await {
            let answer = answer?;
            if let Some(error) = answer.error {
                bail!("batch {} was refused: {} ({})", answer.sequence, error.message, error.reason);
            }
            ids.extend(answer.results.into_iter().map(|r| r.task_id));
            permits.add_permits(1);
        }
        anyhow::Ok(())
    };
    tokio::try_join!(send, receive)?;
    let took = start.elapsed();
    if ids.len() != total {
        bail!("{} of {total} tasks were acknowledged", ids.len());
    }
    Ok((Report { submit_rate: Some(rate(total, took)), ..report(bench, total) }, ids))
}

/// Waits until the queue moves and measures until it is empty.
pub(super) async fn drain(bench: &Bench) -> Result<Report> {
    let full = waiting(bench).await?;
    if full == 0 {
        bail!("queue {:?} is empty: fill it with `oxcart bench submit` while no worker runs", bench.args.queue);
    }
    let first_move = until(bench, |left| left < full).await?;
    until(bench, |left| left == 0).await?;
    let took = first_move.elapsed();
    let tasks = usize::try_from(full)?;
    Ok(Report { drain_rate: Some(rate(tasks, took)), ..report(bench, tasks) })
}

/// Submits all tasks, waits for their ends, and checks each.
pub(super) async fn flow(bench: &Bench) -> Result<Report> {
    let start = Instant::now();
    let (submitted, ids) = submit(bench).await?;
    let mut took;
    let not_succeeded = loop {
        until(bench, |left| left == 0).await?;
        took = start.elapsed();
        // An empty queue may still have tasks on their way into it: only the tasks themselves can say.
        let (open, failed) = states(bench, &ids).await?;
        if open == 0 {
            break failed;
        }
        tokio::time::sleep(LOOK).await;
    };
    Ok(Report { flow_rate: Some(rate(ids.len(), took)), not_succeeded, ..submitted })
}

#[expect(clippy::cast_precision_loss, reason = "a bench has far fewer than 2^52 tasks")]
fn rate(tasks: usize, took: Duration) -> f64 {
    tasks as f64 / took.as_secs_f64().max(1e-9)
}

/// Waits until the number of waiting tasks is as wanted; when that was. Fails when nothing moves any more.
async fn until(bench: &Bench, wanted: impl Fn(i64) -> bool) -> Result<Instant> {
    let mut last = (waiting(bench).await?, Instant::now());
    loop {
        let left = waiting(bench).await?;
        if wanted(left) {
            return Ok(Instant::now());
        }
        if left != last.0 {
            last = (left, Instant::now());
        }
        if last.1.elapsed() > bench.args.patience {
            bail!("{left} tasks are waiting and nothing moved for {:?}: is a worker running?", bench.args.patience);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Tasks of the queue that have not ended, as far as the read side sees them.
async fn waiting(bench: &Bench) -> Result<i64> {
    let queues = bench.monitor.clone().list_queues(ListQueuesRequest { page_size: 1000, ..Default::default() }).await?;
    let count = |q: &QueueStats| q.pending_count + q.ready_count + q.delayed_count + q.leased_count;
    Ok(queues.into_inner().queues.iter().find(|q| q.queue == bench.args.queue).map_or(0, count))
}

/// How many of these tasks are open, and how many ended otherwise than by success.
async fn states(bench: &Bench, ids: &[String]) -> Result<(usize, usize)> {
    let (mut open, mut failed) = (0, 0);
    for batch in ids.chunks(1000) {
        let request = BatchGetTasksRequest { task_ids: batch.to_vec(), ..Default::default() };
        let answer = bench.submission.clone().batch_get_tasks(request).await.context("cannot read tasks")?.into_inner();
        failed += answer.missing_task_ids.len();
        for task in answer.tasks {
            match task.state() {
                TaskState::Succeeded => {}
                TaskState::Failed | TaskState::Cancelled | TaskState::Expired => failed += 1,
                TaskState::Unspecified | TaskState::Pending | TaskState::Queued | TaskState::Running | TaskState::Retrying => {
                    open += 1;
                }
            }
        }
    }
    Ok((open, failed))
}
