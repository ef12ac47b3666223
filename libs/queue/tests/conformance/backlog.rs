//! A deep backlog.

use std::collections::HashMap;

use oxcart_queue::{EngineOptions, EnqueueStatus, EntryKey, LeaseStatus};
use rstest::rstest;

use crate::support::{Backend, Rig, items::*, partition};

const BACKLOG: u64 = 200_000;

/// Bands and keys are mixed by id.
fn key_of(number: u64) -> EntryKey {
    let band = u8::try_from(number * 7 % 10).expect("below ten");
    EntryKey { band, fairness: u32::try_from(number % 13 % 3).expect("below three"), ..key(number) }
}

#[rstest]
#[case(Backend::Memory)]
#[case(Backend::Redis)]
#[tokio::test]
async fn two_hundred_thousand_go_in_and_come_out_once_in_order(#[case] backend: Backend) {
    let options = EngineOptions { window: BACKLOG, lowest_band_every: 0, ..EngineOptions::default() };
    let rig = Rig::with(backend, options).await;
    let (engine, partition) = (&*rig.engine, partition());
    for thousand in 0..BACKLOG / 1000 {
        let items: Vec<_> = (thousand * 1000..).take(1000).map(|number| entry_of(key_of(number))).collect();
        let statuses = engine.enqueue(&partition, &items).await.unwrap();
        assert!(statuses.iter().all(|status| *status == EnqueueStatus::Created));
    }
    assert_eq!(engine.enqueue(&partition, &[entry(BACKLOG)]).await.unwrap(), [EnqueueStatus::WindowFull]);
    assert_eq!(engine.stats(&partition).await.unwrap().ready, BACKLOG);

    let mut came_out = vec![false; usize::try_from(BACKLOG).unwrap()];
    let mut last_band = 0;
    let mut last_of_line: HashMap<(u8, u32), u64> = HashMap::new();
    let mut tokens = 0..;
    loop {
        let leased = engine.lease(&partition, &request(tokens.by_ref().take(1000))).await.unwrap();
        if leased.granted.is_empty() {
            break;
        }
        for granted in &leased.granted {
            let number = number(granted.key.task);
            assert_eq!(granted.key, key_of(number));
            let seen = &mut came_out[usize::try_from(number).unwrap()];
            assert!(!*seen, "{number} came out twice");
            *seen = true;
            assert!(granted.key.band >= last_band, "band {} after band {last_band}", granted.key.band);
            last_band = granted.key.band;
            let line = last_of_line.insert((granted.key.band, granted.key.fairness), number);
            assert!(line.is_none_or(|before| before < number), "{number} after {line:?}");
        }
        let ends: Vec<_> = leased.granted.iter().map(done).collect();
        let statuses = engine.complete(&partition, &ends).await.unwrap();
        assert!(statuses.iter().all(|status| *status == LeaseStatus::Ok));
    }
    assert!(came_out.into_iter().all(|seen| seen));
    let stats = engine.stats(&partition).await.unwrap();
    assert_eq!((stats.ready, stats.delayed, stats.leased, stats.quarantined), (0, 0, 0, 0));
}
