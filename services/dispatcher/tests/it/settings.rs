//! Pauses of queues.

use std::sync::Arc;

use oxcart_dispatcher::Config;
use oxcart_proto::pb::dispatcher::v1 as pb;
use tonic::Code;

use crate::harness::{Served, Worker, engine, new_worker};

fn config(revision: i64, paused: bool) -> pb::ConfigureQueuesRequest {
    pb::ConfigureQueuesRequest { queues: vec![pb::QueueConfig { queue: "default".into(), revision, paused }] }
}

#[tokio::test]
async fn a_paused_queue_grants_nothing_until_it_is_resumed() {
    let served = Served::plain().await;
    let mut client = served.dispatcher();
    client.configure_queues(config(5, true)).await.expect("paused before its first task");
    let (mut worker, _) = Worker::open(&served, new_worker(), 4, Vec::new()).await;
    served.enqueue(3, None).await;
    worker.silent().await;
    client.configure_queues(config(4, false)).await.expect("an older revision is no error");
    worker.silent().await;
    let info = client.get_queue_info(pb::GetQueueInfoRequest::default()).await.expect("info").into_inner();
    let seen: Vec<_> = info.partitions.iter().map(|one| (one.settings_revision, one.paused, one.ready_count)).collect();
    assert_eq!(seen, [(5, true, 3)]);
    client.configure_queues(config(6, false)).await.expect("resumed");
    worker.grants(3).await;
}

/// Two replicas on one engine: the second hears of the pause from the engine.
#[tokio::test]
async fn a_pause_reaches_other_replicas() {
    let engine = engine();
    let (one, two) = (Served::start(Arc::clone(&engine), Config::default()).await, Served::start(engine, Config::default()).await);
    one.dispatcher().configure_queues(config(5, true)).await.expect("paused");
    let (mut worker, _) = Worker::open(&two, new_worker(), 4, Vec::new()).await;
    one.enqueue(1, None).await;
    worker.silent().await;
    one.dispatcher().configure_queues(config(6, false)).await.expect("resumed");
    worker.grants(1).await;
}

#[tokio::test]
async fn settings_that_nobody_could_apply_are_refused() {
    let served = Served::plain().await;
    let queue = |queue: &str, revision| pb::QueueConfig { queue: queue.into(), revision, paused: true };
    let bad = [
        (vec![], "queues"),
        (vec![queue("No Name!", 1)], "queues[0].queue"),
        (vec![queue("a", 1), queue("b", 0)], "queues[1].revision"),
        (vec![queue("a", -1)], "queues[0].revision"),
    ];
    for (queues, field) in bad {
        let refused = served.dispatcher().configure_queues(pb::ConfigureQueuesRequest { queues }).await.expect_err(field);
        assert_eq!(refused.code(), Code::InvalidArgument, "{field}");
        assert!(refused.message().contains(field), "{refused:?}");
    }
    assert_eq!(served.counts().await, (0, 0, 0), "nothing was made");
}
