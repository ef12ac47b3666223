//! Leases: given out, extended, ended, given back, made again.

use std::time::Duration;

use oxcart_queue::{
    Complete, EngineOptions, Extend, ExtendCause, LeaseStatus as S, Outcome, Place, Presence, Release, Remove, RemoveStatus,
    Transition,
};
use rstest::rstest;

use crate::support::{Backend, Rig, items::*, partition};

#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn a_grant_tells_key_run_deliveries_and_token(#[case] backend: Backend) {
    let rig = Rig::new(backend).await;
    let (engine, partition) = (&*rig.engine, partition());
    let special = oxcart_queue::EntryKey { band: 9, fairness: u32::MAX, ..key(2) };
    engine.enqueue(&partition, &[entry(1), entry_of(special), delayed(3, 700)]).await.unwrap();
    let leased = engine.lease(&partition, &request([11, 12, 13])).await.unwrap();
    assert_eq!((leased.ready, leased.next_due), (0, Some(Duration::from_millis(700))));
    let told: Vec<_> = leased.granted.iter().map(|g| (g.key, g.run, g.deliveries, g.token)).collect();
    assert_eq!(told, [(key(1), run(1), 1, token(11)), (special, run(1), 1, token(12))]);
    let empty = engine.lease(&partition, &request([14])).await.unwrap();
    assert_eq!((empty.granted.len(), empty.ready), (0, 0));
}

#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn a_lease_ends_once_and_only_by_its_token(#[case] backend: Backend) {
    let rig = Rig::new(backend).await;
    let (engine, partition) = (&*rig.engine, partition());
    fill(engine, &partition, [1, 2]).await;
    let granted = lease(engine, &partition, [1]).await[0];
    let mut forged = granted;
    forged.token = token(99);
    assert_eq!(complete(engine, &partition, &forged).await, S::Lost);
    assert_eq!(engine.release(&partition, &[release(&forged)]).await.unwrap(), [S::Lost]);
    assert_eq!(complete(engine, &partition, &granted).await, S::Ok);
    assert_eq!(complete(engine, &partition, &granted).await, S::Unknown);
    assert_eq!(engine.release(&partition, &[release(&granted)]).await.unwrap(), [S::Unknown]);
    assert_eq!(place(engine, &partition, 1).await, None);
    // 2 waits: nobody holds it.
    let waiting = Complete { task: task(2), token: granted.token, outcome: Outcome::Done, note: Default::default() };
    assert_eq!(engine.complete(&partition, &[waiting]).await.unwrap(), [S::Unknown]);
    assert_eq!(place(engine, &partition, 2).await, Some(Place::Ready));
}

#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn a_release_puts_the_same_run_back(#[case] backend: Backend) {
    let rig = Rig::new(backend).await;
    let (engine, partition) = (&*rig.engine, partition());
    engine.enqueue(&partition, &[entry(1), entry_run(2, 3), entry(3)]).await.unwrap();
    let granted = lease(engine, &partition, 1..=3).await;
    let releases = [
        release(&granted[0]),
        Release { uncounted: true, delay: Duration::from_millis(250), ..release(&granted[1]) },
        Release { uncounted: true, ..release(&granted[2]) },
    ];
    assert_eq!(engine.release(&partition, &releases).await.unwrap(), [S::Ok; 3]);
    let inspected = engine.inspect(&partition, &[key(1), key(2), key(3)]).await.unwrap();
    let told: Vec<_> = inspected.iter().map(|i| i.unwrap()).map(|i| (i.place, i.run.get(), i.deliveries, i.remaining)).collect();
    let in_250_ms = Some(Duration::from_millis(250));
    assert_eq!(told, [(Place::Ready, 1, 1, None), (Place::Delayed, 3, 0, in_250_ms), (Place::Ready, 1, 0, None)]);
    rig.advance(Duration::from_millis(250)).await;
    let granted = lease(engine, &partition, 4..=9).await;
    let told: Vec<_> = granted.iter().map(|g| (number(g.key.task), g.run.get(), g.deliveries)).collect();
    assert_eq!(told, [(1, 1, 2), (3, 1, 1), (2, 3, 1)]);
}

#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn an_extended_lease_outlives_its_claim(#[case] backend: Backend) {
    let rig = Rig::new(backend).await;
    let (engine, partition) = (&*rig.engine, partition());
    fill(engine, &partition, [1]).await;
    let granted = lease(engine, &partition, [1]).await[0];
    // SQL gave a later run than was granted: the holder took over.
    let started = Extend { run: run(4), ..heartbeat(&granted) };
    assert_eq!(engine.extend(&partition, ExtendCause::Started, &[started]).await.unwrap(), [S::Ok]);
    rig.advance(CLAIM + Duration::from_secs(15)).await;
    assert_eq!(engine.tick(&partition, Default::default()).await.unwrap().reaped, 0);
    // A heartbeat under the old number does not take the run back.
    assert_eq!(engine.extend(&partition, ExtendCause::Heartbeat, &[heartbeat(&granted)]).await.unwrap(), [S::Ok]);
    let inspected = engine.inspect(&partition, &[key(1)]).await.unwrap()[0].unwrap();
    assert_eq!((inspected.run, inspected.remaining), (run(4), Some(Duration::from_secs(30))));
    let forged = Extend { token: token(99), run: run(9), ..heartbeat(&granted) };
    assert_eq!(engine.extend(&partition, ExtendCause::Heartbeat, &[forged]).await.unwrap(), [S::Lost]);
    assert_eq!(complete(engine, &partition, &granted).await, S::Ok);
}

#[rstest]
#[tokio::test]
async fn a_waiting_entry_is_adopted_by_its_holder(
    #[values(Backend::Memory, Backend::Redis)] backend: Backend,
    #[values(None, Some(Place::Ready), Some(Place::Delayed), Some(Place::Quarantined))] from: Option<Place>,
) {
    let rig = Rig::with(backend, EngineOptions { max_deliveries: 1, ..EngineOptions::default() }).await;
    let (engine, partition) = (&*rig.engine, partition());
    match from {
        None => {}
        Some(Place::Delayed) => drop(engine.enqueue(&partition, &[delayed(1, 900)]).await.unwrap()),
        Some(Place::Ready) => fill(engine, &partition, [1]).await,
        Some(Place::Leased | Place::Quarantined) => {
            fill(engine, &partition, [1]).await;
            lease(engine, &partition, [1]).await;
            rig.advance(CLAIM).await;
            engine.tick(&partition, Default::default()).await.unwrap();
        }
    }
    assert_eq!(place(engine, &partition, 1).await, from);
    let mine = Extend { key: key(1), run: run(2), token: token(5), deliveries: 3, ttl: Duration::from_secs(30) };
    assert_eq!(engine.extend(&partition, ExtendCause::Heartbeat, &[mine]).await.unwrap(), [S::Adopted]);
    assert_eq!(engine.extend(&partition, ExtendCause::Heartbeat, &[mine]).await.unwrap(), [S::Ok]);
    let inspected = engine.inspect(&partition, &[key(1)]).await.unwrap()[0].unwrap();
    assert_eq!((inspected.place, inspected.run, inspected.deliveries), (Place::Leased, run(2), 3));
    let stats = engine.stats(&partition).await.unwrap();
    assert_eq!((stats.ready, stats.delayed, stats.leased, stats.quarantined), (0, 0, 1, 0));
    assert_eq!(story(engine, &partition).await.last(), Some(&(Transition::Adopted, 1)));
    // The second master's grant: whoever comes later has lost.
    assert_eq!(engine.extend(&partition, ExtendCause::Heartbeat, &[Extend { token: token(6), ..mine }]).await.unwrap(), [S::Lost]);
}

#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn a_later_waiting_run_is_not_adopted(#[case] backend: Backend) {
    let rig = Rig::new(backend).await;
    let (engine, partition) = (&*rig.engine, partition());
    engine.enqueue(&partition, &[entry_run(1, 3)]).await.unwrap();
    let old = Extend { key: key(1), run: run(2), token: token(5), deliveries: 0, ttl: CLAIM };
    assert_eq!(engine.extend(&partition, ExtendCause::Heartbeat, &[old]).await.unwrap(), [S::Lost]);
    assert_eq!(place(engine, &partition, 1).await, Some(Place::Ready));
    let same = Extend { run: run(3), ..old };
    assert_eq!(engine.extend(&partition, ExtendCause::Heartbeat, &[same]).await.unwrap(), [S::Adopted]);
    let inspected = engine.inspect(&partition, &[key(1)]).await.unwrap()[0].unwrap();
    assert_eq!(inspected.deliveries, 1, "a lease was given out at least once");
}

#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn a_removal_is_bounded_by_its_run_and_tells_holders(#[case] backend: Backend) {
    let rig = Rig::new(backend).await;
    let (engine, partition) = (&*rig.engine, partition());
    let remove = async |number, up_to, take_lease| {
        let item = Remove { key: key(number), up_to: run(up_to), take_lease };
        engine.remove(&partition, &[item]).await.unwrap()[0]
    };
    engine.enqueue(&partition, &[entry(1), entry_run(2, 5), delayed(3, 100), entry(4)]).await.unwrap();
    assert_eq!(remove(9, 1, true).await, RemoveStatus::Unknown);
    assert_eq!(remove(1, 1, false).await, RemoveStatus::Removed);
    assert_eq!(remove(1, 1, false).await, RemoveStatus::Unknown);
    assert_eq!(remove(2, 4, true).await, RemoveStatus::Newer);
    assert_eq!(remove(3, 7, false).await, RemoveStatus::Removed);
    let granted = lease(engine, &partition, 1..=9).await;
    assert_eq!(numbers(&granted), [2, 4]);
    assert_eq!(remove(2, 4, true).await, RemoveStatus::Newer);
    assert_eq!(remove(2, 5, false).await, RemoveStatus::Leased(granted[0].token));
    assert_eq!(place(engine, &partition, 2).await, Some(Place::Leased));
    assert_eq!(remove(2, 5, true).await, RemoveStatus::Leased(granted[0].token));
    assert_eq!(place(engine, &partition, 2).await, None);
    assert_eq!(complete(engine, &partition, &granted[0]).await, S::Unknown);
    assert_eq!(engine.missing(&partition, &[(key(4), run(1))]).await.unwrap(), [Presence::Present]);
}

/// Tasks of one call are told apart: each gets the reply of its own state.
#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn replies_come_in_the_order_of_the_items(#[case] backend: Backend) {
    let rig = Rig::new(backend).await;
    let (engine, partition) = (&*rig.engine, partition());
    fill(engine, &partition, 1..=4).await;
    let granted = lease(engine, &partition, 1..=3).await;
    let wrong = Complete { token: token(50), ..done(&granted[1]) };
    let unknown = Complete { task: task(77), ..done(&granted[0]) };
    let items = [unknown, done(&granted[2]), wrong, done(&granted[0])];
    assert_eq!(engine.complete(&partition, &items).await.unwrap(), [S::Unknown, S::Ok, S::Lost, S::Ok]);
    let removes = [2, 8, 4].map(|number| Remove { key: key(number), up_to: run(1), take_lease: false });
    let replies = engine.remove(&partition, &removes).await.unwrap();
    assert_eq!(replies, [RemoveStatus::Leased(granted[1].token), RemoveStatus::Unknown, RemoveStatus::Removed]);
}
