//! What callers did and were told, and whether some serial order allows it.
//!
//! Every task is checked by itself: its slots, agenda row and cancels depend on no other task. A call takes effect at one moment
//! between its begin and its end; some take a look before that, at what they then write by. The check keeps all states in which
//! the task may be, and goes from end of call to end of call: when no state is left, nobody can explain the last answer.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fmt::Write as _,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use super::oracle::{Answer, Call, Seen, Task};

/// Calls shown of a task's history, besides those that explain the failure.
const SHOWN: usize = 25;

/// A call on one task from begin to end.
#[derive(Debug, Clone)]
pub(super) struct Done {
    caller: usize,
    task: usize,
    begun: u64,
    ended: u64,
    call: Call,
    answer: Answer,
}

/// Collects calls.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    clock: AtomicU64,
    calls: Mutex<Vec<Done>>,
}

impl Recorder {
    /// A moment after all that have been given out.
    pub(super) fn moment(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    /// Notes the parts of a call that has just ended, one for each task.
    pub(super) fn note(&self, caller: usize, begun: u64, parts: Vec<(usize, Call, Answer)>) {
        let ended = self.moment();
        let done = |(task, call, answer)| Done { caller, task, begun, ended, call, answer };
        self.calls.lock().expect("a lock").extend(parts.into_iter().map(done));
    }

    /// The calls on each of so many tasks.
    pub(super) fn by_task(&self, tasks: usize) -> Vec<Vec<Done>> {
        let mut histories = vec![Vec::new(); tasks];
        for done in self.calls.lock().expect("a lock").iter() {
            histories[done.task].push(done.clone());
        }
        histories
    }
}

/// One way in which the calls so far may have gone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct World {
    task: Task,
    /// Calls under way that have looked and not yet written.
    looked: BTreeMap<usize, Seen>,
    /// Calls under way that have taken effect.
    effective: BTreeSet<usize>,
}

/// The index of the first call whose answer no order explains, with the worlds before it.
fn first_unexplained(history: &[Done]) -> Option<(usize, HashSet<World>)> {
    let mut moments: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * history.len());
    for (index, done) in history.iter().enumerate() {
        moments.extend([(done.begun, false, index), (done.ended, true, index)]);
    }
    moments.sort_unstable();
    let mut under_way = BTreeSet::new();
    let mut worlds = HashSet::from([World::default()]);
    for (_, ends, index) in moments {
        if !ends {
            under_way.insert(index);
            continue;
        }
        let after = worlds_after(history, &under_way, &worlds, index);
        if after.is_empty() {
            return Some((index, worlds));
        }
        under_way.remove(&index);
        worlds = after;
    }
    None
}

/// The worlds in which a call has taken effect by the time it ends.
fn worlds_after(history: &[Done], under_way: &BTreeSet<usize>, worlds: &HashSet<World>, ends: usize) -> HashSet<World> {
    let mut after = HashSet::new();
    let mut met = HashSet::new();
    let mut open: Vec<World> = worlds.iter().cloned().collect();
    while let Some(mut world) = open.pop() {
        take_what_changes_nothing(history, under_way, &mut world);
        if !met.insert(world.clone()) {
            continue;
        }
        if world.effective.remove(&ends) {
            after.insert(world);
            continue;
        }
        for index in under_way.iter().filter(|index| !world.effective.contains(index)) {
            for next in effects(&history[*index], *index, &world) {
                open.extend(with_looks_before(history, under_way, &world, next));
            }
        }
    }
    after
}

/// A call whose answer says that it changed nothing may as well get it at the first moment at which it can: nobody can tell.
fn take_what_changes_nothing(history: &[Done], under_way: &BTreeSet<usize>, world: &mut World) {
    for index in under_way {
        if !world.effective.contains(index)
            && history[*index].answer.changed_nothing()
            && let Some(next) = effects(&history[*index], *index, world).pop()
        {
            *world = next;
        }
    }
}

/// What becomes of a world when a call takes effect, by what it sees now or saw before.
fn effects(done: &Done, index: usize, world: &World) -> Vec<World> {
    let now = world.task.look(&done.call);
    let before = world.looked.get(&index).copied();
    let ways = if before.is_some() && before != now { vec![now, before] } else { vec![now] };
    let effect = |seen| {
        let mut next = world.clone();
        let answered = next.task.act(&done.call, seen).as_ref() == Some(&done.answer);
        next.looked.remove(&index);
        next.effective.insert(index);
        answered.then_some(next)
    };
    ways.into_iter().filter_map(effect).collect()
}

/// Calls under way may have looked just before a change; it matters to those that would see something else after it.
fn with_looks_before(history: &[Done], under_way: &BTreeSet<usize>, before: &World, next: World) -> Vec<World> {
    let mut worlds = vec![next];
    for index in under_way {
        let call = &history[*index].call;
        let Some(seen) = before.task.look(call).filter(|seen| worlds[0].task.look(call) != Some(*seen)) else { continue };
        if worlds[0].effective.contains(index) || before.looked.contains_key(index) {
            continue;
        }
        let looked = |world: &World| World {
            looked: world.looked.iter().map(|(i, s)| (*i, *s)).chain([(*index, seen)]).collect(),
            ..world.clone()
        };
        worlds.extend(worlds.iter().map(looked).collect::<Vec<_>>());
    }
    worlds
}

/// Checks the calls on one task.
///
/// # Errors
/// The answer that no serial order allows, after the calls that led to where the task stood, for people.
pub(super) fn check(history: &[Done]) -> Result<(), String> {
    let Some((failed, before)) = first_unexplained(history) else { return Ok(()) };
    let (begun, ended) = (history[failed].begun, history[failed].ended);
    let states: HashSet<Task> = before.into_iter().map(|world| world.task).collect();
    let mut calls: Vec<Done> = history.iter().filter(|done| done.begun <= ended).cloned().collect();
    // What can be left out without a difference to where the task stood has nothing to do with it.
    for index in (0..calls.len()).rev() {
        let mut fewer = calls.clone();
        let removed = fewer.remove(index);
        let stands = |(at, worlds): (usize, HashSet<World>)| {
            let failed: &Done = &fewer[at];
            (failed.begun, failed.ended) == (begun, ended)
                && worlds.into_iter().map(|world| world.task).collect::<HashSet<_>>() == states
        };
        if (removed.begun, removed.ended) != (begun, ended) && first_unexplained(&fewer).is_some_and(stands) {
            calls = fewer;
        }
    }
    let mut text = String::new();
    let skipped = calls.len().saturating_sub(SHOWN);
    calls.sort_by_key(|done| (done.ended, done.begun));
    writeln!(text, "no serial order explains the last of {} calls ({skipped} not shown):", calls.len()).expect("a string");
    for Done { caller, begun, ended, call, answer, .. } in &calls[skipped..] {
        writeln!(text, "  {begun:>6}..{ended:<6} caller {caller:>2}: {call:?}\n{:>27}{answer:?}", "→ ").expect("a string");
    }
    for state in states.iter().take(3) {
        writeln!(text, "  a state before it: {state:?}").expect("a string");
    }
    Err(text)
}
