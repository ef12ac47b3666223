//! What a call costs on both engines, by the size of its batch. Times are of the whole call, its round trip to a private
//! Redis included; at the end, the CPU time that Redis itself spent per task.
#![expect(clippy::expect_used, clippy::print_stdout, missing_docs, reason = "a bench fails by panicking and prints")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use oxcart_queue::{
    Claim, Complete, EngineOptions, Enqueue, EnqueueCause, EntryKey, LeaseRequest, MemoryEngine, Outcome, Partition, QueueEngine,
    RedisEngine, RedisOptions, Settings,
};
use oxcart_testkit::RedisServer;
use oxcart_types::{IdSource as _, Priority, Run, SystemClock, SystemIds};
use tokio::runtime::Runtime;

const BATCHES: [usize; 3] = [1, 16, 128];
/// Entries that wait while a round is measured: an empty queue would flatter.
const WAITING: usize = 10_000;

struct Bench {
    engine: Arc<dyn QueueEngine>,
    partition: Partition,
}

impl Bench {
    async fn new(engine: Arc<dyn QueueEngine>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let queue = format!("bench-{}", NEXT.fetch_add(1, Ordering::Relaxed)).parse().expect("a name");
        let bench = Self { engine, partition: Partition::first(queue) };
        for _ in 0..WAITING / 1000 {
            bench.enqueue(1000).await;
        }
        bench
    }

    async fn enqueue(&self, batch: usize) {
        let entry = || Enqueue {
            key: EntryKey::new(SystemIds.task_id(), Priority::default(), None),
            run: Run::FIRST,
            delay: Duration::ZERO,
            cause: EnqueueCause::Submitted,
            note: Default::default(),
        };
        let items: Vec<_> = (0..batch).map(|_| entry()).collect();
        self.engine.enqueue(&self.partition, &items).await.expect("enqueue");
    }

    async fn lease_and_complete(&self, batch: usize) {
        let worker = SystemIds.worker_id();
        let claims = (0..batch).map(|_| Claim { token: SystemIds.lease_token(), worker }).collect();
        let request = LeaseRequest { claims, claim_ttl: Duration::from_secs(600), reap: true, settings: Settings::default() };
        let leased = self.engine.lease(&self.partition, &request).await.expect("lease");
        assert_eq!(leased.granted.len(), batch);
        let end = |granted: &oxcart_queue::Granted| Complete {
            task: granted.key.task,
            token: granted.token,
            outcome: Outcome::Done,
            note: Default::default(),
        };
        let ends: Vec<_> = leased.granted.iter().map(end).collect();
        self.engine.complete(&self.partition, &ends).await.expect("complete");
    }
}

/// Measures the first of two steps; the second undoes it, so that the backlog stays as deep as it is.
async fn timed(rounds: u64, measured: impl AsyncFn(), undone: impl AsyncFn()) -> Duration {
    let mut total = Duration::ZERO;
    for _ in 0..rounds {
        let start = Instant::now();
        measured().await;
        total += start.elapsed();
        undone().await;
    }
    total
}

fn bench_engine(criterion: &mut Criterion, runtime: &Runtime, name: &str, engine: &Arc<dyn QueueEngine>) {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(20).measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_secs(1));
    for batch in BATCHES {
        let bench = runtime.block_on(Bench::new(Arc::clone(engine)));
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(BenchmarkId::new("enqueue", batch), |bencher| {
            bencher.to_async(runtime).iter_custom(async |rounds| {
                timed(rounds, async || bench.enqueue(batch).await, async || bench.lease_and_complete(batch).await).await
            });
        });
        group.bench_function(BenchmarkId::new("lease_and_complete", batch), |bencher| {
            bencher.to_async(runtime).iter_custom(async |rounds| {
                let (measured, undone) = (async || bench.lease_and_complete(batch).await, async || bench.enqueue(batch).await);
                timed(rounds, measured, undone).await
            });
        });
    }
    group.finish();
}

/// Microseconds that Redis spent in scripts, with all that they call.
async fn script_micros(server: &RedisServer) -> u64 {
    // Lua picks the number out of the many lines.
    let script =
        r#"EVAL "return tonumber(string.match(redis.call('INFO','commandstats'),'cmdstat_evalsha:calls=%d+,usec=(%d+)'))" 0"#;
    server.command(script).await.expect("EVAL").parse().expect("a number")
}

fn print_redis_cpu(runtime: &Runtime, server: &RedisServer, engine: &Arc<dyn QueueEngine>) {
    const TASKS: usize = 50_000;
    for batch in BATCHES {
        let micros = runtime.block_on(async {
            let bench = Bench::new(Arc::clone(engine)).await;
            let before = script_micros(server).await;
            for _ in 0..TASKS / batch {
                bench.enqueue(batch).await;
            }
            let between = script_micros(server).await;
            for _ in 0..TASKS / batch {
                bench.lease_and_complete(batch).await;
            }
            (between - before, script_micros(server).await - between)
        });
        let per_task = |micros: u64| micros as f64 / (TASKS / batch * batch) as f64;
        println!(
            "redis CPU per task, batches of {batch}: enqueue {:.1} us, lease and complete {:.1} us",
            per_task(micros.0),
            per_task(micros.1)
        );
    }
}

fn engines(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let options = EngineOptions { window: u64::MAX, ..EngineOptions::default() };
    let memory: Arc<dyn QueueEngine> = Arc::new(MemoryEngine::new(options.clone(), Arc::new(SystemClock)));
    bench_engine(criterion, &runtime, "memory", &memory);
    let server = runtime.block_on(RedisServer::start(Default::default())).expect("a redis-server");
    let redis = RedisOptions { timeout: Duration::from_secs(20), ..RedisOptions::new(server.url()) };
    let redis: Arc<dyn QueueEngine> = Arc::new(runtime.block_on(RedisEngine::connect(redis, options)).expect("connect"));
    bench_engine(criterion, &runtime, "redis", &redis);
    print_redis_cpu(&runtime, &server, &redis);
}

criterion_group!(benches, engines);
criterion_main!(benches);
