//! Four processes on MariaDB and Redis.

use std::time::Duration;

use anyhow::{Result, ensure};
use oxcart_proto::pb::common::v1::{Run, RunEnd, TaskSpec, TaskState};
use oxcart_tests::{
    client::spec,
    processes::{Options, Processes, Service},
    scenarios,
};

/// Terminal ends, and tasks with more than one: what the README tells operators to ask.
const ENDS: &str = "SELECT COUNT(*), COUNT(DISTINCT task) FROM ends WHERE kind IN (1, 2, 3, 4)";

#[tokio::test(flavor = "multi_thread")]
async fn what_a_user_can_rely_on() -> Result<()> {
    let system = Processes::start(Options::default()).await?;
    scenarios::all(&system.clients()?).await
}

/// Kills each service in turn under a steady load, and empties Redis: nothing is lost, nothing ends twice.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_services_die_under_load() -> Result<()> {
    let system = Processes::start(Options::default()).await?;
    let clients = system.clients()?;
    // A killed worker costs each task that it ran an attempt; the load must survive several.
    let task = || TaskSpec { retry_policy: Some(patient()), ..spec("sleep", r#"{"ms":20}"#) };
    let mut ids = Vec::new();
    for victim in [Service::Worker, Service::Dispatcher, Service::Monitor, Service::Submission] {
        ids.extend(clients.submit_all((0..1000).map(|_| task()).collect()).await?);
        system.kill(victim)?;
        if victim != Service::Submission {
            ids.extend(clients.submit_all((0..500).map(|_| task()).collect()).await?);
        }
        system.restart(victim).await?;
    }
    ids.extend(clients.submit_all((0..1000).map(|_| task()).collect()).await?);
    system.redis.flush_all().await?;
    let ended = clients.wait_all(&ids).await?;
    ensure!(ended.get(&TaskState::Succeeded) == Some(&ids.len()), "{ended:?}");
    let expected = format!("{}\t{}", ids.len(), ids.len());
    let found = system.sql(ENDS).await?;
    ensure!(found.trim() == expected, "terminal ends and tasks: {found}, expected {expected}");
    Ok(())
}

/// 200 leases of a worker that is killed are given out again once they have run out, and finish elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_loses_its_leases_and_the_tasks_finish() -> Result<()> {
    let system = Processes::start(Options::default()).await?;
    let clients = system.clients()?;
    let slow = || TaskSpec { retry_policy: Some(patient()), ..spec("sleep", r#"{"ms":15000}"#) };
    let ids = clients.submit_all((0..200).map(|_| slow()).collect()).await?;
    for id in &ids {
        clients.wait_for_state(id, TaskState::Running).await?;
    }
    system.kill(Service::Worker)?;
    system.restart(Service::Worker).await?;
    let ended = clients.wait_all(&ids).await?;
    ensure!(ended.get(&TaskState::Succeeded) == Some(&200), "{ended:?}");
    let task = clients.get(&ids[0]).await?;
    let ends: Vec<_> = task.runs.iter().map(Run::end).collect();
    ensure!(ends == [RunEnd::Lost, RunEnd::Succeeded] && task.attempt == 2, "{task:?}");
    Ok(())
}

/// A worker that is asked to stop gives back what it cannot finish, and no attempt is used.
#[tokio::test(flavor = "multi_thread")]
async fn a_drained_worker_uses_no_attempt() -> Result<()> {
    let extra = "[worker]\ndrain_timeout = \"500ms\"\nabort_grace = \"500ms\"\n".to_owned();
    let system = Processes::start(Options { extra, ..Options::default() }).await?;
    let clients = system.clients()?;
    let ids = clients.submit_all((0..20).map(|_| spec("sleep", r#"{"ms":3000}"#)).collect()).await?;
    for id in &ids {
        clients.wait_for_state(id, TaskState::Running).await?;
    }
    system.terminate(Service::Worker).await?;
    let open = system.sql("SELECT COUNT(*) FROM starts s LEFT JOIN ends e USING (task, run) WHERE e.run IS NULL").await?;
    ensure!(open.trim() == "0", "open runs after the drain: {open}");
    system.restart(Service::Worker).await?;
    let ended = clients.wait_all(&ids).await?;
    ensure!(ended.get(&TaskState::Succeeded) == Some(&20), "{ended:?}");
    let task = clients.get(&ids[0]).await?;
    ensure!(task.attempt == 1 && task.run == 2, "{task:?}");
    Ok(())
}

/// The dispatcher is down: what is submitted is durable and PENDING, and runs when it returns.
#[tokio::test(flavor = "multi_thread")]
async fn submission_goes_on_without_a_dispatcher() -> Result<()> {
    let system = Processes::start(Options::default()).await?;
    let clients = system.clients()?;
    system.kill(Service::Dispatcher)?;
    let id = clients.submit(spec("echo", "1")).await?;
    let task = clients.get(&id).await?;
    ensure!(task.state() == TaskState::Pending, "{task:?}");
    system.restart(Service::Dispatcher).await?;
    let task = clients.wait(&id).await?;
    ensure!(task.state() == TaskState::Succeeded, "{task:?}");
    Ok(())
}

fn patient() -> oxcart_proto::pb::common::v1::RetryPolicy {
    let backoff = |millis| Some(prost_types::Duration { seconds: 0, nanos: millis * 1_000_000 });
    oxcart_proto::pb::common::v1::RetryPolicy {
        max_attempts: 20,
        initial_backoff: backoff(50),
        max_backoff: Duration::from_secs(1).try_into().ok(),
        ..Default::default()
    }
}
