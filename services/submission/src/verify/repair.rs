//! Brings findings in order, by the steps of the sweepers only: each may be repeated by anyone at any time.

use std::collections::BTreeSet;

use oxcart_proto::pb::dispatcher::v1::EntryKey;
use oxcart_store::OpenTask;
use oxcart_types::{Limits, TaskId};

use super::{
    Finding,
    finding::{Of, Remedy},
};
use crate::{
    core::Core,
    sweep::{SweepError, audit_tasks},
};

/// Places that an entry can be in at once, at most.
const PLACES: usize = 4;

/// Carries out the remedies: first what is to leave the queues, then the audit of the tasks concerned, then rows of SQL.
pub(super) async fn repair(core: &Core, findings: &[Finding]) -> Result<(), SweepError> {
    take_out(core, findings).await?;
    audit(core, findings).await?;
    let mut rows = Vec::new();
    let mut handoffs = Vec::new();
    for finding in findings {
        match &finding.remedy {
            Remedy::ClearAgenda(row) => rows.push(*row),
            Remedy::Confirm(id) => handoffs.push(*id),
            Remedy::Audit | Remedy::TakeOut(_) => {}
        }
    }
    if !rows.is_empty() {
        core.store.clear_agenda(&rows).await?;
    }
    if !handoffs.is_empty() {
        core.store.confirm_handoffs(&handoffs, &[]).await?;
    }
    Ok(())
}

async fn take_out(core: &Core, findings: &[Finding]) -> Result<(), SweepError> {
    let keys = findings.iter().filter_map(|finding| match &finding.remedy {
        Remedy::TakeOut(key) => Some((**key).clone()),
        Remedy::Audit | Remedy::ClearAgenda(_) | Remedy::Confirm(_) => None,
    });
    for keys in each_task_once(keys.collect()) {
        for keys in keys.chunks(Limits::BATCH_ITEMS) {
            core.meters.swept("verify", "remove", keys.len());
            // One call takes an entry out of one place.
            for _ in 0..PLACES {
                core.dispatcher.take_out(keys.to_vec()).await?;
            }
        }
    }
    Ok(())
}

/// Calls that name each task once, in the order of the keys.
fn each_task_once(keys: Vec<EntryKey>) -> Vec<Vec<EntryKey>> {
    let mut calls: Vec<(BTreeSet<String>, Vec<EntryKey>)> = Vec::new();
    for key in keys {
        let at = calls.iter().position(|(tasks, _)| !tasks.contains(&key.task_id)).unwrap_or_else(|| {
            calls.push(Default::default());
            calls.len() - 1
        });
        calls[at].0.insert(key.task_id.clone());
        calls[at].1.push(key);
    }
    calls.into_iter().map(|(_, keys)| keys).collect()
}

/// Looks at the tasks as the audit does: what is open and missing is offered again, what is over its time is closed.
async fn audit(core: &Core, findings: &[Finding]) -> Result<(), SweepError> {
    let concerned = findings.iter().filter_map(|finding| match (&finding.remedy, finding.subject.of) {
        (Remedy::Audit | Remedy::TakeOut(_), Of::Task(task)) => Some(task),
        _ => None,
    });
    let ids: Vec<TaskId> = concerned.collect::<BTreeSet<_>>().into_iter().collect();
    for ids in ids.chunks(Limits::BATCH_ITEMS) {
        let standings = core.store.standings(ids).await?;
        // What waits in SQL is another sweeper's.
        let concerned = standings.into_values().filter(|standing| standing.terminal().is_none());
        let open: Vec<OpenTask> = concerned.map(|standing| standing.task).filter(|task| task.head.waiting.is_none()).collect();
        audit_tasks(core, "verify", &open, core.clock.now()).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_names_a_task_once() {
        let key = |task: &str, run| EntryKey { task_id: task.to_owned(), run, ..EntryKey::default() };
        let calls = each_task_once(vec![key("a", 1), key("b", 1), key("a", 2), key("a", 3), key("c", 1)]);
        let told: Vec<Vec<_>> = calls.iter().map(|call| call.iter().map(|key| (key.task_id.as_str(), key.run)).collect()).collect();
        assert_eq!(told, [vec![("a", 1), ("b", 1), ("c", 1)], vec![("a", 2)], vec![("a", 3)]]);
    }
}
