//! Operations that page over a partition: list, check.

use std::collections::BTreeSet;

use oxcart_queue::{EngineOptions, EntryKey, Inspected, PageCursor, Partition, Place, QueueEngine, QueueError, TickLimits};
use rstest::rstest;

use crate::support::{Backend, Rig, items::*, partition};

/// All pages of a place.
async fn listed(engine: &dyn QueueEngine, partition: &Partition, place: Place, limit: usize) -> Vec<Inspected> {
    let (mut entries, mut from) = (Vec::new(), None);
    loop {
        let page = engine.list(partition, place, from.as_ref(), limit).await.expect("list");
        entries.extend(page.entries);
        from = page.next;
        if from.is_none() {
            return entries;
        }
    }
}

#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn every_entry_is_listed_in_its_place(#[case] backend: Backend) {
    let rig = Rig::with(backend, EngineOptions { max_deliveries: 1, ..EngineOptions::default() }).await;
    let (engine, partition) = (&*rig.engine, partition());
    // 1 goes into quarantine, 2 is leased with run 3, 3 is ready with a fairness key, 4 is delayed.
    fill(engine, &partition, [1]).await;
    lease(engine, &partition, [1]).await;
    rig.advance(CLAIM).await;
    engine.tick(&partition, TickLimits::default()).await.unwrap();
    engine.enqueue(&partition, &[entry_run(2, 3)]).await.unwrap();
    lease(engine, &partition, [2]).await;
    let fair = EntryKey { band: 2, fairness: 77, ..key(3) };
    engine.enqueue(&partition, &[entry_of(fair), delayed(4, 800)]).await.unwrap();
    for place in [Place::Ready, Place::Delayed, Place::Leased, Place::Quarantined] {
        let [found] = listed(engine, &partition, place, 10).await.try_into().expect("one entry");
        let inspected = engine.inspect(&partition, &[found.key]).await.unwrap();
        assert_eq!(inspected, [Some(found)], "what is listed is what is inspected");
        assert_eq!(found.place, place);
    }
    let [ready] = listed(engine, &partition, Place::Ready, 10).await.try_into().expect("one entry");
    assert_eq!(ready.key, fair, "the key is told in full: it takes the entry out");
}

#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn pages_cover_what_stays_while_entries_come_and_go(#[case] backend: Backend) {
    let rig = Rig::new(backend).await;
    let (engine, partition) = (&*rig.engine, partition());
    for start in [0, 500] {
        fill(engine, &partition, start..start + 500).await;
    }
    // The first ones are leased in between; what is not stays in its place and must be seen.
    let (mut seen, mut from, mut token, mut pages) = (BTreeSet::new(), None, 10_000, 0);
    loop {
        let page = engine.list(&partition, Place::Ready, from.as_ref(), 100).await.unwrap();
        seen.extend(page.entries.iter().map(|entry| number(entry.key.task)));
        lease(engine, &partition, token..token + 20).await;
        fill(engine, &partition, [5000 + token]).await;
        (token, pages) = (token + 20, pages + 1);
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    assert!(pages >= 5, "{pages} pages for 1000 entries, 100 at a time");
    let leased: BTreeSet<_> =
        listed(engine, &partition, Place::Leased, 100).await.iter().map(|entry| number(entry.key.task)).collect();
    assert_eq!(leased.len(), 20 * pages);
    for stayed in (0..1000).filter(|number| !leased.contains(number)) {
        assert!(seen.contains(&stayed), "{stayed} was ready all the time");
    }
}

#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn pages_of_nothing_are_empty_and_cursors_are_checked(#[case] backend: Backend) {
    let rig = Rig::new(backend).await;
    let (engine, partition) = (&*rig.engine, partition());
    assert!(listed(engine, &partition, Place::Ready, 10).await.is_empty());
    assert!(engine.partitions().await.unwrap().is_empty(), "a look makes no partition");
    for bad in ["", "x", "9.9", "r", "r0.0.x", "1.x"] {
        let cursor = PageCursor(bad.to_owned());
        let list = engine.list(&partition, Place::Leased, Some(&cursor), 10).await;
        assert!(matches!(list, Err(QueueError::BadCall(_))), "{bad}: {list:?}");
        let check = engine.check(&partition, Some(&cursor), 10).await;
        assert!(matches!(check, Err(QueueError::BadCall(_))), "{bad}: {check:?}");
    }
}

#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn a_sound_partition_has_no_damage(#[case] backend: Backend) {
    let rig = Rig::new(backend).await;
    let (engine, partition) = (&*rig.engine, partition());
    fill(engine, &partition, 0..500).await;
    lease(engine, &partition, 0..100).await;
    engine.enqueue(&partition, &[delayed(600, 1000), entry_run(601, 4)]).await.unwrap();
    let mut from = None;
    loop {
        let page = engine.check(&partition, from.as_ref(), 50).await.unwrap();
        assert_eq!(page.damaged, []);
        from = page.next;
        if from.is_none() {
            break;
        }
    }
}
