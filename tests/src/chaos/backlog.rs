//! L1: a backlog far larger than the window of its queue. The queue engine stays small, priorities hold, everything ends once.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use oxcart_ledger::Observation;
use oxcart_proto::pb::{
    common::v1::{Payload, TaskSpec, payload::Content},
    submission::v1::{BatchSubmitTasksRequest, submission_service_client::SubmissionServiceClient},
};
use oxcart_types::{IdSource as _, SystemIds, TaskId};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde::Serialize;
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;

use super::{
    cluster::{Cluster, Node, Programs, Topology},
    record,
    report::Outcome,
    work::{TASK_NAME, Work},
};
use crate::processes::Service;

/// Tasks of one call.
const BATCH: u64 = 1000;
/// Calls in flight at once.
const CALLS: usize = 8;
/// Tries of one call; the system is healthy, but may ask to come again.
const TRIES: usize = 100;
/// Time between two looks at the engine, and at how far the workers are.
const LOOK: Duration = Duration::from_millis(500);
/// Without any progress for this long the drain is given up.
const PATIENCE: Duration = Duration::from_secs(120);
/// Bytes that an entry may take at most, with what belongs to it: 126 waiting and 230 leased were measured.
const ENTRY_BYTES: u64 = 400;
/// Bytes that Redis and the journals of the queue may take beside the entries.
const BASE_BYTES: u64 = 64 << 20;

/// How large.
#[derive(Debug, Clone, Copy)]
pub struct Backlog {
    /// Tasks in all, in one queue.
    pub tasks: u64,
    /// Entries that the engine may hold.
    pub window: u64,
    /// What priorities follow from.
    pub seed: u64,
}

/// What the engine held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Peak {
    /// Entries at most.
    pub entries: u64,
    /// Bytes of Redis at most.
    pub bytes: u64,
}

/// Submits all while no worker runs, then lets the workers drain the queue.
///
/// # Errors
/// The system does not start or does not answer. What it does wrong is in the outcome.
pub async fn run(programs: Programs, backlog: Backlog) -> Result<(Outcome, Peak)> {
    let topology = Topology { window: Some(backlog.window), ..Topology::USUAL };
    let cluster = Cluster::start(programs, &topology, backlog.seed).await?;
    let workers = cluster.replicas(Service::Worker);
    workers.iter().try_for_each(|worker| cluster.kill(*worker))?;
    let peak = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
    let mut outcome = Outcome { row: "L1", title: "a backlog larger than the window", seed: backlog.seed, ..Outcome::default() };
    let work = async {
        let priorities = submit(&cluster, backlog).await?;
        drain(&cluster, &workers, backlog.tasks, &mut outcome).await?;
        Ok::<_, anyhow::Error>(priorities)
    };
    let priorities = tokio::select! {
        done = work => done?,
        () = watch(&cluster, &peak) => bail!("nobody watches"),
    };
    let peak = Peak { entries: peak.0.load(Ordering::Relaxed), bytes: peak.1.load(Ordering::Relaxed) };
    check(&cluster, backlog, peak, &priorities, &mut outcome).await?;
    Ok((outcome, peak))
}

/// Submits all, and says which priority each task has.
async fn submit(cluster: &Cluster, backlog: Backlog) -> Result<BTreeMap<TaskId, i32>> {
    let channels: Vec<_> = (0..cluster.replicas(Service::Submission).len())
        .map(|index| cluster.submission(index).map(SubmissionServiceClient::new))
        .collect::<Result<_>>()?;
    let mut rng = StdRng::seed_from_u64(backlog.seed);
    let calls = (0..backlog.tasks.div_ceil(BATCH)).map(|call| {
        let numbers = call * BATCH..((call + 1) * BATCH).min(backlog.tasks);
        let specs: Vec<(TaskId, i32, TaskSpec)> = numbers.map(|n| task(n, rng.random_range(0..=9))).collect();
        let client = channels[usize::try_from(call).unwrap_or_default() % channels.len()].clone();
        send(client, specs)
    });
    let sent: Vec<Vec<(TaskId, i32)>> = stream::iter(calls).buffer_unordered(CALLS).try_collect().await?;
    Ok(sent.into_iter().flatten().collect())
}

fn task(n: u64, priority: i32) -> (TaskId, i32, TaskSpec) {
    let id = SystemIds.task_id();
    let json = serde_json::to_string(&Work { n, ..Work::default() }).expect("plain data");
    let spec = TaskSpec {
        task_id: id.to_string(),
        task_name: TASK_NAME.to_owned(),
        payload: Some(Payload { content: Some(Content::Json(json)), ..Default::default() }),
        priority: Some(priority),
        ..Default::default()
    };
    (id, priority, spec)
}

async fn send(mut client: SubmissionServiceClient<Channel>, specs: Vec<(TaskId, i32, TaskSpec)>) -> Result<Vec<(TaskId, i32)>> {
    let tasks: Vec<TaskSpec> = specs.iter().map(|(_, _, spec)| spec.clone()).collect();
    let mut last = None;
    for _ in 0..TRIES {
        let request = BatchSubmitTasksRequest { tasks: tasks.clone(), ..Default::default() };
        match client.batch_submit_tasks(request).await {
            Ok(_) => return Ok(specs.into_iter().map(|(id, priority, _)| (id, priority)).collect()),
            Err(status) => last = Some(status),
        }
        sleep(LOOK).await;
    }
    bail!("a batch was not taken: {last:?}")
}

/// Starts the workers and waits until all has ended, as long as there is progress.
async fn drain(cluster: &Cluster, workers: &[Node], tasks: u64, outcome: &mut Outcome) -> Result<()> {
    let began = Instant::now();
    for worker in workers {
        cluster.restart(*worker).await?;
    }
    let (mut ended, mut moved) = (0, Instant::now());
    while ended < tasks {
        let now = cluster.sql("SELECT COUNT(*) FROM ends WHERE kind IN (1, 2, 3, 4)").await?.trim().parse()?;
        if now > ended {
            (ended, moved) = (now, Instant::now());
        } else if moved.elapsed() > PATIENCE {
            outcome.stuck = tasks - ended;
            outcome.violations.push(format!("I1: {} of {tasks} tasks did not end", tasks - ended));
            return Ok(());
        }
        sleep(LOOK).await;
    }
    outcome.quiet_after_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(())
}

/// Keeps the highest figures of the engine.
async fn watch(cluster: &Cluster, peak: &(AtomicU64, AtomicU64)) {
    loop {
        if let Ok(entries) = cluster.entries().await {
            peak.0.fetch_max(entries, Ordering::Relaxed);
        }
        if let Ok(bytes) = cluster.redis_bytes().await {
            peak.1.fetch_max(bytes, Ordering::Relaxed);
        }
        sleep(LOOK).await;
    }
}

async fn check(
    cluster: &Cluster,
    backlog: Backlog,
    peak: Peak,
    priorities: &BTreeMap<TaskId, i32>,
    outcome: &mut Outcome,
) -> Result<()> {
    let count = |query: &'static str| async { Ok::<u64, anyhow::Error>(cluster.sql(query).await?.trim().parse()?) };
    outcome.tasks = count("SELECT COUNT(*) FROM tasks").await?;
    outcome.starts = count("SELECT COUNT(*) FROM starts").await?;
    let succeeded = count("SELECT COUNT(DISTINCT task) FROM ends WHERE kind = 1").await?;
    let mut expect = |what: &str, found: u64, bound: u64, holds: bool| {
        if !holds {
            outcome.violations.push(format!("{what}: {found}, expected {bound}"));
        }
    };
    expect("tasks", outcome.tasks, backlog.tasks, outcome.tasks == backlog.tasks);
    expect("tasks that succeeded", succeeded, backlog.tasks, succeeded == backlog.tasks);
    expect("starts, without a fault", outcome.starts, backlog.tasks, outcome.starts == backlog.tasks);
    expect("entries of the engine, at most", peak.entries, backlog.window, peak.entries <= backlog.window);
    let bytes = BASE_BYTES + backlog.window * ENTRY_BYTES;
    expect("bytes of Redis, at most", peak.bytes, bytes, peak.bytes <= bytes);
    // Without a window that is hit, and memory that would be missed, nothing was shown.
    expect("entries of the engine, at least", peak.entries, backlog.window / 2, peak.entries >= backlog.window / 2);
    let middles = middles(cluster, priorities)?;
    if !middles.is_sorted_by(|(_, earlier), (_, later)| earlier >= later) {
        outcome.violations.push(format!("I10: lower priorities went first: middle places by priority are {middles:?}"));
    }
    Ok(())
}

/// By priority, lowest first: the middle place at which its tasks were entered.
fn middles(cluster: &Cluster, priorities: &BTreeMap<TaskId, i32>) -> Result<Vec<(i32, usize)>> {
    let mut entered = Vec::new();
    for notes in cluster.notes() {
        entered.extend(record::read(&notes.path)?.into_iter().filter_map(|(at, observation)| match observation {
            Observation::Entered { task, .. } => Some((at, task)),
            _ => None,
        }));
    }
    entered.sort_by_key(|(at, _)| *at);
    let mut seen = HashSet::new();
    let mut places: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
    for (place, (_, task)) in entered.iter().enumerate().filter(|(_, (_, task))| seen.insert(*task)) {
        let priority = priorities.get(task).context("a task that nobody submitted")?;
        places.entry(*priority).or_default().push(place);
    }
    Ok(places.into_iter().map(|(priority, places)| (priority, places[places.len() / 2])).collect())
}
