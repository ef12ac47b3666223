//! What time does: delays, leases that run out, quarantine.

use std::time::Duration;

use oxcart_queue::{EngineOptions, ExtendCause, LeaseRequest, LeaseStatus, Place, TickLimits, Ticked, Transition};
use rstest::rstest;

use crate::support::{Backend, Rig, items::*, partition};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn delayed_entries_come_out_when_due_and_never_before(#[case] backend: Backend) {
    let rig = Rig::new(backend).await;
    let (engine, partition) = (&*rig.engine, partition());
    engine.enqueue(&partition, &[delayed(1, 300), delayed(2, 100), delayed(3, 200)]).await.unwrap();
    rig.advance(ms(99)).await;
    let ticked = engine.tick(&partition, TickLimits::default()).await.unwrap();
    assert_eq!(ticked, Ticked { next_due: Some(ms(1)), ..Ticked::default() });
    assert!(lease(engine, &partition, [1]).await.is_empty());
    rig.advance(ms(1)).await;
    // A lease call promotes by itself.
    assert_eq!(numbers(&lease(engine, &partition, [1]).await), [2]);
    rig.advance(ms(250)).await;
    let ticked = engine.tick(&partition, TickLimits { promote: 1, reap: 0 }).await.unwrap();
    assert_eq!((ticked.promoted, ticked.ready, ticked.next_due), (1, 1, Some(Duration::ZERO)));
    assert_eq!(numbers(&lease(engine, &partition, [2, 3]).await), [3, 1]);
}

#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn a_delay_is_rounded_up(#[case] backend: Backend) {
    let rig = Rig::new(backend).await;
    let (engine, partition) = (&*rig.engine, partition());
    let mut item = entry(1);
    item.delay = Duration::from_nanos(1);
    engine.enqueue(&partition, &[item]).await.unwrap();
    assert!(lease(engine, &partition, [1]).await.is_empty());
    rig.advance(ms(1)).await;
    assert_eq!(lease(engine, &partition, [1]).await.len(), 1);
}

/// At once after the first delivery, then after 1 s, 2 s and so on, and in quarantine after the last.
#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn leases_that_run_out_come_back_slower_and_slower(#[case] backend: Backend) {
    let rig = Rig::with(backend, EngineOptions { max_deliveries: 4, ..EngineOptions::default() }).await;
    let (engine, partition) = (&*rig.engine, partition());
    fill(engine, &partition, [1]).await;
    for (delivery, backoff) in [(1, ms(0)), (2, ms(1000)), (3, ms(2000))] {
        let granted = lease(engine, &partition, [delivery]).await;
        assert_eq!(u64::from(granted[0].deliveries), delivery);
        rig.advance(CLAIM - ms(1)).await;
        let ticked = engine.tick(&partition, TickLimits::default()).await.unwrap();
        assert_eq!((ticked.reaped, ticked.next_expiry), (0, Some(ms(1))));
        rig.advance(ms(1)).await;
        let ticked = engine.tick(&partition, TickLimits::default()).await.unwrap();
        assert_eq!((ticked.reaped, ticked.quarantined, ticked.next_expiry), (1, 0, None));
        let entry = journal(engine, &partition).await.pop().unwrap();
        assert_eq!((entry.transition, u64::from(entry.deliveries)), (Transition::Reaped, delivery));
        if backoff.is_zero() {
            assert_eq!((ticked.ready, ticked.next_due, entry.due_at), (1, None, None));
        } else {
            assert_eq!((ticked.ready, ticked.next_due), (0, Some(backoff)));
            assert_eq!(entry.due_at, Some(rig.now() + backoff));
            assert_eq!(place(engine, &partition, 1).await, Some(Place::Delayed));
        }
        rig.advance(backoff).await;
    }
    assert_eq!(lease(engine, &partition, [4]).await[0].deliveries, 4);
    rig.advance(CLAIM).await;
    // A lease call takes back by itself.
    assert!(lease(engine, &partition, [5]).await.is_empty());
    assert_eq!(place(engine, &partition, 1).await, Some(Place::Quarantined));
    assert_eq!(story(engine, &partition).await.last(), Some(&(Transition::Quarantined, 1)));
    rig.advance(Duration::from_secs(3600)).await;
    assert!(lease(engine, &partition, [6]).await.is_empty());
    assert_eq!(engine.stats(&partition).await.unwrap().quarantined, 1);
}

#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn a_tick_keeps_to_its_limits(#[case] backend: Backend) {
    let rig = Rig::new(backend).await;
    let (engine, partition) = (&*rig.engine, partition());
    fill(engine, &partition, 1..=5).await;
    lease(engine, &partition, 1..=5).await;
    let items: Vec<_> = (6..=10).map(|number| delayed(number, 100)).collect();
    engine.enqueue(&partition, &items).await.unwrap();
    rig.advance(CLAIM).await;
    let limits = TickLimits { promote: 2, reap: 3 };
    let ticks = [(2, 3, 5), (2, 2, 9), (1, 0, 10), (0, 0, 10)];
    for (promoted, reaped, ready) in ticks {
        let ticked = engine.tick(&partition, limits).await.unwrap();
        assert_eq!((ticked.promoted, ticked.reaped, ticked.ready), (promoted, reaped, ready));
    }
}

#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn an_expired_lease_still_counts_until_it_is_taken_back(#[case] backend: Backend) {
    let rig = Rig::new(backend).await;
    let (engine, partition) = (&*rig.engine, partition());
    fill(engine, &partition, [1]).await;
    let granted = lease(engine, &partition, [1]).await[0];
    rig.advance(CLAIM * 2).await;
    assert_eq!(complete(engine, &partition, &granted).await, oxcart_queue::LeaseStatus::Ok);
}

/// Right after an outage holders come first: neither tick nor lease takes anything from them.
#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn nothing_is_taken_back_by_a_lease_call_that_may_not(#[case] backend: Backend) {
    let rig = Rig::new(backend).await;
    let (engine, partition) = (&*rig.engine, partition());
    fill(engine, &partition, [1]).await;
    let granted = lease(engine, &partition, [1]).await[0];
    rig.advance(CLAIM).await;
    let held = LeaseRequest { reap: false, ..request([2]) };
    assert_eq!(engine.lease(&partition, &held).await.unwrap().granted, []);
    assert_eq!(engine.extend(&partition, ExtendCause::Heartbeat, &[heartbeat(&granted)]).await.unwrap(), [LeaseStatus::Ok]);
    rig.advance(CLAIM * 60).await;
    assert_eq!(numbers(&lease(engine, &partition, [3]).await), [1]);
}
