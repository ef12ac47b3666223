//! Calls that break the contract change nothing.

use oxcart_queue::{EntryKey, ExtendCause, MAX_ITEMS, QueueError, TickLimits};
use rstest::rstest;

use crate::support::{Backend, Rig, items::*, partition};

fn refused<T: std::fmt::Debug>(result: Result<T, QueueError>) {
    assert!(matches!(result, Err(QueueError::BadCall(_))), "{result:?}");
}

#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn a_task_named_twice_and_a_call_too_long_are_refused(#[case] backend: Backend) {
    let rig = Rig::new(backend).await;
    let (engine, partition) = (&*rig.engine, partition());
    fill(engine, &partition, [1]).await;
    let granted = lease(engine, &partition, [1]).await[0];
    let before = engine.stats(&partition).await.unwrap();
    let too_long = 0..=MAX_ITEMS as u64;
    let lots: Vec<_> = too_long.clone().map(|number| oxcart_queue::Granted { key: key(number), ..granted }).collect();
    for granted in [vec![granted, granted], lots] {
        let keys: Vec<_> = granted.iter().map(|granted| granted.key).collect();
        refused(engine.enqueue(&partition, &keys.iter().map(|key| entry_of(*key)).collect::<Vec<_>>()).await);
        refused(engine.extend(&partition, ExtendCause::Started, &granted.iter().map(heartbeat).collect::<Vec<_>>()).await);
        refused(engine.complete(&partition, &granted.iter().map(done).collect::<Vec<_>>()).await);
        refused(engine.release(&partition, &granted.iter().map(release).collect::<Vec<_>>()).await);
        let removes: Vec<_> = keys.iter().map(|key| oxcart_queue::Remove { key: *key, up_to: run(9), take_lease: true }).collect();
        refused(engine.remove(&partition, &removes).await);
        refused(engine.missing(&partition, &keys.iter().map(|key| (*key, run(1))).collect::<Vec<_>>()).await);
        refused(engine.inspect(&partition, &keys).await);
    }
    refused(engine.lease(&partition, &request(too_long)).await);
    refused(engine.tick(&partition, TickLimits { promote: MAX_ITEMS + 1, reap: 0 }).await);
    refused(engine.enqueue(&partition, &[entry_of(EntryKey { band: 10, ..key(2) })]).await);
    assert_eq!(engine.stats(&partition).await.unwrap(), before);
}

#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn an_empty_call_does_nothing(#[case] backend: Backend) {
    let rig = Rig::new(backend).await;
    let (engine, partition) = (&*rig.engine, partition());
    assert!(engine.enqueue(&partition, &[]).await.unwrap().is_empty());
    assert!(engine.lease(&partition, &request([])).await.unwrap().granted.is_empty());
    assert!(engine.extend(&partition, ExtendCause::Heartbeat, &[]).await.unwrap().is_empty());
    assert!(engine.complete(&partition, &[]).await.unwrap().is_empty());
    assert!(engine.release(&partition, &[]).await.unwrap().is_empty());
    assert!(engine.remove(&partition, &[]).await.unwrap().is_empty());
    assert!(engine.missing(&partition, &[]).await.unwrap().is_empty());
    assert!(engine.inspect(&partition, &[]).await.unwrap().is_empty());
    assert!(engine.partitions().await.unwrap().is_empty(), "not even the partition was made");
}

/// The largest calls that are allowed work, in every operation.
#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn the_largest_calls_work(#[case] backend: Backend) {
    let rig = Rig::new(backend).await;
    let (engine, partition) = (&*rig.engine, partition());
    let all = 0..MAX_ITEMS as u64;
    // Every second entry with extras, in all bands, each of its own fairness key.
    let items: Vec<_> = all
        .clone()
        .map(|number| oxcart_queue::Enqueue {
            run: run(1 + u32::try_from(number % 2).unwrap()),
            ..entry_of(EntryKey {
                band: u8::try_from(number % 10).unwrap(),
                fairness: u32::try_from(number).unwrap(),
                ..key(number)
            })
        })
        .collect();
    let ok = |statuses: Vec<oxcart_queue::LeaseStatus>| {
        assert_eq!(statuses.len(), MAX_ITEMS);
        assert!(statuses.iter().all(|status| *status == oxcart_queue::LeaseStatus::Ok));
    };
    engine.enqueue(&partition, &items).await.unwrap();
    let granted = lease(engine, &partition, all.clone()).await;
    assert_eq!(granted.len(), MAX_ITEMS);
    ok(engine.extend(&partition, ExtendCause::Started, &granted.iter().map(heartbeat).collect::<Vec<_>>()).await.unwrap());
    ok(engine.release(&partition, &granted.iter().map(release).collect::<Vec<_>>()).await.unwrap());
    let keys: Vec<_> = items.iter().map(|item| item.key).collect();
    assert!(engine.inspect(&partition, &keys).await.unwrap().iter().all(Option::is_some));
    lease(engine, &partition, all.clone()).await;
    rig.advance(CLAIM).await;
    let limits = TickLimits { promote: MAX_ITEMS, reap: MAX_ITEMS };
    assert_eq!(engine.tick(&partition, limits).await.unwrap().reaped, MAX_ITEMS as u64);
    rig.advance(CLAIM).await;
    assert_eq!(engine.tick(&partition, limits).await.unwrap().promoted, MAX_ITEMS as u64);
    let granted = lease(engine, &partition, all).await;
    ok(engine.complete(&partition, &granted.iter().map(done).collect::<Vec<_>>()).await.unwrap());
    let stats = engine.stats(&partition).await.unwrap();
    assert_eq!((stats.ready, stats.delayed, stats.leased, stats.quarantined), (0, 0, 0, 0));
}
