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

#[tokio::test]
async fn entries_are_listed_page_by_page_and_taken_out_by_what_was_told() {
    let served = Served::plain().await;
    let mut client = served.dispatcher();
    let fair = pb::EntryKey { fairness_key: "tenant".into(), priority: 7, ..key(&ids(1)[0].to_string(), 1) };
    let items = vec![pb::EnqueueItem { key: Some(fair.clone()), delay: None }];
    client.enqueue_tasks(pb::EnqueueTasksRequest { items }).await.expect("enqueued");
    let mut expected = served.enqueue(3, None).await;
    expected.extend(served.enqueue(2, Some(Duration::from_secs(60))).await);
    expected.push(fair.task_id.clone());

    let (mut found, mut page_token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let request = pb::ListEntriesRequest { queue: "default".into(), page_size: 2, page_token, ..Default::default() };
        let page = client.list_entries(request).await.expect("listed").into_inner();
        found.extend(page.entries);
        (page_token, pages) = (page.next_page_token, pages + 1);
        if page_token.is_empty() {
            break;
        }
    }
    assert!(pages >= 4, "two places with entries, two entries a page, two places without: {pages}");
    let mut listed: Vec<_> = found.iter().filter_map(|entry| Some(entry.key.as_ref()?.task_id.clone())).collect();
    listed.sort();
    expected.sort();
    assert_eq!(listed, expected);
    let delayed = found.iter().filter(|entry| entry.place() == pb::EntryPlace::Delayed && entry.remaining.is_some()).count();
    assert_eq!(delayed, 2);

    // The name of the fairness key is not known any more; its number finds the entry.
    let told = found.into_iter().filter_map(|entry| entry.key).find(|key| key.task_id == fair.task_id).expect("listed");
    assert_eq!((told.priority, told.fairness_key.as_str()), (7, ""));
    let answer = client.remove_tasks(pb::RemoveTasksRequest { keys: vec![told], ..Default::default() }).await.expect("removed");
    assert_eq!(answer.into_inner().statuses, [i32::from(pb::RemoveStatus::Removed)]);
}

#[tokio::test]
async fn pages_that_nobody_could_ask_for_are_refused() {
    let served = Served::plain().await;
    let mut client = served.dispatcher();
    let good = pb::ListEntriesRequest { queue: "default".into(), ..Default::default() };
    let bad = [
        (pb::ListEntriesRequest { queue: "No Name!".into(), ..good.clone() }, "queue"),
        (pb::ListEntriesRequest { page_size: -1, ..good.clone() }, "page_size"),
        (pb::ListEntriesRequest { place: 99, ..good.clone() }, "place"),
        (pb::ListEntriesRequest { page_token: "4/".into(), ..good.clone() }, "page_token"),
        (pb::ListEntriesRequest { page_token: "0/x".into(), ..good.clone() }, "page_token"),
        (pb::ListEntriesRequest { page_token: "junk".into(), ..good.clone() }, "page_token"),
    ];
    for (request, field) in bad {
        let refused = client.list_entries(request).await.expect_err(field);
        assert_eq!(refused.code(), Code::InvalidArgument, "{field}");
        assert!(refused.message().contains(field), "{refused:?}");
    }
    let checks = pb::CheckEntriesRequest { queue: "default".into(), page_token: "junk".into(), ..Default::default() };
    assert_eq!(client.check_entries(checks.clone()).await.expect_err("refused").code(), Code::InvalidArgument);
    let sound = pb::CheckEntriesRequest { page_token: String::new(), ..checks };
    assert_eq!(client.check_entries(sound).await.expect("checked").into_inner(), pb::CheckEntriesResponse::default());
}
