//! Pauses of queues, end to end.

use anyhow::{Context as _, Result, ensure};
use oxcart::{Storage, System};
use oxcart_proto::pb::{
    common::v1::{TaskSpec, TaskState},
    monitor::v1::ListQueuesRequest,
    submission::v1::{GetQueueRequest, PauseInfo, PauseQueueRequest, ResumeQueueRequest, queue_service_client::QueueServiceClient},
};
use oxcart_tests::{
    client::{Clients, spec},
    processes::{Options, Processes, Service},
};
use tonic::{Code, transport::Channel};

type Queues = QueueServiceClient<Channel>;

async fn pause(queues: &Queues) -> Result<PauseInfo> {
    let request = PauseQueueRequest { queue: "default".into(), reason: "a look".into(), actor: "anna".into() };
    let queue = queues.clone().pause_queue(request).await?.into_inner().queue.context("a queue")?;
    queue.pause.context("it is paused")
}

async fn resume(queues: &Queues) -> Result<()> {
    let queue = queues.clone().resume_queue(ResumeQueueRequest { queue: "default".into() }).await?.into_inner().queue;
    ensure!(queue.context("a queue")?.pause.is_none());
    Ok(())
}

/// The queue holds a task, and others that came after it, although a worker has room.
async fn stays_queued(clients: &Clients, id: &str) -> Result<()> {
    for _ in 0..3 {
        clients.submit(spec("echo", "1")).await?;
    }
    let task = clients.wait_for_state(id, TaskState::Queued).await?;
    ensure!(task.run == 0, "{task:?}");
    let looked = clients
        .poll("the paused queue to hold the tasks", || async {
            let queues = clients.monitor.clone().list_queues(ListQueuesRequest::default()).await?.into_inner().queues;
            Ok(queues.into_iter().find(|queue| queue.queue == "default" && queue.ready_count >= 4))
        })
        .await?;
    ensure!(looked.paused && looked.leased_count == 0, "{looked:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_queue_hands_out_nothing_and_what_runs_goes_on() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("oxcart.db");
    let system = System::embedded(Storage::File(file.clone())).start().await?;
    let (channel, queues) = (system.channel(), Queues::new(system.channel()));
    let clients = Clients::new(channel.clone(), channel);
    let unknown = queues.clone().get_queue(GetQueueRequest { queue: "never".into() }).await.expect_err("unknown");
    ensure!(unknown.code() == Code::NotFound, "{unknown:?}");
    let running = clients.submit(spec("sleep", r#"{"ms":1500}"#)).await?;
    clients.wait_for_state(&running, TaskState::Running).await?;
    let first = pause(&queues).await?;
    ensure!((first.actor.as_str(), first.reason.as_str()) == ("anna", "a look"), "{first:?}");
    ensure!(clients.wait(&running).await?.state() == TaskState::Succeeded, "what runs goes on");
    let waits = clients.submit(spec("echo", "1")).await?;
    stays_queued(&clients, &waits).await?;
    ensure!(pause(&queues).await?.pause_time == first.pause_time, "paused already: the time stays");
    system.stop().await?;

    // The queue in memory is gone, and with it all that it knew of the pause.
    let system = System::embedded(Storage::File(file)).start().await?;
    let (channel, queues) = (system.channel(), Queues::new(system.channel()));
    let clients = Clients::new(channel.clone(), channel);
    let known = queues.clone().get_queue(GetQueueRequest { queue: "default".into() }).await?.into_inner().queue;
    ensure!(known.context("a queue")?.pause == Some(first));
    resume(&queues).await?;
    ensure!(clients.wait(&waits).await?.state() == TaskState::Succeeded);
    let bad = PauseQueueRequest { queue: "No Name!".into(), reason: "r".repeat(9000), actor: "a".repeat(129) };
    let refused = queues.clone().pause_queue(bad).await.expect_err("three mistakes");
    ensure!(["queue", "reason", "actor"].iter().all(|field| refused.message().contains(field)), "{refused:?}");
    Ok(system.stop().await?)
}

/// A pause is in SQL: it holds without a dispatcher, and after Redis was emptied nothing is handed out either.
#[tokio::test(flavor = "multi_thread")]
async fn a_pause_outlives_redis_and_the_dispatcher() -> Result<()> {
    let system = Processes::start(Options::default()).await?;
    let (clients, queues) = (system.clients()?, Queues::new(system.channel(Service::Submission)?));
    system.kill(Service::Dispatcher)?;
    pause(&queues).await?;
    system.restart(Service::Dispatcher).await?;
    // The sweeper tells the dispatcher what it missed.
    let told = || async {
        let known = system.redis.command("HEXISTS ox:{oxcart:default:0}:i paused").await?;
        Ok((known == "1").then_some(()))
    };
    clients.poll("the dispatcher to hear of the pause", told).await?;
    let waits = clients.submit(spec("echo", "1")).await?;
    clients.wait_for_state(&waits, TaskState::Queued).await?;
    system.redis.flush_all().await?;
    let after = clients.submit(TaskSpec { priority: Some(9), ..spec("echo", "2") }).await?;
    stays_queued(&clients, &after).await?;
    let task = clients.get(&waits).await?;
    ensure!(task.run == 0, "{task:?}");
    resume(&queues).await?;
    for id in [&waits, &after] {
        ensure!(clients.wait(id).await?.state() == TaskState::Succeeded);
    }
    Ok(())
}
