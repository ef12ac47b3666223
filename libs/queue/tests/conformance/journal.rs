//! The journal: what it tells, and how it is read.

use std::time::Duration;

use bytes::Bytes;
use oxcart_queue::{
    Claim, Complete, EngineOptions, Enqueue, EnqueueCause, ExtendCause, JournalFrom, JournalId, LeaseRequest, Outcome, Release,
    Remove, Transition as T,
};
use oxcart_types::WorkerId;
use rstest::rstest;

use crate::support::{Backend, Rig, items::*, partition};

#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn every_transition_is_told(#[case] backend: Backend) {
    let rig = Rig::new(backend).await;
    let (engine, partition) = (&*rig.engine, partition());
    let with_cause = |number, cause| Enqueue { cause, ..entry(number) };
    let items =
        [entry(1), with_cause(2, EnqueueCause::Retried), with_cause(3, EnqueueCause::Released), entry(4), entry(5), entry(6)];
    engine.enqueue(&partition, &items).await.unwrap();
    let granted = lease(engine, &partition, 1..=6).await;
    engine.extend(&partition, ExtendCause::Started, &[heartbeat(&granted[0])]).await.unwrap();
    engine.extend(&partition, ExtendCause::Heartbeat, &[heartbeat(&granted[0])]).await.unwrap();
    let ends = [Outcome::Done, Outcome::Failed, Outcome::Cancelled, Outcome::Dropped];
    let items: Vec<_> = granted.iter().zip(ends).map(|(granted, outcome)| Complete { outcome, ..done(granted) }).collect();
    engine.complete(&partition, &items).await.unwrap();
    engine.release(&partition, &[release(&granted[4])]).await.unwrap();
    let remove = |number| Remove { key: key(number), up_to: run(1), take_lease: true };
    engine.remove(&partition, &[remove(5), remove(6)]).await.unwrap();
    engine.extend(&partition, ExtendCause::Heartbeat, &[heartbeat(&granted[4])]).await.unwrap();
    let expected = [
        // One call's entries are grouped by transition.
        (T::Enqueued, 1),
        (T::Enqueued, 4),
        (T::Enqueued, 5),
        (T::Enqueued, 6),
        (T::Retried, 2),
        (T::Released, 3),
        (T::Granted, 1),
        (T::Granted, 2),
        (T::Granted, 3),
        (T::Granted, 4),
        (T::Granted, 5),
        (T::Granted, 6),
        (T::Started, 1),
        (T::Done, 1),
        (T::Failed, 2),
        (T::Cancelled, 3),
        (T::Dropped, 4),
        (T::Released, 5),
        (T::Removed, 5),
        (T::Removed, 6),
        (T::Adopted, 5),
    ];
    assert_eq!(story(engine, &partition).await, expected);
}

#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn an_entry_tells_when_who_and_what_came_along(#[case] backend: Backend) {
    let rig = Rig::new(backend).await;
    let (engine, partition) = (&*rig.engine, partition());
    let note = Bytes::from_static(b"with \0 in it");
    engine.enqueue(&partition, &[Enqueue { note: note.clone(), ..delayed(1, 400) }]).await.unwrap();
    rig.advance(Duration::from_millis(400)).await;
    let granted = lease(engine, &partition, [1]).await[0];
    rig.advance(Duration::from_millis(1)).await;
    let later = Release { delay: Duration::from_millis(50), ..release(&granted) };
    engine.release(&partition, &[later]).await.unwrap();
    rig.advance(Duration::from_millis(50)).await;
    let granted = lease(engine, &partition, [2]).await[0];
    engine.complete(&partition, &[Complete { note: note.clone(), ..done(&granted) }]).await.unwrap();
    let start = rig.now() - Duration::from_millis(451);
    let told: Vec<_> = journal(engine, &partition)
        .await
        .into_iter()
        .map(|entry| {
            let ms = |time: oxcart_types::Timestamp| (time - start).num_milliseconds();
            (ms(entry.at), entry.deliveries, entry.worker.is_some(), entry.due_at.map(ms), entry.note)
        })
        .collect();
    let none = Bytes::new();
    let expected = [
        (0, 0, false, Some(400), note.clone()),
        (400, 1, true, None, none.clone()),
        (401, 1, false, Some(451), none.clone()),
        (451, 2, true, None, none),
        (451, 2, false, None, note),
    ];
    assert_eq!(told, expected);
    assert_eq!(journal(engine, &partition).await[1].worker, Some(worker()));
}

#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn notes_over_the_budget_are_dropped_together(#[case] backend: Backend) {
    let rig = Rig::with(backend, EngineOptions { journal_note_bytes: 10, ..EngineOptions::default() }).await;
    let (engine, partition) = (&*rig.engine, partition());
    let noted = |number, note: &'static str| Enqueue { note: Bytes::from_static(note.as_bytes()), ..entry(number) };
    engine.enqueue(&partition, &[noted(1, "12345"), noted(2, "67890")]).await.unwrap();
    engine.enqueue(&partition, &[noted(3, "12345"), noted(4, "678901")]).await.unwrap();
    let notes: Vec<_> = journal(engine, &partition).await.into_iter().map(|entry| entry.note).collect();
    assert_eq!(notes, ["12345", "67890", "", ""]);
}

#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn a_reader_goes_on_where_it_stopped(#[case] backend: Backend) {
    let rig = Rig::new(backend).await;
    let (engine, partition) = (&*rig.engine, partition());
    let newest = engine.journal(&partition, JournalFrom::Newest, 1).await.unwrap();
    assert_eq!((newest.last, newest.gap), (JournalId::default(), false));
    fill(engine, &partition, [1, 2]).await;
    fill(engine, &partition, [3]).await;
    fill(engine, &partition, [4]).await;
    let mut after = newest.last;
    let mut seen = Vec::new();
    for entries in [2, 1, 1, 0, 0] {
        let read = engine.journal(&partition, JournalFrom::After(after), 1).await.unwrap();
        assert_eq!((read.entries.len(), read.gap, read.more), (entries, false, entries > 0));
        assert!(if entries == 0 { read.last == after } else { read.last > after });
        seen.extend(read.entries.iter().map(|entry| number(entry.task)));
        after = read.last;
    }
    assert_eq!(seen, [1, 2, 3, 4]);
    let newest = engine.journal(&partition, JournalFrom::Newest, 9).await.unwrap();
    assert_eq!((newest.last, newest.entries.len(), newest.gap), (after, 0, false));
}

/// Trimming is approximate in Redis, hence the number of calls.
#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn a_slow_reader_is_told_of_its_gap(#[case] backend: Backend) {
    let rig = Rig::with(backend, EngineOptions { journal_calls: 100, ..EngineOptions::default() }).await;
    let (engine, partition) = (&*rig.engine, partition());
    fill(engine, &partition, [1]).await;
    let first = engine.journal(&partition, JournalFrom::Oldest, 1).await.unwrap();
    for number in 2..=600 {
        fill(engine, &partition, [number]).await;
    }
    for from in [first.last, JournalId::default()] {
        let read = engine.journal(&partition, JournalFrom::After(from), 1000).await.unwrap();
        assert!(read.gap);
        assert!((100..=250).contains(&read.entries.len()), "{}", read.entries.len());
        assert_eq!(number(read.entries.last().unwrap().task), 600);
        let next = engine.journal(&partition, JournalFrom::After(read.last), 1000).await.unwrap();
        assert_eq!((next.gap, next.entries.len()), (false, 0));
    }
    let oldest = engine.journal(&partition, JournalFrom::Oldest, 1).await.unwrap();
    assert!(!oldest.gap, "who asks for the oldest misses nothing");
}

#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn a_position_of_another_journal_starts_over_with_a_gap(#[case] backend: Backend) {
    let rig = Rig::new(backend).await;
    let (engine, partition) = (&*rig.engine, partition());
    let foreign = JournalFrom::After(JournalId { ms: u64::MAX / 4, seq: 5 });
    let read = engine.journal(&partition, foreign, 10).await.unwrap();
    assert_eq!((read.gap, read.last, read.entries.len()), (true, JournalId::default(), 0));
    fill(engine, &partition, [1]).await;
    let read = engine.journal(&partition, foreign, 10).await.unwrap();
    assert_eq!((read.gap, read.entries.len()), (true, 1));
    let past = JournalFrom::After(JournalId { ms: 1, seq: 5 });
    let read = engine.journal(&partition, past, 10).await.unwrap();
    assert_eq!((read.gap, read.entries.len()), (true, 1));
}

#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn each_grant_names_its_own_worker(#[case] backend: Backend) {
    let rig = Rig::new(backend).await;
    let (engine, partition) = (&*rig.engine, partition());
    fill(engine, &partition, 1..=4).await;
    let worker = |number: u8| WorkerId::from_bytes([number; 16]);
    let claim = |(at, number)| Claim { token: token(at), worker: worker(number) };
    let claims = (1..).zip([7, 8, 7, 8, 9]).map(claim).collect();
    let leased = engine.lease(&partition, &LeaseRequest { claims, ..request([]) }).await.unwrap();
    assert_eq!(leased.granted.iter().map(|granted| granted.token).collect::<Vec<_>>(), (1..=4).map(token).collect::<Vec<_>>());
    let told = journal(engine, &partition).await.into_iter().filter(|entry| entry.transition == T::Granted);
    let mut told: Vec<_> = told.map(|entry| (number(entry.task), entry.worker)).collect();
    told.sort_unstable_by_key(|(number, _)| *number);
    assert_eq!(told, [(1, Some(worker(7))), (2, Some(worker(8))), (3, Some(worker(7))), (4, Some(worker(8)))]);
}
