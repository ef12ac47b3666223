//! What it costs to derive a state: paid for every task that is listed, read or swept.
#![expect(missing_docs, reason = "criterion's macros write public items")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use oxcart_types::{
    ChainHead, EndKind, Run, TaskEvent, TaskState,
    chain::{LatestEnd, LatestRun, StartKind},
    transition,
};

fn benches(criterion: &mut Criterion) {
    criterion.bench_function("transition, every state and event", |bencher| {
        bencher.iter(|| {
            for state in TaskState::ALL {
                for event in TaskEvent::ALL {
                    let _ = black_box(transition(black_box(state), black_box(event)));
                }
            }
        });
    });
    let end = Some(LatestEnd { kind: EndKind::Retry, attempts_used: 1, next_run_at: None });
    let latest = Some(LatestRun { run: Run::FIRST.next(), kind: StartKind::Worker, attempt: 2, end });
    let head = ChainHead { latest, previous_end: Some(EndKind::Lost), replayed: None, waiting: None };
    criterion.bench_function("state of a chain", |bencher| bencher.iter(|| black_box(black_box(&head).state())));
}

criterion_group!(all, benches);
criterion_main!(all);
