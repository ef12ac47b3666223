//! What clients were told, against what is: I1, I2 and the answers to cancels of I7.

use std::collections::{BTreeMap, HashMap};

use oxcart_types::{TaskId, TaskState};

use crate::{CancelAnswer, Chain, Invariant, Observation, Report, SubmitAnswer};

/// All that clients heard of one task.
#[derive(Default)]
struct Heard {
    acknowledged: bool,
    unknown: bool,
    refused: bool,
}

pub(super) fn check(seen: &[Observation], chains: &BTreeMap<TaskId, Chain>, report: &mut Report) {
    let heard = heard(seen, report);
    for (&task, heard) in &heard {
        submission(task, heard, chains.get(&task), report);
    }
    for &stranger in chains.keys().filter(|task| !heard.contains_key(task)) {
        report.add(Invariant::I2, Some(stranger), "is in SQL and nobody submitted it");
    }
    cancels(seen, chains, report);
}

fn heard(seen: &[Observation], report: &mut Report) -> BTreeMap<TaskId, Heard> {
    let mut heard: BTreeMap<TaskId, Heard> = BTreeMap::new();
    let mut holders: HashMap<&str, TaskId> = HashMap::new();
    for observation in seen {
        let Observation::Submitted { task, key, answer, .. } = observation else { continue };
        let asked = heard.entry(*task).or_default();
        match *answer {
            SubmitAnswer::Refused => asked.refused = true,
            SubmitAnswer::Unknown => asked.unknown = true,
            SubmitAnswer::Acknowledged(found) => {
                if found == *task {
                    asked.acknowledged = true;
                } else {
                    // The key had a task: this one was not written.
                    asked.refused = true;
                    heard.entry(found).or_default().acknowledged = true;
                }
                if let Some(key) = key
                    && let Some(other) = holders.insert(key, found)
                    && other != found
                {
                    report.add(Invariant::I2, Some(found), format!("has the key {key:?}, and so has {other}"));
                }
            }
        }
    }
    heard
}

fn submission(task: TaskId, heard: &Heard, chain: Option<&Chain>, report: &mut Report) {
    match chain {
        None if heard.acknowledged => report.add(Invariant::I1, Some(task), "was acknowledged and is not there"),
        None => {}
        Some(_) if heard.refused && !heard.acknowledged && !heard.unknown => {
            report.add(Invariant::I2, Some(task), "was refused and is there");
        }
        Some(chain) if !chain.task.state.is_terminal() => {
            let invariant = if heard.acknowledged { Invariant::I1 } else { Invariant::I2 };
            let latest = chain.runs.last();
            report.add(invariant, Some(task), format!("is still {}, its latest run {latest:?}", chain.task.state));
        }
        Some(chain) => {
            report.figures.tasks += 1;
            *report.figures.states.entry(chain.task.state).or_default() += 1;
        }
    }
}

fn cancels(seen: &[Observation], chains: &BTreeMap<TaskId, Chain>, report: &mut Report) {
    for observation in seen {
        let Observation::CancelAnswered { task, answer, at } = observation else { continue };
        let Some(chain) = chains.get(task).filter(|chain| chain.task.state.is_terminal() && !chain.is_replayed_since(*at)) else {
            continue;
        };
        let state = chain.task.state;
        match answer {
            CancelAnswer::Acknowledged => {
                report.figures.cancels_acknowledged += 1;
                if state != TaskState::Cancelled {
                    report.add(Invariant::I7, Some(*task), format!("ended {state} after its cancel was acknowledged"));
                }
            }
            // A success stands, and a task whose holder has not ended it is closed by whoever meets it next.
            CancelAnswer::Requested if !matches!(state, TaskState::Succeeded | TaskState::Cancelled) => {
                report.add(Invariant::I7, Some(*task), format!("ended {state} though its cancel was requested while it ran"));
            }
            CancelAnswer::Requested | CancelAnswer::TooLate | CancelAnswer::Unknown => {}
        }
    }
}
