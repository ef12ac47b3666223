//! In what order entries come out.

use oxcart_queue::{EngineOptions, EntryKey, Release};
use rstest::rstest;

use crate::support::{Backend, Rig, items::*, partition};

fn in_band(number: u64, band: u8) -> EntryKey {
    EntryKey { band, ..key(number) }
}

fn of_tenant(number: u64, fairness: u32) -> EntryKey {
    EntryKey { fairness, ..key(number) }
}

#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn first_in_first_out_over_calls_and_within_one(#[case] backend: Backend) {
    let rig = Rig::new(backend).await;
    let (engine, partition) = (&*rig.engine, partition());
    // Descending ids: their order must not matter.
    fill(engine, &partition, [9, 8, 7]).await;
    fill(engine, &partition, [6, 5]).await;
    assert_eq!(numbers(&lease(engine, &partition, 1..=2).await), [9, 8]);
    fill(engine, &partition, [4]).await;
    assert_eq!(numbers(&lease(engine, &partition, 3..=9).await), [7, 6, 5, 4]);
}

#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn lower_bands_go_first(#[case] backend: Backend) {
    let rig = Rig::new(backend).await;
    let (engine, partition) = (&*rig.engine, partition());
    let items: Vec<_> = [(1, 9), (2, 0), (3, 4), (4, 0), (5, 9)].map(|(number, band)| entry_of(in_band(number, band))).into();
    engine.enqueue(&partition, &items).await.unwrap();
    assert_eq!(engine.stats(&partition).await.unwrap().next_ready, Some(task(2)));
    assert_eq!(numbers(&lease(engine, &partition, 1..=9).await), [2, 4, 3, 1, 5]);
}

#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn keys_of_a_band_take_turns(#[case] backend: Backend) {
    let rig = Rig::new(backend).await;
    let (engine, partition) = (&*rig.engine, partition());
    // One tenant floods, another comes later with little.
    let flood: Vec<_> = (1..=100).map(|number| entry_of(of_tenant(number, 1))).collect();
    engine.enqueue(&partition, &flood).await.unwrap();
    lease(engine, &partition, 1..=50).await;
    let late: Vec<_> = (201..=203).map(|number| entry_of(of_tenant(number, 2))).collect();
    engine.enqueue(&partition, &late).await.unwrap();
    let next = numbers(&lease(engine, &partition, 51..=56).await);
    assert_eq!(next.iter().filter(|number| **number > 200).count(), 3, "{next:?}");
    assert!(next.iter().filter(|number| **number > 200).is_sorted());
    assert_eq!(numbers(&lease(engine, &partition, 60..=61).await), [54, 55]);
}

/// A key that was idle has saved up no turns, and bands do not disturb each other.
#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn an_idle_key_saves_up_no_turns(#[case] backend: Backend) {
    let rig = Rig::new(backend).await;
    let (engine, partition) = (&*rig.engine, partition());
    engine.enqueue(&partition, &[entry_of(of_tenant(900, 2))]).await.unwrap();
    let busy: Vec<_> = (1..=60).map(|number| entry_of(of_tenant(number, 1))).collect();
    engine.enqueue(&partition, &busy).await.unwrap();
    lease(engine, &partition, 1..=41).await;
    let back: Vec<_> = (901..=910).map(|number| entry_of(of_tenant(number, 2))).collect();
    engine.enqueue(&partition, &back).await.unwrap();
    let next = numbers(&lease(engine, &partition, 100..110).await);
    let returned = next.iter().filter(|number| **number > 900).count();
    assert!((4..=6).contains(&returned), "half of the turns: {next:?}");
    // In another band, a tenant begins where that band stands, not where this one does.
    let mut urgent: Vec<_> = (300..=320).map(|number| entry_of(EntryKey { fairness: 1, ..in_band(number, 0) })).collect();
    urgent.insert(20, entry_of(EntryKey { fairness: 2, ..in_band(400, 0) }));
    engine.enqueue(&partition, &urgent).await.unwrap();
    let next = numbers(&lease(engine, &partition, 200..202).await);
    assert_eq!(next, [300, 400]);
}

#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn the_lowest_band_comes_first_every_so_often(#[case] backend: Backend) {
    let rig = Rig::with(backend, EngineOptions { lowest_band_every: 4, ..EngineOptions::default() }).await;
    let (engine, partition) = (&*rig.engine, partition());
    let mut items: Vec<_> = (1..=20).map(|number| entry_of(in_band(number, 0))).collect();
    items.extend((101..=103).map(|number| entry_of(in_band(number, 7))));
    items.extend((201..=202).map(|number| entry_of(in_band(number, 8))));
    engine.enqueue(&partition, &items).await.unwrap();
    let mut served = Vec::new();
    for turn in 0..8_u64 {
        served.push(numbers(&lease(engine, &partition, [2 * turn + 1, 2 * turn + 2]).await));
    }
    // A call that finds the lowest band used up goes on from the front.
    assert_eq!(served, [vec![1, 2], vec![3, 4], vec![5, 6], vec![201, 202], vec![7, 8], vec![9, 10], vec![11, 12], vec![101, 102]]);
    lease(engine, &partition, 21..=23).await;
    lease(engine, &partition, [24]).await;
    lease(engine, &partition, [25]).await;
    assert_eq!(numbers(&lease(engine, &partition, [26, 27]).await), [103, 18]);
}

/// Calls that give nothing out do not count as turns.
#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn idle_polls_are_no_turns(#[case] backend: Backend) {
    let rig = Rig::with(backend, EngineOptions { lowest_band_every: 2, ..EngineOptions::default() }).await;
    let (engine, partition) = (&*rig.engine, partition());
    for poll in 1..=3 {
        lease(engine, &partition, [poll]).await;
    }
    assert_eq!(engine.stats(&partition).await.unwrap().seq, 0, "an idle poll writes nothing");
    engine.enqueue(&partition, &[entry_of(in_band(1, 0)), entry_of(in_band(2, 0)), entry_of(in_band(3, 9))]).await.unwrap();
    assert_eq!(numbers(&lease(engine, &partition, [4]).await), [1]);
    assert_eq!(numbers(&lease(engine, &partition, [5]).await), [3]);
}

#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn what_is_given_back_goes_to_the_end_of_its_line(#[case] backend: Backend) {
    let rig = Rig::new(backend).await;
    let (engine, partition) = (&*rig.engine, partition());
    fill(engine, &partition, 1..=3).await;
    let granted = lease(engine, &partition, [1]).await[0];
    engine.release(&partition, &[Release { uncounted: true, ..release(&granted) }]).await.unwrap();
    assert_eq!(numbers(&lease(engine, &partition, 2..=4).await), [2, 3, 1]);
}

#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn order_starts_anew_once_nothing_is_ready(#[case] backend: Backend) {
    let rig = Rig::new(backend).await;
    let (engine, partition) = (&*rig.engine, partition());
    let flood: Vec<_> = (1..=10).map(|number| entry_of(of_tenant(number, 1))).collect();
    engine.enqueue(&partition, &flood).await.unwrap();
    lease(engine, &partition, 1..=10).await;
    engine.tick(&partition, Default::default()).await.unwrap();
    engine
        .enqueue(&partition, &[entry_of(of_tenant(11, 1)), entry_of(of_tenant(12, 2)), entry_of(of_tenant(13, 1))])
        .await
        .unwrap();
    assert_eq!(numbers(&lease(engine, &partition, 20..=22).await), [11, 12, 13]);
}

/// Keys that come but once stand in line with those that come back, not in front of them for ever.
#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn a_stream_of_new_keys_starves_nobody(#[case] backend: Backend) {
    let rig = Rig::new(backend).await;
    let (engine, partition) = (&*rig.engine, partition());
    engine.enqueue(&partition, &[entry_of(of_tenant(1, 1)), entry_of(of_tenant(2, 1))]).await.unwrap();
    let mut served = Vec::new();
    for round in 1..=30_u64 {
        let strangers: Vec<_> =
            (round * 100..(round + 1) * 100).map(|n| entry_of(of_tenant(n, u32::try_from(n).unwrap()))).collect();
        engine.enqueue(&partition, &strangers).await.unwrap();
        served.extend(numbers(&lease(engine, &partition, round * 100..(round + 1) * 100).await));
    }
    let waited = served.iter().position(|number| *number == 2);
    assert!(waited.is_some_and(|waited| waited < 1500), "{waited:?}");
}
