//! What handlers saw: I4, I5, I7, I9, I10.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use oxcart_types::{EndKind, Priority, QueueName, Run, TaskId, TaskState, Timestamp, WorkerId, chain::StartKind};

use super::{Expect, after};
use crate::{CancelAnswer, Chain, Invariant, Left, Observation, Report};

/// One stay in a handler.
struct Stay<'a> {
    run: Run,
    worker: WorkerId,
    entered: Timestamp,
    left: Option<Timestamp>,
    how: Option<&'a Left>,
}

type Stays<'a> = BTreeMap<TaskId, Vec<Stay<'a>>>;

pub(super) fn check(seen: &[Observation], chains: &BTreeMap<TaskId, Chain>, expect: &Expect, report: &mut Report) {
    let stays = stays(seen, report);
    let acknowledged = acknowledged(seen);
    for (&task, stays) in &stays {
        report.figures.entered += stays.len() as u64;
        growing(task, stays, expect.clocks, report);
        overlaps(stays, report);
        let replayed = |at: &Timestamp| chains.get(&task).is_some_and(|chain| chain.is_replayed_since(*at));
        if let Some(&at) = acknowledged.get(&task).filter(|at| !replayed(at)) {
            for stay in stays.iter().filter(|stay| after(stay.entered, at, expect.clocks)) {
                let what = format!("run {} was entered at {} after the cancel was acknowledged at {at}", stay.run, stay.entered);
                report.add(Invariant::I7, Some(task), what);
            }
        }
        match chains.get(&task) {
            None => report.add(Invariant::I2, Some(task), "a handler ran it, and it is not there"),
            Some(chain) => began(chain, stays, report),
        }
    }
    for (task, chain) in chains {
        results(chain, stays.get(task).map_or(&[], Vec::as_slice), report);
        if expect.calm {
            calm(chain, stays.get(task).map_or(&[], Vec::as_slice), report);
        }
    }
    if expect.calm && report.figures.overlaps > 0 {
        report.add(Invariant::I9, None, format!("{} handlers overlapped without a fault", report.figures.overlaps));
    }
    if let Some(apart) = expect.order {
        order(chains, &stays, apart, report);
    }
}

fn stays<'a>(seen: &'a [Observation], report: &mut Report) -> Stays<'a> {
    let mut stays: Stays<'_> = BTreeMap::new();
    for observation in seen {
        match observation {
            Observation::Entered { task, run, worker, at } => {
                let stay = Stay { run: *run, worker: *worker, entered: *at, left: None, how: None };
                stays.entry(*task).or_default().push(stay);
            }
            Observation::Left { task, run, how, at } => {
                let open = stays.entry(*task).or_default().iter_mut().find(|stay| stay.run == *run && stay.left.is_none());
                match open {
                    Some(stay) => (stay.left, stay.how) = (Some(*at), Some(how)),
                    None => report.add(Invariant::I5, Some(*task), format!("run {run} was left and had not been entered")),
                }
            }
            Observation::Died { worker, at } => {
                let open = stays.values_mut().flatten().filter(|stay| stay.worker == *worker && stay.left.is_none());
                open.for_each(|stay| stay.left = Some(*at));
            }
            Observation::Submitted { .. } | Observation::CancelAnswered { .. } => {}
        }
    }
    for stays in stays.values_mut() {
        stays.sort_by_key(|stay| stay.entered);
    }
    stays
}

/// When each task's cancel was first acknowledged.
fn acknowledged(seen: &[Observation]) -> HashMap<TaskId, Timestamp> {
    let mut found: HashMap<TaskId, Timestamp> = HashMap::new();
    for observation in seen {
        if let Observation::CancelAnswered { task, answer: CancelAnswer::Acknowledged, at } = observation {
            found.entry(*task).and_modify(|first| *first = (*first).min(*at)).or_insert(*at);
        }
    }
    found
}

/// I5.
fn growing(task: TaskId, stays: &[Stay<'_>], clocks: Duration, report: &mut Report) {
    for (index, stay) in stays.iter().enumerate() {
        for earlier in &stays[..index] {
            if earlier.run == stay.run {
                report.add(Invariant::I5, Some(task), format!("run {} was entered twice", stay.run));
            } else if earlier.run > stay.run && after(stay.entered, earlier.entered, clocks) {
                let what = format!("run {} was entered at {}, after run {}", stay.run, stay.entered, earlier.run);
                report.add(Invariant::I5, Some(task), what);
            }
        }
    }
}

/// Counts stays side by side, and how long.
fn overlaps(stays: &[Stay<'_>], report: &mut Report) {
    for (index, stay) in stays.iter().enumerate() {
        let until = |stay: &Stay<'_>| stay.left.unwrap_or(Timestamp::MAX_UTC);
        let others = stays[..index].iter().filter(|earlier| until(earlier) > stay.entered);
        let beside = others.map(|earlier| until(earlier).min(until(stay)).signed_duration_since(stay.entered)).max();
        if let Some(beside) = beside {
            report.figures.overlaps += 1;
            // Stays without an end say nothing of how long.
            let ended = beside.to_std().ok().filter(|beside| *beside < Duration::from_secs(365 * 24 * 3600));
            report.figures.overlapped += ended.unwrap_or_default();
        }
    }
}

/// I3: a handler is only entered for a run that a worker began.
fn began(chain: &Chain, stays: &[Stay<'_>], report: &mut Report) {
    for stay in stays {
        let begun = chain.runs.iter().find(|run| run.run == stay.run);
        if !begun.is_some_and(|run| run.kind == StartKind::Worker && run.worker == Some(stay.worker)) {
            let what = format!("worker {} entered run {}, of which SQL says {begun:?}", stay.worker, stay.run);
            report.add(Invariant::I3, Some(chain.task.spec.id), what);
        }
    }
}

/// I4: the result is the one of the run that succeeded, as its handler returned it.
fn results(chain: &Chain, stays: &[Stay<'_>], report: &mut Report) {
    let returned = |stay: &&Stay<'_>| matches!(stay.how, Some(Left::Returned(_)));
    let end = |stay: &Stay<'_>| chain.runs.iter().find(|run| run.run == stay.run).and_then(|run| run.end.as_ref());
    let stands = |stay: &Stay<'_>| end(stay).is_some_and(|end| end.kind == EndKind::Succeeded);
    report.figures.fenced += stays.iter().filter(returned).filter(|stay| !stands(stay)).count() as u64;
    if chain.task.state != TaskState::Succeeded {
        return;
    }
    let task = Some(chain.task.spec.id);
    let Some(last) = chain.runs.last() else { return };
    let stay = stays.iter().find(|stay| stay.run == last.run);
    match (stay.and_then(|stay| stay.how), &chain.task.result) {
        (Some(Left::Returned(returned)), Some(result)) if result.as_bytes() == returned.as_slice() => {}
        (how, result) => {
            let what = format!("run {} succeeded with {result:?}; its handler was left with {how:?}", last.run);
            report.add(Invariant::I4, task, what);
        }
    }
}

/// I9: every run is entered once, and none is lost.
fn calm(chain: &Chain, stays: &[Stay<'_>], report: &mut Report) {
    let task = Some(chain.task.spec.id);
    for run in chain.runs.iter().filter(|run| run.kind == StartKind::Worker) {
        let entered = stays.iter().filter(|stay| stay.run == run.run).count();
        let end = run.end.as_ref().map(|end| end.kind);
        if entered != 1 || matches!(end, Some(EndKind::Lost | EndKind::Released)) {
            let what = format!("run {} was entered {entered} times and ended {end:?} without a fault", run.run);
            report.add(Invariant::I9, task, what);
        }
    }
}

/// I10, of tasks that could run at once and ran once.
fn order(chains: &BTreeMap<TaskId, Chain>, stays: &Stays<'_>, apart: Duration, report: &mut Report) {
    type Line<'a> = (&'a QueueName, Priority, Option<&'a str>);
    let mut lines: BTreeMap<Line<'_>, Vec<(Timestamp, Timestamp, TaskId)>> = BTreeMap::new();
    for (task, chain) in chains {
        let spec = &chain.task.spec;
        let once = chain.runs.len() == 1 && spec.run_at.is_none();
        if let Some(stay) = stays.get(task).and_then(|stays| stays.first()).filter(|_| once) {
            let line = (&spec.queue, spec.priority, spec.fairness_key.as_ref().map(oxcart_types::FairnessKey::as_str));
            lines.entry(line).or_default().push((chain.task.created_at, stay.entered, *task));
        }
    }
    for mut line in lines.into_values() {
        line.sort_unstable();
        for (index, (created, entered, task)) in line.iter().enumerate() {
            let overtaken = line[..index].iter().find(|(before, other, _)| after(*created, *before, apart) && entered < other);
            if let Some((.., other)) = overtaken {
                report.add(Invariant::I10, Some(*task), format!("was entered before {other}, which was submitted earlier"));
            }
        }
    }
}
