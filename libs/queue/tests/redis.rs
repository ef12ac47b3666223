//! What only an engine on Redis meets: several engines, a wiped or foreign server, lost scripts and messages.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::{sync::Arc, time::Duration};

use oxcart_queue::{
    Damage, Damaged, EngineOptions, ExtendCause, JournalFrom, JournalId, LeaseStatus, Partition, Place, QueueEngine, QueueError,
    RedisEngine, RedisOptions, Remove, RemoveStatus, Wakeup,
};
use oxcart_testkit::RedisServer;
use tokio::sync::broadcast::Receiver;

use crate::support::{deployment, items::*, partition, redis_options};

async fn private() -> RedisServer {
    RedisServer::start(Default::default()).await.expect("a redis-server")
}

async fn connect(server: &RedisServer, options: EngineOptions) -> RedisEngine {
    RedisEngine::connect(redis_options(server), options).await.expect("connect")
}

/// Waits for the announcement of a partition.
async fn announced(wakeups: &mut Receiver<Wakeup>, partition: &Partition) {
    let heard = async { while wakeups.recv().await.expect("announcements").partition != *partition {} };
    tokio::time::timeout(Duration::from_secs(20), heard).await.expect("an announcement");
}

/// Subscriptions are made in the background: acts until the other engine hears of it.
async fn until_heard(wakeups: &mut Receiver<Wakeup>, act: impl AsyncFn(u64)) {
    let mut number = 0;
    while wakeups.is_empty() {
        assert!(number < 2000, "never heard");
        act(number).await;
        number += 1;
        tokio::time::timeout(Duration::from_millis(10), std::future::pending::<()>()).await.expect_err("waits");
    }
}

#[tokio::test]
async fn engines_hear_each_other() {
    let server = private().await;
    let options = EngineOptions::default();
    let (one, two) = (connect(&server, options.clone()).await, connect(&server, options).await);
    let other = Partition { number: 3, ..partition() };
    let mut wakeups = two.wakeups();
    until_heard(&mut wakeups, async |number| fill(&one, &partition(), [number]).await).await;
    fill(&one, &other, [1]).await;
    announced(&mut wakeups, &other).await;
    // What one engine put in, the other gives out and ends.
    let granted = lease(&two, &other, [1]).await[0];
    assert_eq!(complete(&one, &other, &granted).await, LeaseStatus::Ok);
    assert_eq!(two.partitions().await.unwrap(), one.partitions().await.unwrap());
}

#[tokio::test]
async fn deployments_do_not_hear_or_see_each_other() {
    let server = private().await;
    let of = |name: &str| EngineOptions { deployment: name.to_owned(), ..EngineOptions::default() };
    let (one, two) = (connect(&server, of("one")).await, connect(&server, of("two")).await);
    let (three, mut heard_by_two) = (connect(&server, of("two")).await, two.wakeups());
    until_heard(&mut heard_by_two, async |number| fill(&three, &partition(), [number]).await).await;
    while heard_by_two.try_recv().is_ok() {}
    fill(&one, &partition(), [9999]).await;
    assert_eq!(two.inspect(&partition(), &[key(9999)]).await.unwrap(), [None]);
    let marker = Partition { number: 8, ..partition() };
    fill(&three, &marker, [1]).await;
    loop {
        let heard = tokio::time::timeout(Duration::from_secs(20), heard_by_two.recv()).await.unwrap().unwrap();
        if heard.partition == marker {
            break;
        }
        assert_eq!(heard.partition, partition(), "late echoes of three at most");
    }
}

#[tokio::test]
async fn wake_ups_come_back_after_a_restart() {
    let server = private().await;
    let options = EngineOptions::default();
    let (one, two) = (connect(&server, options.clone()).await, connect(&server, options).await);
    let mut wakeups = two.wakeups();
    until_heard(&mut wakeups, async |number| fill(&one, &partition(), [number]).await).await;
    server.restart().await.unwrap();
    let mut wakeups = two.wakeups();
    until_heard(&mut wakeups, async |number| {
        // The first call may meet the broken connection; it says so and the next one works.
        let _ = one.enqueue(&partition(), &[entry(number)]).await;
    })
    .await;
}

#[tokio::test]
async fn a_wiped_server_is_a_new_incarnation_and_running_work_is_adopted() {
    let server = private().await;
    let engine = connect(&server, EngineOptions::default()).await;
    fill(&engine, &partition(), [1, 2]).await;
    let granted = lease(&engine, &partition(), [1]).await[0];
    let before = engine.stats(&partition()).await.unwrap();
    let read = engine.journal(&partition(), JournalFrom::Oldest, 10).await.unwrap();
    server.flush_all().await.unwrap();

    assert_eq!(engine.extend(&partition(), ExtendCause::Heartbeat, &[heartbeat(&granted)]).await.unwrap(), [LeaseStatus::Adopted]);
    let after = engine.stats(&partition()).await.unwrap();
    assert_ne!(after.incarnation, before.incarnation);
    assert!(after.seq < before.seq);
    assert_eq!((after.ready, after.leased), (0, 1));
    assert_eq!(engine.partitions().await.unwrap(), [partition()], "the registry came back, too");
    let journal = engine.journal(&partition(), JournalFrom::After(read.last), 10).await.unwrap();
    assert_eq!((journal.gap, journal.entries.len()), (true, 1));
    assert_eq!(complete(&engine, &partition(), &granted).await, LeaseStatus::Ok);
}

#[tokio::test]
async fn an_empty_journal_after_a_wipe_is_a_gap() {
    let server = private().await;
    let engine = connect(&server, EngineOptions::default()).await;
    fill(&engine, &partition(), [1]).await;
    let read = engine.journal(&partition(), JournalFrom::Oldest, 10).await.unwrap();
    server.flush_all().await.unwrap();
    let wiped = engine.journal(&partition(), JournalFrom::After(read.last), 10).await.unwrap();
    assert_eq!((wiped.gap, wiped.last), (true, JournalId::default()));
}

#[tokio::test]
async fn lost_scripts_are_loaded_again() {
    let server = private().await;
    let engine = connect(&server, EngineOptions::default()).await;
    fill(&engine, &partition(), [1]).await;
    server.command("SCRIPT FLUSH").await.unwrap();
    fill(&engine, &partition(), [2]).await;
    assert_eq!(numbers(&lease(&engine, &partition(), 1..=2).await), [1, 2]);
}

#[tokio::test]
async fn a_server_that_evicts_is_refused() {
    let server = private().await;
    server.command("CONFIG SET maxmemory-policy allkeys-lru").await.unwrap();
    let refused = RedisEngine::connect(redis_options(&server), EngineOptions::default()).await;
    assert!(matches!(&refused, Err(QueueError::Unsafe(why)) if why.contains("allkeys-lru")), "{refused:?}");
    let allowed = RedisOptions { allow_eviction: true, ..redis_options(&server) };
    RedisEngine::connect(allowed, EngineOptions::default()).await.unwrap().ping().await.unwrap();
}

/// CONFIG is often hidden; INFO tells as well.
#[tokio::test]
async fn the_policy_is_learnt_without_config() {
    let server = private().await;
    let as_user = |user: &str| RedisOptions {
        url: server.url().replace("redis://", &format!("redis://{user}:secret@")),
        ..redis_options(&server)
    };
    server.command("ACL SETUSER tight on >secret ~* &* +@all -config").await.unwrap();
    server.command("ACL SETUSER tighter on >secret ~* &* +@all -config -info").await.unwrap();
    let engine = RedisEngine::connect(as_user("tight"), EngineOptions::default()).await.unwrap();
    fill(&engine, &partition(), [1]).await;
    let refused = RedisEngine::connect(as_user("tighter"), EngineOptions::default()).await;
    assert!(matches!(refused, Err(QueueError::Unsafe(_))), "{refused:?}");
    server.command("CONFIG SET maxmemory-policy volatile-ttl").await.unwrap();
    let refused = RedisEngine::connect(as_user("tight"), EngineOptions::default()).await;
    assert!(matches!(refused, Err(QueueError::Unsafe(_))), "{refused:?}");
}

/// The engine works with the few rights that a deployment should give it.
#[tokio::test]
async fn few_rights_are_enough() {
    let server = private().await;
    let rights = "+@read +@write +eval +evalsha +script|load +time +info +ping +publish +subscribe +unwatch";
    server.command(&format!("ACL SETUSER oxcart on >secret ~ox:* &ox:* {rights} -flushall -flushdb -keys")).await.unwrap();
    let url = server.url().replace("redis://", "redis://oxcart:secret@");
    let redis = RedisOptions { url, ..redis_options(&server) };
    let one = RedisEngine::connect(redis.clone(), EngineOptions::default()).await.unwrap();
    let two = RedisEngine::connect(redis, EngineOptions::default()).await.unwrap();
    let mut wakeups = two.wakeups();
    until_heard(&mut wakeups, async |number| fill(&one, &partition(), [number]).await).await;
    let granted = lease(&one, &partition(), [1]).await[0];
    one.extend(&partition(), ExtendCause::Started, &[heartbeat(&granted)]).await.unwrap();
    assert_eq!(complete(&one, &partition(), &granted).await, LeaseStatus::Ok);
    one.tick(&partition(), Default::default()).await.unwrap();
    assert_eq!(place(&one, &partition(), 0).await, None);
    assert!(!journal(&one, &partition()).await.is_empty());
    assert_eq!(one.partitions().await.unwrap(), [partition()]);
}

#[tokio::test]
async fn a_partition_of_another_deployment_is_not_touched() {
    let server = private().await;
    let engine = connect(&server, EngineOptions::default()).await;
    fill(&engine, &partition(), [1]).await;
    server.command("HSET ox:{oxcart:mail:0}:i deployment theirs").await.unwrap();
    let refused = engine.enqueue(&partition(), &[entry(2)]).await;
    assert!(matches!(&refused, Err(QueueError::Unsafe(why)) if why.contains("theirs")), "{refused:?}");
    assert_eq!(server.command("ZCARD ox:{oxcart:mail:0}:r").await.unwrap(), "1");
}

#[tokio::test]
async fn foreign_data_is_told_as_such() {
    let server = private().await;
    let engine = connect(&server, EngineOptions::default()).await;
    server.command("SET ox:{oxcart:mail:0}:r junk").await.unwrap();
    let corrupt = engine.stats(&partition()).await;
    assert!(matches!(corrupt, Err(QueueError::Corrupt(_))), "{corrupt:?}");
    server.command("XADD ox:{oxcart:mail:1}:j * c junk").await.unwrap();
    let corrupt = engine.journal(&Partition { number: 1, ..partition() }, JournalFrom::Oldest, 1).await;
    assert!(matches!(corrupt, Err(QueueError::Corrupt(_))), "{corrupt:?}");
}

/// All pages of a check.
async fn damage(engine: &RedisEngine) -> Vec<Damaged> {
    let (mut damaged, mut from) = (Vec::new(), None);
    loop {
        let page = engine.check(&partition(), from.as_ref(), 100).await.expect("check");
        damaged.extend(page.damaged);
        from = page.next;
        if from.is_none() {
            return damaged;
        }
    }
}

/// A key or value as redis-cli takes any bytes.
fn quoted(bytes: &[u8]) -> String {
    let escaped: String = bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect();
    format!("\"{escaped}\"")
}

#[tokio::test]
async fn damage_is_named_and_taken_out() {
    let server = private().await;
    let engine = connect(&server, EngineOptions::default()).await;
    fill(&engine, &partition(), 1..=4).await;
    let granted = lease(&engine, &partition(), [1, 2]).await;
    let id = |number| quoted(task(number).as_bytes());
    // 1 loses its record, 2 the end of its lease, 3 is delayed besides, 4 is whole; a lease is made up for 9.
    server.command(&format!("HDEL ox:{{oxcart:mail:0}}:h {}", id(1))).await.unwrap();
    server.command(&format!("ZREM ox:{{oxcart:mail:0}}:l {}", id(2))).await.unwrap();
    let member = [task(3).as_bytes().as_slice(), &[key(3).band], &key(3).fairness.to_be_bytes()].concat();
    server.command(&format!("ZADD ox:{{oxcart:mail:0}}:d 99999999999999 {}", quoted(&member))).await.unwrap();
    server.command(&format!("ZADD ox:{{oxcart:mail:0}}:l 99999999999999 {}", id(9))).await.unwrap();

    let mut found = damage(&engine).await;
    found.sort_by_key(|damaged| damaged.task);
    found.dedup();
    let known = |number| Some((key(number), run(1)));
    let expected = [
        Damaged { task: task(1), known: None, damage: Damage::LeaseWithoutRecord },
        Damaged { task: task(2), known: known(2), damage: Damage::RecordWithoutLease },
        Damaged { task: task(3), known: known(3), damage: Damage::TwoPlaces },
        Damaged { task: task(9), known: None, damage: Damage::LeaseWithoutRecord },
    ];
    assert_eq!(found, expected);

    // One call for each place that they are in.
    let remove = |number| Remove { key: key(number), up_to: run(1), take_lease: true };
    let all = [1, 2, 3, 9].map(remove);
    let removed = engine.remove(&partition(), &all).await.unwrap();
    assert_eq!(
        removed,
        [RemoveStatus::Removed, RemoveStatus::Leased(granted[1].token), RemoveStatus::Removed, RemoveStatus::Removed]
    );
    assert_eq!(engine.remove(&partition(), &all).await.unwrap()[2], RemoveStatus::Removed);
    assert_eq!(engine.remove(&partition(), &all).await.unwrap(), [RemoveStatus::Unknown; 4]);
    assert_eq!(damage(&engine).await, []);
    let stats = engine.stats(&partition()).await.unwrap();
    assert_eq!((stats.ready, stats.delayed, stats.leased), (1, 0, 0), "4 is untouched");
}

#[tokio::test]
async fn a_full_server_takes_nothing_in_but_lets_work_out() {
    let server = private().await;
    let engine = connect(&server, EngineOptions::default()).await;
    fill(&engine, &partition(), 0..500).await;
    server.command("CONFIG SET maxmemory 1").await.unwrap();
    let refused = engine.enqueue(&partition(), &[entry(1000)]).await;
    assert!(matches!(refused, Err(QueueError::Unavailable(_))), "{refused:?}");
    let granted = lease(&engine, &partition(), 0..500).await;
    assert_eq!(granted.len(), 500);
    let ends: Vec<_> = granted[1..].iter().map(done).collect();
    assert!(engine.complete(&partition(), &ends).await.unwrap().iter().all(|status| *status == LeaseStatus::Ok));
    engine.release(&partition(), &[release(&granted[0])]).await.unwrap();
    engine.tick(&partition(), Default::default()).await.unwrap();
    assert_eq!(engine.stats(&partition()).await.unwrap().ready, 1);
}

#[tokio::test]
async fn a_server_that_hangs_or_dies_is_unavailable_and_comes_back() {
    let server = private().await;
    let patient = redis_options(&server);
    let hasty = RedisOptions { timeout: Duration::from_millis(100), ..patient.clone() };
    let engine = RedisEngine::connect(patient, EngineOptions::default()).await.unwrap();
    let hasty = RedisEngine::connect(hasty, EngineOptions::default()).await.unwrap();
    fill(&engine, &partition(), [1]).await;
    server.process().pause().unwrap();
    let hangs = hasty.ping().await;
    assert!(matches!(hangs, Err(QueueError::Unavailable(_))), "{hangs:?}");
    server.process().resume().unwrap();
    engine.ping().await.unwrap();
    server.process().kill().unwrap();
    let dead = hasty.ping().await;
    assert!(matches!(dead, Err(QueueError::Unavailable(_))), "{dead:?}");
    let dead = RedisEngine::connect(redis_options(&server), EngineOptions::default()).await;
    assert!(matches!(dead, Err(QueueError::Unavailable(_))), "{dead:?}");
    server.restart().await.unwrap();
    let back = async { while engine.ping().await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(20), back).await.expect("it comes back");
    fill(&engine, &partition(), [1]).await;
}

/// Without a clock key, time is that of the server: it moves by itself.
#[tokio::test]
async fn time_is_that_of_the_server() {
    let server = private().await;
    let engine = connect(&server, EngineOptions::default()).await;
    engine.enqueue(&partition(), &[delayed(1, 20), delayed(2, 3_600_000)]).await.unwrap();
    let due = async {
        while engine.tick(&partition(), Default::default()).await.unwrap().promoted == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), due).await.expect("becomes due");
    assert_eq!(place(&engine, &partition(), 1).await, Some(Place::Ready));
    assert_eq!(place(&engine, &partition(), 2).await, Some(Place::Delayed));
}

/// Fairness keys that no longer matter are forgotten while the partition is never empty.
#[tokio::test]
async fn fairness_keys_do_not_pile_up() {
    let server = RedisServer::shared().await.unwrap();
    let options = EngineOptions { deployment: deployment(), ..EngineOptions::default() };
    let name = options.deployment.clone();
    let engine = connect(server, options).await;
    let mut tokens = 0_u64..;
    for round in 0..40_u64 {
        let items: Vec<_> = (round * 500..(round + 1) * 500)
            .map(|number| entry_of(oxcart_queue::EntryKey { fairness: u32::try_from(number).unwrap(), ..key(number) }))
            .collect();
        engine.enqueue(&partition(), &items).await.unwrap();
        let wanted = if round == 0 { 400 } else { 500 };
        let granted = lease(&engine, &partition(), tokens.by_ref().take(wanted)).await;
        assert_eq!(granted.len(), wanted);
        engine.complete(&partition(), &granted.iter().map(done).collect::<Vec<_>>()).await.unwrap();
    }
    let kept: usize = server.command(&format!("HLEN ox:{{{name}:mail:0}}:f")).await.unwrap().parse().unwrap();
    assert!(kept < 5000, "{kept} of 20000 keys are kept for 100 entries");
}

/// Many callers at once on few connections: each gets its own answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_calls_get_their_own_answers() {
    let server = RedisServer::shared().await.unwrap();
    let redis = RedisOptions { connections: 3, ..redis_options(server) };
    let options = EngineOptions { deployment: deployment(), ..EngineOptions::default() };
    let engine = Arc::new(RedisEngine::connect(redis, options).await.unwrap());
    let callers: Vec<_> = (0..50_u64)
        .map(|caller| {
            let engine = Arc::clone(&engine);
            tokio::spawn(async move {
                let mine = Partition { number: u16::try_from(caller).unwrap(), ..partition() };
                for number in 0..10 {
                    fill(&*engine, &mine, [caller * 100 + number]).await;
                    let granted = lease(&*engine, &mine, [caller * 100 + number]).await;
                    assert_eq!(numbers(&granted), [caller * 100 + number]);
                    assert_eq!(complete(&*engine, &mine, &granted[0]).await, LeaseStatus::Ok);
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(engine.partitions().await.unwrap().len(), 50);
}
