//! Putting entries in.

use std::time::Duration;

use oxcart_queue::{EngineOptions, Enqueue, EnqueueStatus as S, Place};
use rstest::rstest;

use crate::support::{Backend, Rig, items::*, partition};

#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn an_entry_is_keyed_by_task_and_run(#[case] backend: Backend) {
    let rig = Rig::new(backend).await;
    let enqueue = async |number, run| rig.engine.enqueue(&partition(), &[entry_run(number, run)]).await.unwrap()[0];
    assert_eq!(enqueue(1, 2).await, S::Created);
    assert_eq!(enqueue(1, 2).await, S::Exists);
    assert_eq!(enqueue(1, 1).await, S::Older);
    assert_eq!(enqueue(1, 300).await, S::Superseded);
    assert_eq!(enqueue(1, 299).await, S::Older);
    assert_eq!(enqueue(1, 300).await, S::Exists);
    let granted = lease(&*rig.engine, &partition(), 1..=9).await;
    assert_eq!(granted.len(), 1);
    assert_eq!((granted[0].run, granted[0].deliveries), (run(300), 1));
}

#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn an_entry_stays_as_it_is_when_put_in_again(#[case] backend: Backend) {
    let rig = Rig::new(backend).await;
    rig.engine.enqueue(&partition(), &[delayed(1, 500)]).await.unwrap();
    assert_eq!(rig.engine.enqueue(&partition(), &[entry(1)]).await.unwrap(), [S::Exists]);
    assert_eq!(place(&*rig.engine, &partition(), 1).await, Some(Place::Delayed));
    assert_eq!(rig.engine.stats(&partition()).await.unwrap().seq, 1, "nothing was written");
}

/// A later run takes the place of an earlier one wherever that is, its lease included.
#[rstest]
#[tokio::test]
async fn a_later_run_supersedes_from_every_place(
    #[values(Backend::Memory, Backend::Redis)] backend: Backend,
    #[values(Place::Ready, Place::Delayed, Place::Leased, Place::Quarantined)] from: Place,
    #[values(0, 500)] delay_ms: u64,
) {
    let rig = Rig::with(backend, EngineOptions { max_deliveries: 1, ..EngineOptions::default() }).await;
    let (engine, partition) = (&*rig.engine, partition());
    let mut granted = Vec::new();
    match from {
        Place::Ready => fill(engine, &partition, [1]).await,
        Place::Delayed => drop(engine.enqueue(&partition, &[delayed(1, 900)]).await.unwrap()),
        Place::Leased | Place::Quarantined => {
            fill(engine, &partition, [1]).await;
            granted = lease(engine, &partition, [1]).await;
        }
    }
    if from == Place::Quarantined {
        rig.advance(CLAIM).await;
        engine.tick(&partition, Default::default()).await.unwrap();
    }
    assert_eq!(place(engine, &partition, 1).await, Some(from));
    let later = Enqueue { delay: Duration::from_millis(delay_ms), ..entry_run(1, 2) };
    assert_eq!(engine.enqueue(&partition, &[later]).await.unwrap(), [S::Superseded]);
    let inspected = engine.inspect(&partition, &[key(1)]).await.unwrap()[0].unwrap();
    assert_eq!((inspected.run, inspected.deliveries), (run(2), 0));
    assert_eq!(inspected.place, if delay_ms == 0 { Place::Ready } else { Place::Delayed });
    let stats = engine.stats(&partition).await.unwrap();
    assert_eq!(stats.ready + stats.delayed + stats.leased + stats.quarantined, 1);
    if let Some(granted) = granted.first() {
        assert_eq!(complete(engine, &partition, granted).await, oxcart_queue::LeaseStatus::Unknown);
    }
}

#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn the_window_limits_first_runs_only(#[case] backend: Backend) {
    let rig = Rig::with(backend, EngineOptions { window: 4, ..EngineOptions::default() }).await;
    let (engine, partition) = (&*rig.engine, partition());
    fill(engine, &partition, [1, 2]).await;
    // Leased and delayed entries count as well.
    lease(engine, &partition, [1]).await;
    let items = [delayed(3, 1000), entry(4), entry(5), entry_run(6, 2), entry_run(1, 2), entry(2)];
    let statuses = engine.enqueue(&partition, &items).await.unwrap();
    assert_eq!(statuses, [S::Created, S::Created, S::WindowFull, S::Created, S::Superseded, S::Exists]);
    assert_eq!(place(engine, &partition, 5).await, None);
    let granted = lease(engine, &partition, 10..20).await;
    assert_eq!(numbers(&granted), [2, 4, 6, 1]);
    for granted in &granted[..2] {
        complete(engine, &partition, granted).await;
    }
    // Three are left: 1, 3 and 6.
    assert_eq!(engine.enqueue(&partition, &[entry(5), entry(7)]).await.unwrap(), [S::Created, S::WindowFull]);
}

#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn partitions_and_queues_are_apart(#[case] backend: Backend) {
    let rig = Rig::new(backend).await;
    let other_number = oxcart_queue::Partition { number: 1, ..partition() };
    let other_queue = oxcart_queue::Partition::first("mail-2".parse().unwrap());
    for partition in [&partition(), &other_number, &other_queue] {
        fill(&*rig.engine, partition, [1]).await;
    }
    assert_eq!(lease(&*rig.engine, &other_number, [1, 2]).await.len(), 1);
    assert_eq!(rig.engine.stats(&partition()).await.unwrap().ready, 1);
    assert_eq!(rig.engine.stats(&other_queue).await.unwrap().ready, 1);
    assert_eq!(rig.engine.partitions().await.unwrap(), [partition(), other_number, other_queue]);
}
