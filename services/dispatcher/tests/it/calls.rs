//! Calls about entries.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use oxcart_dispatcher::Config;
use oxcart_proto::pb::dispatcher::v1 as pb;
use tonic::Code;

use crate::harness::{Faulty, Served, engine, ids, key};

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
