//! Operations that change nothing: missing, inspect, stats.

use std::time::Duration;

use oxcart_queue::{EngineOptions, EntryKey, Inspected, Place, Presence, TickLimits};
use rstest::rstest;

use crate::support::{Backend, Rig, items::*, partition};

#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn missing_tells_three_answers(#[case] backend: Backend) {
    let rig = Rig::with(backend, EngineOptions { max_deliveries: 1, ..EngineOptions::default() }).await;
    let (engine, partition) = (&*rig.engine, partition());
    fill(engine, &partition, [1]).await;
    lease(engine, &partition, [1]).await;
    rig.advance(CLAIM).await;
    engine.tick(&partition, TickLimits::default()).await.unwrap();
    engine.enqueue(&partition, &[entry_run(2, 3), entry_run(3, 2)]).await.unwrap();
    lease(engine, &partition, [2]).await;
    engine.enqueue(&partition, &[delayed(4, 100)]).await.unwrap();
    let missing = async |number, number_of_run| engine.missing(&partition, &[(key(number), run(number_of_run))]).await.unwrap()[0];
    // 1 is in quarantine, 2 is leased with run 3, 3 is ready with run 2, 4 is delayed with run 1.
    assert_eq!((missing(1, 1).await, missing(1, 2).await), (Presence::Quarantined, Presence::Missing));
    assert_eq!((missing(2, 3).await, missing(2, 4).await), (Presence::Present, Presence::Missing));
    assert_eq!(
        (missing(3, 1).await, missing(3, 2).await, missing(3, 3).await),
        (Presence::Present, Presence::Present, Presence::Missing)
    );
    assert_eq!((missing(4, 1).await, missing(5, 1).await), (Presence::Present, Presence::Missing));
    let all: Vec<_> = (0..1000).map(|number| (key(number), run(1))).collect();
    let present = engine.missing(&partition, &all).await.unwrap().into_iter().filter(|p| *p != Presence::Missing).count();
    assert_eq!(present, 4);
}

#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn inspect_tells_where_an_entry_is(#[case] backend: Backend) {
    let rig = Rig::new(backend).await;
    let (engine, partition) = (&*rig.engine, partition());
    let urgent = EntryKey { band: 0, fairness: 77, ..key(4) };
    engine.enqueue(&partition, &[entry(1), entry(2), entry_run(3, 2), delayed(5, 800)]).await.unwrap();
    lease(engine, &partition, [1]).await;
    engine.enqueue(&partition, &[entry_of(urgent)]).await.unwrap();
    rig.advance(Duration::from_millis(300)).await;
    let keys = [key(1), key(2), key(3), urgent, key(5), key(6)];
    let base = Inspected { key: key(1), run: run(1), place: Place::Ready, deliveries: 0, ahead: 0, remaining: None };
    assert_eq!(
        engine.inspect(&partition, &keys).await.unwrap(),
        [
            Some(Inspected { place: Place::Leased, deliveries: 1, remaining: Some(CLAIM - Duration::from_millis(300)), ..base }),
            Some(Inspected { key: key(2), ahead: 1, ..base }),
            Some(Inspected { key: key(3), run: run(2), ahead: 2, ..base }),
            Some(Inspected { key: urgent, ..base }),
            Some(Inspected { key: key(5), place: Place::Delayed, remaining: Some(Duration::from_millis(500)), ..base }),
            None,
        ]
    );
    rig.advance(CLAIM).await;
    let late = engine.inspect(&partition, &[key(1), key(5)]).await.unwrap();
    assert!(late.iter().all(|inspected| inspected.unwrap().remaining == Some(Duration::ZERO)));
}

#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn stats_count_places_and_writes(#[case] backend: Backend) {
    let rig = Rig::new(backend).await;
    let (engine, partition) = (&*rig.engine, partition());
    let new = engine.stats(&partition).await.unwrap();
    assert_eq!((new.seq, new.ready, new.next_ready), (0, 0, None));
    engine.enqueue(&partition, &[entry(1), entry(2), delayed(3, 100)]).await.unwrap();
    let granted = lease(engine, &partition, [1]).await[0];
    let stats = engine.stats(&partition).await.unwrap();
    assert_eq!((stats.ready, stats.delayed, stats.leased, stats.quarantined), (1, 1, 1, 0));
    assert_eq!((stats.incarnation, stats.seq, stats.next_ready), (new.incarnation, 2, Some(task(2))));
    complete(engine, &partition, &granted).await;
    complete(engine, &partition, &granted).await;
    engine.tick(&partition, TickLimits::default()).await.unwrap();
    assert_eq!(engine.stats(&partition).await.unwrap().seq, 3, "calls that changed nothing do not count");
}

#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn lookups_make_no_partition(#[case] backend: Backend) {
    let rig = Rig::new(backend).await;
    let (engine, partition) = (&*rig.engine, partition());
    assert_eq!(engine.missing(&partition, &[(key(1), run(1))]).await.unwrap(), [Presence::Missing]);
    assert_eq!(engine.inspect(&partition, &[key(1)]).await.unwrap(), [None]);
    assert!(journal(engine, &partition).await.is_empty());
    assert!(engine.partitions().await.unwrap().is_empty());
    engine.stats(&partition).await.unwrap();
    assert_eq!(engine.partitions().await.unwrap(), [partition]);
    engine.ping().await.unwrap();
}
