//! Settings of a queue: a pause stops what is given out, and nothing else.

use std::time::Duration;

use oxcart_queue::{LeaseRequest, LeaseStatus, Place, Settings, Wakeup};
use rstest::rstest;

use crate::support::{Backend, Rig, items::*, partition};

const PAUSED: Settings = Settings { revision: 7, paused: true };
const RESUMED: Settings = Settings { revision: 8, paused: false };

#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn nothing_is_given_out_while_paused_and_all_else_goes_on(#[case] backend: Backend) {
    let rig = Rig::new(backend).await;
    let (engine, partition) = (&*rig.engine, partition());
    fill(engine, &partition, [1, 2]).await;
    let held = lease(engine, &partition, [1]).await[0];
    assert_eq!(engine.configure(&partition, PAUSED).await.unwrap(), PAUSED);
    engine.enqueue(&partition, &[delayed(3, 50)]).await.unwrap();
    rig.advance(Duration::from_millis(50)).await;
    let leased = engine.lease(&partition, &request(10..30)).await.unwrap();
    assert_eq!((leased.granted.len(), leased.ready, leased.settings), (0, 2, PAUSED), "what is due is made ready");
    assert_eq!(place(engine, &partition, 3).await, Some(Place::Ready));
    assert_eq!(complete(engine, &partition, &held).await, LeaseStatus::Ok, "a running task ends");
    assert_eq!(engine.stats(&partition).await.unwrap().settings, PAUSED);
    engine.configure(&partition, RESUMED).await.unwrap();
    assert_eq!(numbers(&lease(engine, &partition, [40, 41]).await), [2, 3]);
}

#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn the_newest_settings_stay(#[case] backend: Backend) {
    let rig = Rig::new(backend).await;
    let (engine, partition) = (&*rig.engine, partition());
    assert_eq!(engine.stats(&partition).await.unwrap().settings, Settings::default());
    engine.configure(&partition, RESUMED).await.unwrap();
    for older in [PAUSED, Settings { paused: true, ..RESUMED }, Settings::default()] {
        let seq = engine.stats(&partition).await.unwrap().seq;
        assert_eq!(engine.configure(&partition, older).await.unwrap(), RESUMED);
        assert_eq!(engine.stats(&partition).await.unwrap().seq, seq, "nothing changed");
    }
    fill(engine, &partition, [1]).await;
    assert_eq!(lease(engine, &partition, [1]).await.len(), 1);
}

/// A partition that was lost has no settings; whoever remembers a pause brings it back before anything is given out.
#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn a_lease_call_brings_the_settings_that_its_caller_knows(#[case] backend: Backend) {
    let rig = Rig::new(backend).await;
    let (engine, partition) = (&*rig.engine, partition());
    fill(engine, &partition, [1]).await;
    let leased = engine.lease(&partition, &LeaseRequest { settings: PAUSED, ..request([1]) }).await.unwrap();
    assert_eq!((leased.granted.len(), leased.settings), (0, PAUSED));
    let leased = engine.lease(&partition, &request([2])).await.unwrap();
    assert_eq!((leased.granted.len(), leased.settings), (0, PAUSED), "it stays for callers that know nothing");
    let leased = engine.lease(&partition, &LeaseRequest { settings: RESUMED, ..request([3]) }).await.unwrap();
    assert_eq!((leased.granted.len(), leased.settings), (1, RESUMED));
}

#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn the_end_of_a_pause_is_announced(#[case] backend: Backend) {
    let rig = Rig::new(backend).await;
    let (engine, partition) = (&*rig.engine, partition());
    fill(engine, &partition, [1]).await;
    engine.configure(&partition, PAUSED).await.unwrap();
    let mut wakeups = engine.wakeups();
    engine.configure(&partition, RESUMED).await.unwrap();
    assert_eq!(wakeups.try_recv().unwrap(), Wakeup { partition, ready: true });
}
