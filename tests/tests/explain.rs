//! `ExplainTask`: whatever holds a task back is named, in embedded mode and with four processes.

use std::{
    process::Command,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use oxcart::{Config, Storage, System};
use oxcart_proto::pb::{
    common::v1::{RetryPolicy, TaskSpec, TaskState, task_spec::Start},
    monitor::v1::{Blocker, BlockerCode as Code, ExplainTaskRequest, ExplainTaskResponse},
    submission::v1::{PauseQueueRequest, queue_service_client::QueueServiceClient},
};
use oxcart_sdk::{Handlers, TaskContext};
use oxcart_tests::{
    binary::oxcart,
    client::{Clients, spec},
    processes::{Options, Processes, Service},
};

async fn explain(clients: &Clients, id: &str) -> Result<ExplainTaskResponse> {
    let request = ExplainTaskRequest { task_id: id.to_owned() };
    Ok(clients.monitor.clone().explain_task(request).await?.into_inner())
}

fn codes(explained: &ExplainTaskResponse) -> Vec<Code> {
    explained.blockers.iter().map(Blocker::code).collect()
}

/// Waits until exactly these blockers are told, in their order: the registry of workers follows within a moment.
async fn blocked_by(clients: &Clients, id: &str, expected: &[Code]) -> Result<Vec<Blocker>> {
    let last = Mutex::new(ExplainTaskResponse::default());
    let told = clients
        .poll("the blockers", || async {
            let explained = explain(clients, id).await?;
            let found = (codes(&explained) == expected).then(|| explained.blockers.clone());
            *last.lock().unwrap_or_else(PoisonError::into_inner) = explained;
            Ok(found)
        })
        .await;
    told.with_context(|| format!("expected {expected:?}, last told {:?}", last.lock().unwrap_or_else(PoisonError::into_inner)))
}

fn in_queue(queue: &str, task: TaskSpec) -> TaskSpec {
    TaskSpec { queue: queue.to_owned(), ..task }
}

fn delayed(seconds: i64) -> TaskSpec {
    TaskSpec { start: Some(Start::Delay(prost_types::Duration { seconds, nanos: 0 })), ..spec("echo", "1") }
}

fn config() -> Config {
    let mut config = Config::default();
    config.monitor.registry.period = Duration::from_millis(100);
    config.worker.drain_timeout = Duration::from_millis(200);
    config.worker.abort_grace = Duration::from_millis(200);
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_holds_a_task_back_is_named() -> Result<()> {
    let mut config = config();
    config.worker.slots = 1;
    config.dispatcher.window = 20;
    // It stops for nobody, and so it keeps the only slot.
    let handlers = Handlers::new().handle_fn("stubborn", |_: TaskContext, (): ()| async move {
        std::future::pending::<()>().await;
        Ok(())
    })?;
    let system = System::embedded(Storage::InMemory).config(config).handlers(handlers).start().await?;
    let clients = Clients::new(system.channel(), system.channel());
    let submit = async |task: TaskSpec| clients.submit(task).await;

    let done = submit(spec("echo", "1")).await?;
    clients.wait(&done).await?;
    let [finished] = blocked_by(&clients, &done, &[Code::Finished]).await?.try_into().expect("one");
    ensure!(finished.details["state"] == "SUCCEEDED", "{finished:?}");

    let initial_backoff = Some(prost_types::Duration { seconds: 600, nanos: 0 });
    let retry_policy = Some(RetryPolicy { max_attempts: 3, initial_backoff, ..Default::default() });
    let failing = submit(TaskSpec { retry_policy, ..spec("flaky", r#"{"times":2}"#) }).await?;
    clients.wait_for_state(&failing, TaskState::Retrying).await?;
    let [backoff] = blocked_by(&clients, &failing, &[Code::Backoff]).await?.try_into().expect("one");
    ensure!(backoff.clears_at.is_some() && backoff.message.contains("attempt 1 of 3 failed (Flaky"), "{backoff:?}");

    for (seconds, where_) in [(60, "with the dispatcher"), (3600, "in SQL")] {
        let later = submit(delayed(seconds)).await?;
        let [time] = blocked_by(&clients, &later, &[Code::Delayed]).await?.try_into().expect("one");
        let left: i64 = time.details["seconds"].parse()?;
        ensure!((seconds - 30..=seconds).contains(&left), "{where_}: {time:?}");
    }

    let foreign = submit(spec("no.such.handler", "1")).await?;
    let explained = clients
        .poll("NO_HANDLER", || async {
            let explained = explain(&clients, &foreign).await?;
            // First it is handed off.
            Ok((codes(&explained).first() == Some(&Code::NoHandler)).then_some(explained))
        })
        .await?;
    ensure!(explained.blockers[0].message.contains("echo"), "{explained:?}");
    clients.cancel(&foreign).await?;

    let running = submit(spec("stubborn", "null")).await?;
    clients.wait_for_state(&running, TaskState::Running).await?;
    let [runs] = blocked_by(&clients, &running, &[Code::Running]).await?.try_into().expect("one");
    ensure!(runs.details["run"] == "1" && !runs.details["worker"].is_empty(), "{runs:?}");
    let (next, after) = (submit(spec("echo", "1")).await?, submit(spec("echo", "2")).await?);
    let [slot] = blocked_by(&clients, &next, &[Code::NoFreeSlot]).await?.try_into().expect("one");
    ensure!((slot.details["used"].as_str(), slot.details["limit"].as_str()) == ("1", "1"), "{slot:?}");
    let told = blocked_by(&clients, &after, &[Code::NoFreeSlot, Code::Ahead]).await?;
    ensure!(told[1].details["ahead"] == "1" && explain(&clients, &after).await?.ahead_count == 1, "{told:?}");
    clients.cancel(&running).await?;
    let told = blocked_by(&clients, &running, &[Code::CancelRequested, Code::Running]).await?;
    ensure!(told[0].details["reason"] == "test" && told[0].clears_at.is_some(), "{told:?}");

    // Nobody takes from this queue; twenty tasks fill its window.
    let ids = clients.submit_all((0..22).map(|_| in_queue("nobody", spec("echo", "1"))).collect()).await?;
    blocked_by(&clients, &ids[0], &[Code::NoWorker]).await?;
    let told = blocked_by(&clients, &ids[21], &[Code::WindowFull, Code::NoWorker]).await?;
    ensure!((told[0].details["position"].as_str(), told[0].details["waiting"].as_str()) == ("2", "2"), "{told:?}");
    let request = PauseQueueRequest { queue: "nobody".into(), reason: "a look".into(), actor: "anna".into() };
    QueueServiceClient::new(system.channel()).pause_queue(request).await?;
    let told = blocked_by(&clients, &ids[0], &[Code::QueuePaused, Code::NoWorker]).await?;
    ensure!(told[0].message.contains("by anna: a look"), "{told:?}");

    let unknown = explain(&clients, "0190f3c5-7b1e-7cc3-98c4-dc0c0c07398f").await.expect_err("unknown");
    ensure!(unknown.to_string().contains("does not exist"), "{unknown:?}");
    Ok(system.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_worker_and_a_dispatcher_that_is_away_are_named() -> Result<()> {
    let extra = "[monitor.registry]\nperiod = \"200ms\"\nlost_after = \"2s\"\n".to_owned();
    let system = Processes::start(Options { extra, ..Options::default() }).await?;
    let clients = system.clients()?;
    let running = clients.submit(spec("sleep", r#"{"ms":60000}"#)).await?;
    clients.wait_for_state(&running, TaskState::Running).await?;
    blocked_by(&clients, &running, &[Code::Running]).await?;
    system.kill(Service::Worker)?;
    let [lost] = blocked_by(&clients, &running, &[Code::WorkerLost]).await?.try_into().expect("one");
    ensure!(lost.clears_at.is_some() || lost.message.contains("has ended"), "{lost:?}");

    system.kill(Service::Dispatcher)?;
    let waits = clients.submit(spec("echo", "1")).await?;
    let told = blocked_by(&clients, &waits, &[Code::Handoff, Code::DispatcherDown, Code::NoWorker]).await?;
    ensure!(!told[0].details["since"].is_empty(), "{told:?}");
    let output = Command::new(oxcart())
        .args(["task", "explain", &waits])
        .args(["--address", &system.address(Service::Submission)?, "--monitor-address", &system.address(Service::Monitor)?])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    for words in ["PENDING", "HANDOFF: ", "DISPATCHER_DOWN: ", "NO_WORKER: "] {
        ensure!(text.contains(words), "{words:?} is not in {text}");
    }
    Ok(())
}
