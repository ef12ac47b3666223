//! Announcements.

use oxcart_queue::{ExtendCause, Wakeup};
use rstest::rstest;
use tokio::sync::broadcast::error::TryRecvError;

use crate::support::{Backend, Rig, items::*, partition};

#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn own_calls_are_announced_once(#[case] backend: Backend) {
    let rig = Rig::new(backend).await;
    let (engine, partition) = (&*rig.engine, partition());
    let mut wakeups = engine.wakeups();
    fill(engine, &partition, [1, 2]).await;
    assert_eq!(wakeups.try_recv().unwrap(), Wakeup { partition: partition.clone(), ready: true });
    let granted = lease(engine, &partition, [1]).await[0];
    // Who waits for ready entries has nothing to look for.
    assert_eq!(wakeups.try_recv().unwrap(), Wakeup { partition: partition.clone(), ready: false });
    // Nothing became ready, nothing was journalled.
    engine.extend(&partition, ExtendCause::Heartbeat, &[heartbeat(&granted)]).await.unwrap();
    engine.enqueue(&partition, &[entry(2)]).await.unwrap();
    engine.tick(&partition, Default::default()).await.unwrap();
    engine.stats(&partition).await.unwrap();
    assert_eq!(wakeups.try_recv(), Err(TryRecvError::Empty));
}

/// A promotion is not journalled, but makes something ready.
#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn a_promotion_into_an_empty_line_is_announced(#[case] backend: Backend) {
    let rig = Rig::new(backend).await;
    let (engine, partition) = (&*rig.engine, partition());
    engine.enqueue(&partition, &[delayed(1, 100), delayed(2, 200)]).await.unwrap();
    let mut wakeups = engine.wakeups();
    rig.advance(std::time::Duration::from_millis(100)).await;
    engine.tick(&partition, Default::default()).await.unwrap();
    assert_eq!(wakeups.try_recv().unwrap(), Wakeup { partition: partition.clone(), ready: true });
    rig.advance(std::time::Duration::from_millis(100)).await;
    engine.tick(&partition, Default::default()).await.unwrap();
    assert_eq!(wakeups.try_recv(), Err(TryRecvError::Empty), "the line was not empty");
}

#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn what_waits_again_is_announced_as_ready(#[case] backend: Backend) {
    let rig = Rig::new(backend).await;
    let (engine, partition) = (&*rig.engine, partition());
    fill(engine, &partition, [1, 2]).await;
    let granted = lease(engine, &partition, [1, 2]).await;
    let mut wakeups = engine.wakeups();
    engine.release(&partition, &[release(&granted[0])]).await.unwrap();
    assert!(wakeups.try_recv().unwrap().ready);
    engine.complete(&partition, &[done(&granted[1])]).await.unwrap();
    assert!(!wakeups.try_recv().unwrap().ready, "the other entry was ready before");
    let later =
        oxcart_queue::Release { delay: std::time::Duration::from_secs(1), ..release(&lease(engine, &partition, [3]).await[0]) };
    assert!(!wakeups.try_recv().unwrap().ready);
    engine.release(&partition, &[later]).await.unwrap();
    assert!(!wakeups.try_recv().unwrap().ready, "it waits for its time");
}
