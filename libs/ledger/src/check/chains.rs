//! What SQL holds, by itself: I3, I6 and the times of I7.

use oxcart_types::{
    EndKind, Timestamp,
    chain::StartKind,
    record::{RunEndRecord, RunRecord},
};

use crate::{Chain, Invariant, Report};

pub(super) fn check(chain: &Chain, report: &mut Report) {
    let task = Some(chain.task.spec.id);
    let mut bad = |invariant, what: String| report.add(invariant, task, what);
    legal(chain, &mut bad);
    counted(chain, &mut bad);
    in_time(chain, &mut bad);
    count(chain, report);
}

/// I3: numbers without a gap, an end before the next start, nothing after a terminal end, and the state that follows.
fn legal(chain: &Chain, bad: &mut impl FnMut(Invariant, String)) {
    let last = chain.runs.len();
    for (index, run) in (1..).zip(&chain.runs) {
        let number = run.run;
        if number.get() as usize != index {
            bad(Invariant::I3, format!("run {number} stands where run {index} should"));
        }
        match (&run.end, run.kind) {
            (None, StartKind::Closer) => bad(Invariant::I3, format!("run {number} is closed without an end")),
            (None, StartKind::Worker) if index < last => bad(Invariant::I3, format!("run {number} is open, and another follows")),
            (None, StartKind::Worker) => {}
            (Some(end), kind) => {
                if end.kind.is_terminal() && end.replay.is_none() && index < last {
                    bad(Invariant::I3, format!("run {number} ended {}, and another follows", end.kind));
                }
                if !end.kind.is_terminal() && end.replay.is_some() {
                    bad(Invariant::I3, format!("run {number} ended {}, and a replay has undone that", end.kind));
                }
                if !may_write(kind, end.kind) {
                    bad(Invariant::I3, format!("run {number}, a {kind:?}'s, ended {}", end.kind));
                }
            }
        }
    }
    let stands = |end: &RunEndRecord| end.kind.is_terminal() && end.replay.is_none();
    let ended = chain.runs.last().and_then(|run| run.end.as_ref()).is_some_and(stands);
    if ended != chain.task.state.is_terminal() {
        bad(Invariant::I3, format!("is {} with the chain {:?}", chain.task.state, kinds(chain)));
    }
}

const fn may_write(who: StartKind, kind: EndKind) -> bool {
    match (who, kind) {
        (StartKind::Worker, EndKind::Expired) | (StartKind::Closer, EndKind::Succeeded | EndKind::Retry | EndKind::Lost) => false,
        (StartKind::Worker | StartKind::Closer, _) => true,
    }
}

fn kinds(chain: &Chain) -> Vec<Option<EndKind>> {
    chain.runs.iter().map(|run| run.end.as_ref().map(|end| end.kind)).collect()
}

fn end_kind(run: &RunRecord) -> Option<EndKind> {
    run.end.as_ref().map(|end| end.kind)
}

/// I6: each attempt is counted once, a release gives its own back, and there are never more than allowed: in each budget, of
/// which a replay begins another.
fn counted(chain: &Chain, bad: &mut impl FnMut(Invariant, String)) {
    let mut max = chain.task.spec.retry.max_attempts();
    let (mut used, mut starts, mut releases) = (0, 0, 0);
    for run in &chain.runs {
        if run.kind == StartKind::Worker {
            if run.attempt != used + 1 {
                bad(Invariant::I6, format!("run {} is attempt {} after {used} used", run.run, run.attempt));
            }
            if run.attempt > max {
                bad(Invariant::I6, format!("run {} is attempt {} of {max}", run.run, run.attempt));
            }
            let released = u32::from(end_kind(run) == Some(EndKind::Released));
            (used, starts, releases) = (run.attempt - released, starts + 1, releases + released);
            if starts > max + releases {
                bad(Invariant::I6, format!("{starts} starts with {max} attempts and {releases} releases"));
            }
        }
        if let Some(replay) = run.end.as_ref().and_then(|end| end.replay.as_ref()) {
            max = replay.max_attempts.unwrap_or(chain.task.spec.retry.max_attempts());
            (used, starts, releases) = (0, 0, 0);
        }
    }
}

/// I7: no start before its time or after its last moment. The clock that wrote the start is the one that was asked.
fn in_time(chain: &Chain, bad: &mut impl FnMut(Invariant, String)) {
    let spec = &chain.task.spec;
    let mut deadline = spec.deadline.and_then(|by| later(chain.task.created_at, by));
    let earliest_start = spec.run_at.map_or(chain.task.created_at, |at| at.max(chain.task.created_at));
    // An update closes a slot as RELEASED and changes the row: the row says nothing of the runs before it.
    let updated = chain.runs.iter().rposition(|run| run.kind == StartKind::Closer && end_kind(run) == Some(EndKind::Released));
    let mut due = spec.run_at;
    let (mut used, mut replayed) = (0, false);
    for (index, run) in chain.runs.iter().enumerate() {
        if run.kind == StartKind::Worker {
            let begun = run.started_at;
            if due.is_some_and(|due| begun < due) && updated.is_none_or(|updated| index > updated) {
                bad(Invariant::I7, format!("run {} started at {begun}, due {due:?}", run.run));
            }
            let first_budget = used == 0 && !replayed;
            let expires = spec.expires_at.filter(|_| first_budget);
            let start_timeout = spec.start_timeout.filter(|_| first_budget).and_then(|by| later(earliest_start, by));
            let by = expires.into_iter().chain(start_timeout).chain(deadline).min();
            if by.is_some_and(|by| begun >= by) && updated.is_none_or(|updated| index > updated) {
                bad(Invariant::I7, format!("run {} started at {begun}, after its last moment {by:?}", run.run));
            }
            used = run.attempt - u32::from(end_kind(run) == Some(EndKind::Released));
        }
        due = run.end.as_ref().and_then(|end: &RunEndRecord| end.next_run_at);
        if let Some(replay) = run.end.as_ref().and_then(|end| end.replay.as_ref()) {
            // Due at once and without an expiry, and the deadline counts anew.
            (due, used, replayed) = (None, 0, true);
            deadline = spec.deadline.and_then(|by| later(replay.at, by));
        }
    }
}

fn later(time: Timestamp, by: std::time::Duration) -> Option<Timestamp> {
    let micros = i64::try_from(by.as_micros()).ok()?;
    Timestamp::from_timestamp_micros(time.timestamp_micros().checked_add(micros)?)
}

fn count(chain: &Chain, report: &mut Report) {
    let figures = &mut report.figures;
    for run in &chain.runs {
        match run.kind {
            StartKind::Closer => figures.closed += 1,
            StartKind::Worker => figures.starts += 1,
        }
        let Some(end) = run.end.as_ref().filter(|_| run.kind == StartKind::Worker) else { continue };
        let vanished = end.failure.as_ref().is_some_and(|f| f.kind.as_str() == oxcart_types::FailureKind::LEASE_LOST);
        match end.kind {
            EndKind::Lost => figures.lost += 1,
            EndKind::Failed if vanished => figures.lost += 1,
            EndKind::Released => figures.released += 1,
            EndKind::Retry => figures.retried += 1,
            EndKind::Succeeded | EndKind::Failed | EndKind::Cancelled | EndKind::Expired => {}
        }
    }
}
