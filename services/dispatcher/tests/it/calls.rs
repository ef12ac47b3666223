//! Calls about entries.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use oxcart_dispatcher::Config;
use oxcart_proto::pb::dispatcher::v1 as pb;
use oxcart_queue::{EngineOptions, MemoryEngine};
use oxcart_types::SystemClock;
use tonic::Code;

use crate::harness::{Faulty, PATIENCE, Served, Worker, engine, ids, key, new_worker};

fn items(count: usize) -> Vec<pb::EnqueueItem> {
    ids(count).iter().map(|task| pb::EnqueueItem { key: Some(key(&task.to_string(), 1)), delay: None }).collect()
}

#[tokio::test]
async fn calls_that_break_the_contract_are_refused() {
    let served = Served::plain().await;
    let mut client = served.dispatcher();
    let twice = vec![items(1).remove(0); 2];
    let bad = vec![pb::EnqueueItem::default()];
    for items in [Vec::new(), items(1001), twice, bad] {
        let refused = client.enqueue_tasks(pb::EnqueueTasksRequest { items }).await.expect_err("refused");
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
    assert!(client.enqueue_tasks(pb::EnqueueTasksRequest { items: items(1000) }).await.is_ok());
}

#[tokio::test]
async fn a_failing_engine_is_told_per_item_and_heals() {
    let faulty = Arc::new(Faulty { inner: engine(), failing: AtomicBool::new(true) });
    let served = Served::start(faulty.clone(), Config::default()).await;
    let mut client = served.dispatcher();
    let items = items(2);
    let keys: Vec<_> = items.iter().filter_map(|item| item.key.clone()).collect();
    let request = pb::EnqueueTasksRequest { items };
    let answer = client.enqueue_tasks(request.clone()).await.expect("answered").into_inner();
    assert_eq!(answer.statuses, [i32::from(pb::EnqueueStatus::TryAgain); 2]);
    let missing =
        client.find_missing_tasks(pb::FindMissingTasksRequest { keys: keys.clone() }).await.expect("answered").into_inner();
    assert_eq!((missing.missing_task_ids.len(), missing.unknown_task_ids.len()), (0, 2));
    let info = client.get_queue_info(pb::GetQueueInfoRequest::default()).await.expect_err("down");
    assert_eq!(info.code(), Code::Unavailable);

    faulty.failing.store(false, Ordering::SeqCst);
    let missing =
        client.find_missing_tasks(pb::FindMissingTasksRequest { keys: keys.clone() }).await.expect("answered").into_inner();
    assert_eq!(missing.missing_task_ids.len(), 2);
    let answer = client.enqueue_tasks(request).await.expect("answered").into_inner();
    assert_eq!(answer.statuses, [i32::from(pb::EnqueueStatus::Created); 2]);
    let entries = client.inspect_tasks(pb::InspectTasksRequest { keys }).await.expect("inspected").into_inner().entries;
    assert_eq!(
        entries.iter().map(|entry| (entry.place(), entry.ahead_count)).collect::<Vec<_>>(),
        [(pb::EntryPlace::Ready, 0), (pb::EntryPlace::Ready, 1)]
    );
}

#[tokio::test]
async fn what_is_in_quarantine_is_said_apart_from_what_is_missing() {
    let options = EngineOptions { max_deliveries: 1, ..EngineOptions::default() };
    let engine = Arc::new(MemoryEngine::new(options, Arc::new(SystemClock)));
    let served = Served::start(engine, Config { claim_ttl: Duration::from_millis(1), ..Config::default() }).await;
    let mut client = served.dispatcher();
    let asked = [served.enqueue(1, None).await.remove(0), ids(1)[0].to_string()];
    let keys: Vec<_> = asked.iter().map(|task| key(task, 1)).collect();
    // It is given out as often as it may be, and nobody starts it.
    let (mut worker, _) = Worker::open(&served, new_worker(), 1, Vec::new()).await;
    worker.grants(1).await;
    let quarantined = async {
        loop {
            let request = pb::FindMissingTasksRequest { keys: keys.clone() };
            let found = client.find_missing_tasks(request).await.expect("answered").into_inner();
            if !found.quarantined_task_ids.is_empty() {
                return found;
            }
            tokio::task::yield_now().await;
        }
    };
    let found = tokio::time::timeout(PATIENCE, quarantined).await.expect("the keeper takes it back in time");
    assert_eq!((found.quarantined_task_ids, found.missing_task_ids), (asked[..1].to_vec(), asked[1..].to_vec()));
    assert!(found.unknown_task_ids.is_empty());
}
