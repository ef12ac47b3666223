//! The journal stream.

use std::sync::Arc;

use oxcart_dispatcher::Config;
use oxcart_proto::pb::dispatcher::v1::{self as pb, stream_journal_response::Message};
use oxcart_queue::{EngineOptions, MemoryEngine};
use oxcart_types::SystemClock;
use tonic::{Code, Streaming};

use crate::harness::{PATIENCE, Served, Worker, new_worker};

async fn open(served: &Served, cursor: &str, from_oldest: bool) -> Streaming<pb::StreamJournalResponse> {
    let request = pb::StreamJournalRequest { after_cursor: cursor.to_owned(), from_oldest, queues: Vec::new() };
    served.dispatcher().stream_journal(request).await.expect("opened").into_inner()
}

async fn message(stream: &mut Streaming<pb::StreamJournalResponse>) -> (Message, String) {
    let next = tokio::time::timeout(PATIENCE, stream.message()).await.expect("in time").expect("no error").expect("goes on");
    (next.message.expect("a message"), next.cursor)
}

/// The next message that says more than where the reader stands.
async fn next(stream: &mut Streaming<pb::StreamJournalResponse>) -> (Message, String) {
    loop {
        match message(stream).await {
            (Message::Progress(_), _) => {}
            news => return news,
        }
    }
}

async fn entries(stream: &mut Streaming<pb::StreamJournalResponse>, count: usize) -> (Vec<pb::JournalEntry>, String) {
    let mut all = Vec::new();
    loop {
        let (Message::Batch(batch), cursor) = next(stream).await else { panic!("a batch") };
        all.extend(batch.entries);
        if all.len() >= count {
            return (all, cursor);
        }
    }
}

#[tokio::test]
async fn a_reader_goes_on_after_its_cursor() {
    let served = Served::plain().await;
    let mut stream = open(&served, "", true).await;
    // A partition that did not exist when the stream was opened joins it.
    let first = served.enqueue(2, None).await;
    let (read, cursor) = entries(&mut stream, 2).await;
    assert_eq!(read.iter().map(|entry| entry.task_id.clone()).collect::<Vec<_>>(), first);
    assert_eq!((read[0].transition(), read[0].queue.as_str()), (pb::Transition::Enqueued, "default"));
    drop(stream);
    let second = served.enqueue(1, None).await;
    let (read, _) = entries(&mut open(&served, &cursor, false).await, 1).await;
    assert_eq!(read.iter().map(|entry| entry.task_id.clone()).collect::<Vec<_>>(), second);
    let mut now = open(&served, "", false).await;
    let third = served.enqueue(1, None).await;
    assert_eq!(entries(&mut now, 1).await.0[0].task_id, third[0]);
}

/// The cursor that a reader is told before the first entry misses nothing.
#[tokio::test]
async fn a_reader_knows_at_once_where_it_stands() {
    let served = Served::plain().await;
    served.enqueue(1, None).await;
    let (Message::Progress(_), cursor) = message(&mut open(&served, "", false).await).await else { panic!("where it stands") };
    let next = served.enqueue(1, None).await;
    let (read, _) = entries(&mut open(&served, &cursor, false).await, 1).await;
    assert_eq!(read.iter().map(|entry| entry.task_id.clone()).collect::<Vec<_>>(), next);
}

/// Whoever gets a lease is named, also when one call leased for several.
#[tokio::test]
async fn each_grant_names_its_worker() {
    let served = Served::plain().await;
    let mut stream = open(&served, "", true).await;
    let (one, other) = (new_worker(), new_worker());
    let (mut a, _) = Worker::open(&served, one, 5, Vec::new()).await;
    let (mut b, _) = Worker::open(&served, other, 5, Vec::new()).await;
    served.enqueue(10, None).await;
    let (mine, yours) = tokio::join!(a.grants(5), b.grants(5));
    let mut expected: Vec<_> = mine.iter().map(|grant| (grant.task_id.clone(), one.to_string())).collect();
    expected.extend(yours.iter().map(|grant| (grant.task_id.clone(), other.to_string())));
    let (read, _) = entries(&mut stream, 20).await;
    let granted = read.into_iter().filter(|entry| entry.transition() == pb::Transition::Granted);
    let mut told: Vec<_> = granted.map(|entry| (entry.task_id, entry.worker_id)).collect();
    told.sort_unstable();
    expected.sort_unstable();
    assert_eq!(told, expected);
}

#[tokio::test]
async fn lost_history_is_a_gap() {
    let options = EngineOptions { journal_calls: 2, ..EngineOptions::default() };
    let served = Served::start(Arc::new(MemoryEngine::new(options, Arc::new(SystemClock))), Config::default()).await;
    served.enqueue(1, None).await;
    let (_, cursor) = entries(&mut open(&served, "", true).await, 1).await;
    for _ in 0..20 {
        served.enqueue(1, None).await;
    }
    let mut stream = open(&served, &cursor, false).await;
    assert!(matches!(next(&mut stream).await.0, Message::Gap(gap) if gap.queue == "default"));
    served.assert_counted("journal_gaps", 1);
    assert!(matches!(next(&mut stream).await.0, Message::Batch(_)));
}

#[tokio::test]
async fn a_cursor_of_another_deployment_is_refused() {
    let served = Served::plain().await;
    for cursor in ["x", "1;other;;0123456789abcdef"] {
        let request = pb::StreamJournalRequest { after_cursor: cursor.to_owned(), ..Default::default() };
        assert_eq!(served.dispatcher().stream_journal(request).await.expect_err("refused").code(), Code::InvalidArgument);
    }
}
