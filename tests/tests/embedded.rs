//! Embedded mode: the four services in one process on SQLite.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use oxcart::{Storage, System};
use oxcart_proto::pb::common::v1::{RunEnd, TaskSpec, TaskState, task_spec::Start};
use oxcart_tests::{
    client::{Clients, spec},
    scenarios,
};
use tonic::transport::Endpoint;

fn clients(system: &System) -> Result<Clients> {
    let channel = Endpoint::from_shared(format!("http://{}", system.addresses().grpc))?.tcp_nodelay(true).connect_lazy();
    Ok(Clients::new(channel.clone(), channel))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_user_can_rely_on_with_a_file() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let system = System::embedded(Storage::File(directory.path().join("oxcart.db"))).start().await?;
    scenarios::all(&clients(&system)?).await?;
    Ok(system.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_user_can_rely_on_in_memory() -> Result<()> {
    let system = System::embedded(Storage::InMemory).start().await?;
    scenarios::all(&clients(&system)?).await?;
    Ok(system.stop().await?)
}

/// What is queued, delayed and running when the process stops goes on where it was. (What a kill leaves behind is tested with
/// the binary, in services/oxcart.)
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_where_it_was() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("oxcart.db");
    let mut config = oxcart::Config::default();
    config.worker.drain_timeout = Duration::from_millis(200);
    config.worker.abort_grace = Duration::from_millis(200);
    let start = async || System::embedded(Storage::File(file.clone())).config(config.clone()).start().await;
    let system = start().await?;
    let before = clients(&system)?;
    let running = before.submit(spec("sleep", r#"{"ms":60000}"#)).await?;
    before.wait_for_state(&running, TaskState::Running).await?;
    let delay = |seconds| Some(Start::Delay(prost_types::Duration { seconds, nanos: 0 }));
    let delayed = before.submit(TaskSpec { start: delay(2), ..spec("echo", "1") }).await?;
    let far = before.submit(TaskSpec { start: delay(3600), ..spec("echo", "1") }).await?;
    // Nobody takes from this queue: its tasks stay queued.
    let queued = before.submit(TaskSpec { queue: "nobody".to_owned(), ..spec("echo", "1") }).await?;
    system.stop().await?;

    let system = start().await?;
    let after = clients(&system)?;
    let task = after.wait(&delayed).await?;
    ensure!(task.state() == TaskState::Succeeded && task.attempt == 1, "{task:?}");
    ensure!(after.get(&far).await?.state() == TaskState::Pending);
    ensure!(!matches!(after.get(&queued).await?.state(), TaskState::Failed | TaskState::Cancelled | TaskState::Expired));
    let task = after
        .poll("the second run of the task that ran", || async {
            let task = after.get(&running).await?;
            Ok((task.run >= 2 && task.state() == TaskState::Running).then_some(task))
        })
        .await?;
    let first = task.runs.first().context("a first run")?;
    ensure!(first.end() == RunEnd::Released && task.attempt == 1, "{task:?}");
    after.cancel(&running).await?;
    Ok(system.stop().await?)
}
