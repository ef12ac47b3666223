//! Steps in batches of 1, 100 and 500, on a private MariaDB that flushes at each commit and on a SQLite file that does too.

#![expect(missing_docs, reason = "criterion makes public functions")]
#![expect(clippy::expect_used, reason = "a bench that cannot run has nothing to say")]

use std::{
    collections::BTreeMap,
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use oxcart_store::{End, NewTask, Start, Store, StoreOptions, SubmitUnit};
use oxcart_testkit::MariaDbServer;
use oxcart_types::{
    Clock as _, EndKind, IdSource as _, Limits, Payload, Priority, RetryPolicy, Run, SystemClock, SystemIds, TaskId, TaskSpec,
    WorkerId,
};
use tokio::runtime::Runtime;

const BATCHES: [usize; 3] = [1, 100, 500];

fn tasks(count: usize) -> Vec<NewTask> {
    let task = |_| {
        let spec = TaskSpec {
            id: SystemIds.task_id(),
            name: "bench".parse().expect("a name"),
            queue: "default".parse().expect("a queue"),
            priority: Priority::default(),
            payload: Payload::json(format!("\"{}\"", "x".repeat(200)), &Limits::default()).expect("JSON"),
            tags: vec![],
            metadata: BTreeMap::new(),
            run_at: None,
            expires_at: None,
            start_timeout: None,
            timeout: None,
            heartbeat_timeout: None,
            deadline: None,
            retry: RetryPolicy::default(),
            idempotency: None,
            fairness_key: None,
            parent: None,
        };
        NewTask { digest: spec.digest(), spec, id_chosen: false, created_at: SystemClock.now(), set_aside: None }
    };
    (0..count).map(task).collect()
}

async fn submit(store: &Store, tasks: Vec<NewTask>) -> Vec<TaskId> {
    let ids = tasks.iter().map(|task| task.spec.id).collect();
    let units = vec![SubmitUnit { tasks, request: None }];
    black_box(store.submit(units, SystemIds.handoff_id(), SystemClock.now()).await.expect("submit"));
    ids
}

fn starts(ids: &[TaskId]) -> Vec<Start> {
    let start =
        |id: &TaskId| Start { task: *id, run: Run::FIRST, token: SystemIds.lease_token(), worker: WorkerId::from_bytes([1; 16]) };
    ids.iter().map(start).collect()
}

fn ends(starts: &[Start]) -> Vec<End> {
    let end = |start: &Start| End {
        task: start.task,
        run: start.run,
        token: start.token,
        kind: EndKind::Succeeded,
        attempts_used: 1,
        result: Some(Payload::null()),
        failure: None,
        next_run_at: None,
    };
    starts.iter().map(end).collect()
}

fn steps(criterion: &mut Criterion, runtime: &Runtime, name: &str, store: &Store) {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10).measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_millis(500));
    for batch in BATCHES {
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(BenchmarkId::new("submit", batch), |bencher| {
            bencher.to_async(runtime).iter_custom(async |rounds| {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    let tasks = tasks(batch);
                    let began = Instant::now();
                    submit(store, tasks).await;
                    spent += began.elapsed();
                }
                spent
            });
        });
        group.bench_function(BenchmarkId::new("start", batch), |bencher| {
            bencher.to_async(runtime).iter_custom(async |rounds| {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    let starts = starts(&submit(store, tasks(batch)).await);
                    let began = Instant::now();
                    black_box(store.start(&starts, SystemClock.now()).await.expect("start"));
                    spent += began.elapsed();
                }
                spent
            });
        });
        group.bench_function(BenchmarkId::new("load", batch), |bencher| {
            bencher.to_async(runtime).iter_custom(async |rounds| {
                let mut spent = Duration::ZERO;
                let ids = submit(store, tasks(batch)).await;
                for _ in 0..rounds {
                    let began = Instant::now();
                    black_box(store.load(&ids).await.expect("load"));
                    spent += began.elapsed();
                }
                spent
            });
        });
        group.bench_function(BenchmarkId::new("end", batch), |bencher| {
            bencher.to_async(runtime).iter_custom(async |rounds| {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    let starts = starts(&submit(store, tasks(batch)).await);
                    store.start(&starts, SystemClock.now()).await.expect("start");
                    let ends = ends(&starts);
                    let began = Instant::now();
                    black_box(store.end(&ends, SystemClock.now()).await.expect("end"));
                    spent += began.elapsed();
                }
                spent
            });
        });
    }
    group.finish();
}

async fn connect(url: String) -> Store {
    let options = StoreOptions { url, max_connections: 4, acquire_timeout: Duration::from_secs(10) };
    Store::migrate(&options).await.expect("migrate");
    Store::connect(options).await.expect("connect")
}

fn on_both_databases(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let directory = tempfile::tempdir().expect("a directory");
    let sqlite = runtime.block_on(connect(format!("sqlite:{}", directory.path().join("bench.db").display())));
    steps(criterion, &runtime, "sqlite", &sqlite);
    let server = runtime.block_on(MariaDbServer::start()).expect("a server");
    let url = runtime.block_on(server.create_database()).expect("a database");
    let mariadb = runtime.block_on(connect(url));
    steps(criterion, &runtime, "mariadb", &mariadb);
    // Before the runtime that their connections live on.
    drop((mariadb, sqlite));
}

criterion_group!(benches, on_both_databases);
criterion_main!(benches);
