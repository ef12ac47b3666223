//! What came of a row: as a line of a table for people, and as JSON.

use std::{collections::BTreeMap, time::Duration};

use comfy_table::{Cell, CellAlignment, Table, presets};
use oxcart_ledger::{Left, Observation};
use oxcart_types::{TaskId, Timestamp, WorkerId};
use serde::Serialize;

/// What came of a row.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Outcome {
    /// Name of the row.
    pub row: &'static str,
    /// What went wrong.
    pub title: &'static str,
    /// The seed that load and faults follow from.
    pub seed: u64,
    /// Tasks in SQL at the end.
    pub tasks: u64,
    /// Tasks by the state that they ended in.
    pub states: BTreeMap<String, u64>,
    /// Runs that a worker started.
    pub starts: u64,
    /// Runs that ended since their worker was gone.
    pub lost: u64,
    /// Results of handlers that were dropped, since another end stood.
    pub fenced: u64,
    /// Cancels acknowledged.
    pub cancels_acknowledged: u64,
    /// Handlers that worked beside another one of the same task.
    pub overlaps: Spread,
    /// Tries of clients after their first.
    pub retries: u64,
    /// Calls that were left out since too many were in flight.
    pub left_out: u64,
    /// Answers that clients heard, by their code.
    pub answers: BTreeMap<String, u64>,
    /// Faults, in words.
    pub faults: Vec<String>,
    /// From the end of each fault to the next success of a handler.
    pub recovery: Spread,
    /// The longest time without a success of a handler, in milliseconds.
    pub longest_stall_ms: u64,
    /// From the end of the load, with all healed, until nothing was open, in milliseconds.
    pub quiet_after_ms: u64,
    /// Processes that ended by themselves.
    pub fallen: u64,
    /// Acknowledged tasks that did not end.
    pub stuck: u64,
    /// What was broken, in words; empty when nothing was.
    pub violations: Vec<String>,
}

/// Some durations: how many, the middle one, and the longest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// How many.
    pub count: u64,
    /// The middle one, in milliseconds.
    pub p50_ms: u64,
    /// The longest, in milliseconds.
    pub max_ms: u64,
}

impl FromIterator<Duration> for Spread {
    fn from_iter<I: IntoIterator<Item = Duration>>(durations: I) -> Self {
        let mut sorted: Vec<u64> =
            durations.into_iter().map(|duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)).collect();
        sorted.sort_unstable();
        let at = |index: usize| sorted.get(index).copied().unwrap_or_default();
        Self { count: sorted.len() as u64, p50_ms: at(sorted.len() / 2), max_ms: sorted.last().copied().unwrap_or_default() }
    }
}

impl Outcome {
    /// Nothing was broken.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }
}

/// The rows as a table.
#[must_use]
pub fn table(outcomes: &[Outcome]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "ROW",
        "FAULT",
        "TASKS",
        "FAULTS",
        "RETRIES",
        "LOST RUNS",
        "OVERLAPS",
        "P50/MAX MS",
        "FENCED",
        "RECOVERY P50/MAX MS",
        "STALL MS",
        "QUIET AFTER MS",
        "STUCK",
        "VERDICT",
    ]);
    for outcome in outcomes {
        let verdict = if outcome.is_clean() { "nothing lost".to_owned() } else { format!("{} BROKEN", outcome.violations.len()) };
        let numbers = [
            outcome.tasks.to_string(),
            outcome.faults.len().to_string(),
            outcome.retries.to_string(),
            outcome.lost.to_string(),
            outcome.overlaps.count.to_string(),
            format!("{} / {}", outcome.overlaps.p50_ms, outcome.overlaps.max_ms),
            outcome.fenced.to_string(),
            format!("{} / {}", outcome.recovery.p50_ms, outcome.recovery.max_ms),
            outcome.longest_stall_ms.to_string(),
            outcome.quiet_after_ms.to_string(),
            outcome.stuck.to_string(),
        ];
        let cells = [Cell::new(outcome.row), Cell::new(outcome.title)]
            .into_iter()
            .chain(numbers.iter().map(|number| Cell::new(number).set_alignment(CellAlignment::Right)))
            .chain([Cell::new(verdict)]);
        table.add_row(cells);
    }
    table.to_string()
}

/// How long handlers worked beside another one of the same task. `seen` is in order of time.
#[must_use]
pub fn overlaps(seen: &[(Timestamp, Observation)]) -> Spread {
    let mut open: BTreeMap<(TaskId, u32, WorkerId), Timestamp> = BTreeMap::new();
    let mut beside = Vec::new();
    let mut leave = |open: &mut BTreeMap<(TaskId, u32, WorkerId), Timestamp>, key: (TaskId, u32, WorkerId), at: Timestamp| {
        let Some(entered) = open.remove(&key) else { return };
        // Whoever is still there has worked beside this one since the later of the two came.
        let others = open.range((key.0, 0, WorkerId::from_uuid(uuid::Uuid::nil()))..).take_while(|((task, ..), _)| *task == key.0);
        beside.extend(others.filter_map(|(_, other)| at.signed_duration_since(entered.max(*other)).to_std().ok()));
    };
    for (at, observation) in seen {
        match observation {
            Observation::Entered { task, run, worker, .. } => drop(open.insert((*task, run.get(), *worker), *at)),
            Observation::Left { task, run, .. } => {
                let stay = open.keys().find(|(t, r, _)| t == task && *r == run.get()).copied();
                if let Some(key) = stay {
                    leave(&mut open, key, *at);
                }
            }
            Observation::Died { worker, .. } => {
                let stays: Vec<_> = open.keys().filter(|(_, _, w)| w == worker).copied().collect();
                stays.into_iter().for_each(|key| leave(&mut open, key, *at));
            }
            Observation::Submitted { .. } | Observation::CancelAnswered { .. } => {}
        }
    }
    beside.into_iter().collect()
}

/// When handlers returned results, in order.
#[must_use]
pub fn successes(seen: &[(Timestamp, Observation)]) -> Vec<Timestamp> {
    let returned = |observation: &Observation| matches!(observation, Observation::Left { how: Left::Returned(_), .. });
    seen.iter().filter(|(_, observation)| returned(observation)).map(|(at, _)| *at).collect()
}

/// From each of these moments to the next success.
#[must_use]
pub fn recovery(healed: &[Timestamp], successes: &[Timestamp]) -> Spread {
    let next = |at: &Timestamp| successes.get(successes.partition_point(|success| success < at));
    healed.iter().filter_map(|at| next(at)?.signed_duration_since(*at).to_std().ok()).collect()
}

/// The longest time without a success between two moments, in milliseconds.
#[must_use]
pub fn longest_stall(from: Timestamp, to: Timestamp, successes: &[Timestamp]) -> u64 {
    let within = successes.iter().copied().filter(|at| (from..=to).contains(at));
    let ends: Vec<Timestamp> = std::iter::once(from).chain(within).chain([to]).collect();
    let longest = ends.windows(2).map(|pair| pair[1].signed_duration_since(pair[0]).num_milliseconds()).max();
    u64::try_from(longest.unwrap_or_default()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use oxcart_types::{IdSource as _, Run, SystemIds};

    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_timestamp_millis(1_800_000_000_000 + millis).unwrap()
    }

    #[test]
    fn stays_of_one_task_that_overlap_are_measured() {
        let (task, other) = (SystemIds.task_id(), SystemIds.task_id());
        let (one, two) = (SystemIds.worker_id(), SystemIds.worker_id());
        let enter = |task, run, worker, millis| {
            (at(millis), Observation::Entered { task, run: Run::new(run).unwrap(), worker, at: at(millis) })
        };
        let leave = |task, run, millis| {
            (at(millis), Observation::Left { task, run: Run::new(run).unwrap(), how: Left::Failed, at: at(millis) })
        };
        // Run 1 is frozen from 100 to 400 while run 2 works from 200 to 250; another task works all the time.
        let seen = [
            enter(other, 1, one, 0),
            enter(task, 1, one, 100),
            enter(task, 2, two, 200),
            leave(task, 2, 250),
            leave(task, 1, 400),
            (at(500), Observation::Died { worker: one, at: at(500) }),
        ];
        assert_eq!(overlaps(&seen), Spread { count: 1, p50_ms: 50, max_ms: 50 });
        // A worker that dies has left.
        let seen = [
            enter(task, 1, one, 0),
            (at(100), Observation::Died { worker: one, at: at(100) }),
            enter(task, 2, two, 200),
            leave(task, 2, 300),
        ];
        assert_eq!(overlaps(&seen), Spread::default());
    }

    #[test]
    fn recovery_and_stalls_are_read_from_successes() {
        let successes = [at(0), at(100), at(900), at(1000)];
        assert_eq!(recovery(&[at(50), at(200), at(5000)], &successes), Spread { count: 2, p50_ms: 700, max_ms: 700 });
        assert_eq!(longest_stall(at(0), at(1500), &successes), 800);
        assert_eq!(longest_stall(at(0), at(3000), &successes), 2000);
        assert_eq!(longest_stall(at(0), at(300), &[]), 300);
    }
}
