//! From facts to blockers: pure.

use std::{collections::BTreeMap, time::Duration};

use chrono::SecondsFormat;
use oxcart_proto::pb::{
    common::v1::{WorkerInfo, WorkerState},
    dispatcher::v1::EntryPlace,
};
use oxcart_store::Pause;
use oxcart_types::{
    EndKind, TaskState, Timestamp, WaitReason,
    chain::{LatestRun, StartKind},
    record::Cancel,
};

use super::facts::{EntryFacts, Facts, QueueFacts};

/// Names of handlers or workers in one sentence.
const SHOWN_NAMES: usize = 10;

/// What kind of blocker it is; see `BlockerCode` of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    Delayed,
    Backoff,
    Dependency,
    Handoff,
    WindowFull,
    QueuePaused,
    NoWorker,
    NoHandler,
    NoFreeSlot,
    WorkerLost,
    Starting,
    Running,
    CancelRequested,
    Quarantined,
    Missing,
    DispatcherDown,
    Finished,
    Ahead,
}

/// Something that holds a task back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blocker {
    pub(crate) code: Code,
    /// Sentence for people.
    pub(crate) message: String,
    /// Numbers and names.
    pub(crate) details: BTreeMap<&'static str, String>,
    /// When it ends by itself, if it does.
    pub(crate) clears_at: Option<Timestamp>,
}

impl Blocker {
    fn new(code: Code, message: String) -> Self {
        Self { code, message, details: BTreeMap::new(), clears_at: None }
    }

    fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.details.insert(name, value.to_string());
        self
    }

    fn clearing(mut self, at: Option<Timestamp>) -> Self {
        self.clears_at = at;
        self
    }
}

/// Why a task does not run or end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Explanation {
    /// The decisive one first; none when it could run now.
    pub(crate) blockers: Vec<Blocker>,
    /// Tasks of its queue that go first; an estimate.
    pub(crate) ahead: i64,
}

/// Finds every blocker.
pub(crate) fn explain(facts: &Facts) -> Explanation {
    match facts.task.state {
        TaskState::Succeeded | TaskState::Failed | TaskState::Cancelled | TaskState::Expired => {
            Explanation { blockers: vec![finished(facts)], ahead: 0 }
        }
        TaskState::Running => Explanation { blockers: running(facts), ahead: 0 },
        TaskState::Pending | TaskState::Queued | TaskState::Retrying => waiting(facts),
    }
}

fn finished(facts: &Facts) -> Blocker {
    let task = &facts.task;
    let since = task.ended_at.map(|at| format!(" since {}", time(at))).unwrap_or_default();
    let why = task.failure.as_ref().map(|failure| format!(": {}: {}", failure.kind, failure.message)).unwrap_or_default();
    let why = if task.state == TaskState::Succeeded { String::new() } else { why };
    let mut blocker = Blocker::new(Code::Finished, format!("the task has ended: it is {}{since}{why}", task.state))
        .with("state", task.state)
        .with("run", task.head.latest.map_or(0, |latest| latest.run.get()));
    if let Some(at) = task.ended_at {
        blocker = blocker.with("since", time(at));
    }
    blocker
}

// ---- a run is open -------------------------------------------------------------------------------------------------------

fn running(facts: &Facts) -> Vec<Blocker> {
    let mut blockers = Vec::new();
    blockers.extend(facts.task.cancel.as_ref().map(|cancel| cancel_requested(cancel, facts.now)));
    blockers.push(worker_lost(facts).unwrap_or_else(|| runs(facts)));
    blockers.extend(dispatcher_down(facts));
    blockers
}

fn cancel_requested(cancel: &Cancel, now: Timestamp) -> Blocker {
    let ends = later(cancel.requested_at, cancel.grace);
    let rest = match left(ends, now) {
        Some(left) => format!("its handler has {} to stop", seconds(left)),
        None => "its handler did not stop in time and is aborted".to_owned(),
    };
    let why = if cancel.reason.is_empty() { String::new() } else { format!(" ({})", cancel.reason) };
    Blocker::new(Code::CancelRequested, format!("a cancel was asked for at {}{why}; {rest}", time(cancel.requested_at)))
        .with("since", time(cancel.requested_at))
        .with("reason", &cancel.reason)
        .with("grace_seconds", cancel.grace.as_secs())
        .clearing(Some(ends))
}

fn runs(facts: &Facts) -> Blocker {
    let task = &facts.task;
    let worker = task.worker.map(|worker| worker.to_string()).unwrap_or_default();
    let since = task.started_at.unwrap_or(facts.now);
    let (run, attempt) = task.head.latest.map_or((0, 0), |latest| (latest.run.get(), latest.attempt));
    let max = task.spec.retry.max_attempts();
    Blocker::new(Code::Running, format!("it runs since {} on worker {worker} (run {run}, attempt {attempt} of {max})", time(since)))
        .with("worker", worker)
        .with("since", time(since))
        .with("run", run)
        .with("attempt", attempt)
        .with("max_attempts", max)
}

/// The holder of the open run is gone, or lost its lease: somebody takes over when the lease has ended.
fn worker_lost(facts: &Facts) -> Option<Blocker> {
    let id = facts.task.worker?.to_string();
    let worker = facts.workers.iter().find(|worker| worker.worker_id == id);
    let gone = worker.is_none_or(|worker| matches!(worker.state(), WorkerState::Lost | WorkerState::Stopped));
    let entry = facts.queue.as_ref().ok().and_then(|queue| queue.entry);
    let lease = entry.filter(|entry| entry.place == EntryPlace::Leased).and_then(|entry| entry.remaining);
    let waits_again = entry.is_some_and(|entry| entry.place != EntryPlace::Leased);
    // One that was never listed may be younger than the registry.
    let silent = facts.heartbeat_at.or(facts.task.started_at).is_none_or(|at| later(at, UNHEARD_OF) < facts.now);
    if !waits_again && !(gone && (worker.is_some() || silent)) {
        return None;
    }
    let ends = lease.map(|left| later(facts.now, left));
    let then = match lease {
        Some(left) => format!("its lease ends in {}, then another worker takes over", seconds(left)),
        None => "its lease has ended: the next worker that is granted it takes over".to_owned(),
    };
    let mut blocker =
        Blocker::new(Code::WorkerLost, format!("worker {id} that runs it is lost; {then}")).with("worker", &id).clearing(ends);
    if let Some(heard) = facts.heartbeat_at.or(facts.task.started_at) {
        blocker = blocker.with("since", time(heard));
    }
    if let Some(ends) = ends {
        blocker = blocker.with("lease_ends", time(ends));
    }
    Some(blocker)
}

/// A worker that runs something and is in no registry is lost when it gave no sign of life for longer than a lease.
const UNHEARD_OF: Duration = Duration::from_secs(45);

// ---- no run is open ------------------------------------------------------------------------------------------------------

fn waiting(facts: &Facts) -> Explanation {
    let due_at = due_at(facts).filter(|at| *at > facts.now);
    let mut blockers = Vec::new();
    blockers.extend(facts.task.cancel.as_ref().map(|cancel| cancel_requested(cancel, facts.now)));
    blockers.extend(in_sql(facts));
    blockers.extend(due_at.map(|at| not_due(facts, at)));
    blockers.extend(facts.pause.as_ref().map(|pause| paused(facts, pause)));
    blockers.extend(dispatcher_down(facts));
    let mut ahead = facts.waiting.room.map_or(0, |room| i64::try_from(room.ahead).unwrap_or(i64::MAX));
    if let Ok(queue) = &facts.queue {
        let given = queue.entry.is_some_and(|entry| entry.place == EntryPlace::Leased);
        if !given {
            blockers.extend(workers(facts, queue, due_at.is_none()));
        }
        // What waits in SQL is not with the dispatcher, and need not be.
        if facts.task.head.waiting.is_none() {
            match &queue.entry {
                Some(entry) => {
                    ahead = entry.ahead;
                    blockers.extend(placed(facts, entry, due_at));
                }
                None => blockers.push(missing(facts)),
            }
        } else if facts.waiting.room.is_some() {
            ahead = ahead.saturating_add(queue.held);
        }
    } else {
        blockers.extend(workers(facts, &QueueFacts::default(), false));
    }
    if ahead > 0 && facts.waiting.room.is_none() {
        blockers.push(goes_first(facts, ahead));
    }
    Explanation { blockers, ahead }
}

/// When the next run is due: after a retry or a release as their end says, else as the task asks.
fn due_at(facts: &Facts) -> Option<Timestamp> {
    match facts.task.head.latest {
        Some(LatestRun { end: Some(end), .. }) => end.next_run_at,
        Some(_) | None => facts.task.spec.run_at,
    }
}

fn in_sql(facts: &Facts) -> Option<Blocker> {
    match facts.task.head.waiting? {
        WaitReason::Handoff => {
            let since = facts.waiting.handoff_since.unwrap_or(facts.task.created_at);
            let message = format!(
                "the dispatcher has not confirmed it since {} ({}); it is offered again and again",
                time(since),
                seconds((facts.now - since).to_std().unwrap_or_default())
            );
            Some(Blocker::new(Code::Handoff, message).with("since", time(since)))
        }
        WaitReason::Dependency => Some(Blocker::new(Code::Dependency, "something before it has not finished".to_owned())),
        WaitReason::Room => {
            let (held, window) = facts.queue.as_ref().map_or((0, 0), |queue| (queue.held, queue.window));
            let (position, of) = facts.waiting.room.map_or((0, 0), |room| (room.ahead + 1, room.waiting));
            let queue = &facts.task.spec.queue;
            let full = if window > 0 { format!(" ({held} of {window})") } else { String::new() };
            let message = format!("the window of queue {queue} is full{full}; it waits in SQL at position {position} of {of}");
            let blocker =
                Blocker::new(Code::WindowFull, message).with("queue", queue).with("position", position).with("waiting", of);
            Some(if window > 0 { blocker.with("used", held).with("limit", window) } else { blocker })
        }
        // Told by the time at which it is due.
        WaitReason::Time => None,
    }
}

fn not_due(facts: &Facts, at: Timestamp) -> Blocker {
    let rest = seconds((at - facts.now).to_std().unwrap_or_default());
    let due = time(at);
    let blocker = match facts.task.head.latest {
        Some(LatestRun { end: Some(end), .. }) if end.kind == EndKind::Retry => {
            let (used, max) = (end.attempts_used, facts.task.spec.retry.max_attempts());
            let why = facts.task.failure.as_ref().map(|failure| format!(" ({}: {})", failure.kind, failure.message));
            let message =
                format!("attempt {used} of {max} failed{}; the next one is due at {due}, in {rest}", why.unwrap_or_default());
            Blocker::new(Code::Backoff, message).with("failures", used).with("max_attempts", max)
        }
        Some(LatestRun { kind: StartKind::Worker, .. }) => {
            Blocker::new(Code::Delayed, format!("it was given back and is due again at {due}, in {rest}"))
        }
        Some(_) | None => Blocker::new(Code::Delayed, format!("it is to start at {due}, in {rest}")),
    };
    blocker.with("due", due).with("seconds", (at - facts.now).num_seconds()).clearing(Some(at))
}

fn paused(facts: &Facts, pause: &Pause) -> Blocker {
    let part = |words: &str, text: &str| if text.is_empty() { String::new() } else { format!("{words}{text}") };
    let (queue, since) = (&facts.task.spec.queue, time(pause.since));
    let message = format!("queue {queue} is paused since {since}{}{}", part(" by ", &pause.by), part(": ", &pause.reason));
    Blocker::new(Code::QueuePaused, message)
        .with("queue", queue)
        .with("actor", &pause.by)
        .with("since", since)
        .with("reason", &pause.reason)
}

fn dispatcher_down(facts: &Facts) -> Option<Blocker> {
    let why = facts.queue.as_ref().err()?;
    let message = format!("the dispatcher could not be asked: {why}; what it knows is missing here");
    Some(Blocker::new(Code::DispatcherDown, message).with("error", why))
}

/// What the place of its entry says.
fn placed(facts: &Facts, entry: &EntryFacts, due_at: Option<Timestamp>) -> Option<Blocker> {
    let ends = entry.remaining.map(|left| later(facts.now, left));
    let in_seconds = entry.remaining.map(seconds).unwrap_or_default();
    match entry.place {
        EntryPlace::Ready | EntryPlace::Unspecified => None,
        // Told by the time at which it is due.
        EntryPlace::Delayed if due_at.is_some() => None,
        EntryPlace::Delayed => {
            let message = match entry.deliveries {
                0 => format!("a worker gave it back without a start; it is handed out again in {in_seconds}"),
                times => format!("it was handed out {times} times without a start; it is handed out again in {in_seconds}"),
            };
            Some(Blocker::new(Code::Delayed, message).with("deliveries", entry.deliveries).clearing(ends))
        }
        EntryPlace::Leased => {
            let message = format!("it was handed to a worker, which has {in_seconds} to start it");
            Some(Blocker::new(Code::Starting, message).with("deliveries", entry.deliveries).clearing(ends))
        }
        EntryPlace::Quarantined => {
            let message =
                format!("it was handed out {} times without a start, and is set aside; its task will fail", entry.deliveries);
            Some(Blocker::new(Code::Quarantined, message).with("deliveries", entry.deliveries))
        }
    }
}

fn missing(facts: &Facts) -> Blocker {
    let queue = &facts.task.spec.queue;
    let message = format!("queue {queue} does not have it; the next resync or audit hands it over again");
    Blocker::new(Code::Missing, message).with("queue", queue)
}

// ---- workers -------------------------------------------------------------------------------------------------------------

/// What is wrong with the workers of the queue: there are none, none has the handler, or all are busy. The last counts only for
/// a task that could be started now.
fn workers(facts: &Facts, queue: &QueueFacts, due: bool) -> Option<Blocker> {
    let (name, wanted) = (facts.task.spec.queue.as_str(), facts.task.spec.name.as_str());
    let takes = |worker: &&WorkerInfo| worker.queues.iter().any(|subscription| subscription.queue == name);
    let (live, others): (Vec<_>, Vec<_>) =
        facts.workers.iter().filter(takes).partition(|worker| worker.state() == WorkerState::Active);
    if live.is_empty() {
        let others = if others.is_empty() { String::new() } else { format!(" ({})", states(&others)) };
        let message = format!("no live worker takes from queue {name}{others}");
        return Some(Blocker::new(Code::NoWorker, message).with("queue", name));
    }
    let able: Vec<_> = live.iter().filter(|worker| worker.task_names.iter().any(|task| task == wanted)).collect();
    if able.is_empty() {
        let handlers = some(live.iter().flat_map(|worker| worker.task_names.iter().map(String::as_str)));
        let count = live.len();
        let message = format!("none of the {count} workers of queue {name} has the handler {wanted}; they have {handlers}");
        return Some(
            Blocker::new(Code::NoHandler, message).with("task_name", wanted).with("workers", count).with("handlers", handlers),
        );
    }
    let slots: i64 = able.iter().map(|worker| i64::from(slots(worker, name))).sum();
    let used: i64 = able.iter().map(|worker| i64::from(worker.used_slots.min(slots_of(worker)))).sum();
    // A queue that has nothing ready has nothing to wait for a slot.
    let busy = due && used >= slots && queue.ready > 0;
    let message = format!("all slots of the {} workers that have the handler are busy: {used} of {slots}", able.len());
    busy.then(|| Blocker::new(Code::NoFreeSlot, message).with("used", used).with("limit", slots).with("workers", able.len()))
}

fn slots_of(worker: &WorkerInfo) -> i32 {
    worker.slots.max(0)
}

/// Slots that a worker may use for a queue.
fn slots(worker: &WorkerInfo, queue: &str) -> i32 {
    let own = worker.queues.iter().find(|subscription| subscription.queue == queue).map_or(0, |subscription| subscription.slots);
    if own > 0 { own.min(slots_of(worker)) } else { slots_of(worker) }
}

/// Workers by state, in words.
fn states(workers: &[&WorkerInfo]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for worker in workers {
        let state = match worker.state() {
            WorkerState::Paused => "paused",
            WorkerState::Draining => "draining",
            WorkerState::Lost => "lost",
            WorkerState::Stopped => "stopped",
            WorkerState::Active | WorkerState::Unspecified => "unknown",
        };
        *counts.entry(state).or_default() += 1;
    }
    counts.iter().map(|(state, count)| format!("{count} {state}")).collect::<Vec<_>>().join(", ")
}

/// The first names, each once, in order.
fn some<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: std::collections::BTreeSet<&str> = names.collect();
    let shown: Vec<_> = names.iter().take(SHOWN_NAMES).copied().collect();
    match names.len() - shown.len() {
        0 if shown.is_empty() => "none".to_owned(),
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn goes_first(facts: &Facts, ahead: i64) -> Blocker {
    let queue = &facts.task.spec.queue;
    Blocker::new(Code::Ahead, format!("about {ahead} tasks of queue {queue} go first")).with("queue", queue).with("ahead", ahead)
}

// ---- words ---------------------------------------------------------------------------------------------------------------

fn time(at: Timestamp) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// A duration to whole seconds, rounded up.
fn seconds(duration: Duration) -> String {
    let whole = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    format!("{whole} s")
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    chrono::TimeDelta::from_std(by).ok().and_then(|by| at.checked_add_signed(by)).unwrap_or(at)
}

/// Until a time; `None` when it is past.
fn left(at: Timestamp, now: Timestamp) -> Option<Duration> {
    (at - now).to_std().ok().filter(|left| !left.is_zero())
}

#[cfg(test)]
#[path = "blockers_tests.rs"]
mod tests;
