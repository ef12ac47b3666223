//! Cancels of many tasks in one step.

use std::collections::{HashMap, HashSet};

use oxcart_types::{EndKind, TaskId};

use super::{
    Conn, cancels,
    close::{self, LOOKS},
    dialect,
    heads::{self, Home},
};
use crate::{
    CancelOutcome, CancelTask,
    fault::Step,
    rows::{chain::EndFacts, head::Head},
};

/// Cancels tasks; see [`crate::Store::cancel_tasks`].
pub(crate) async fn cancel(conn: &mut Conn, wanted: &[CancelTask]) -> Step<Vec<CancelOutcome>> {
    let ids: Vec<TaskId> = wanted.iter().map(|item| item.task).collect();
    let homes = heads::lock(conn, &ids, dialect::SHARE).await?;
    let mut outcomes = HashMap::with_capacity(wanted.len());
    let mut seen = HashSet::with_capacity(wanted.len());
    let mut left: Vec<&CancelTask> = wanted.iter().filter(|item| seen.insert(item.task)).collect();
    // A slot that is taken does not prove that a run is open: it may have ended since. So look again.
    for _ in 0..LOOKS {
        if left.is_empty() {
            break;
        }
        left = look(conn, left, &homes, &mut outcomes).await?;
    }
    if !left.is_empty() {
        // Somebody starts and ends runs faster than they can be read: that is as good as running.
        let heads = heads::heads(conn, &left.iter().map(|item| item.task).collect::<Vec<_>>()).await?;
        request(conn, &left, &heads, &homes, &mut outcomes).await?;
    }
    Ok(wanted.iter().map(|item| outcomes.get(&item.task).cloned().unwrap_or(CancelOutcome::NoTask)).collect())
}

/// Looks at chains and does what they allow; those whose slot was lost meanwhile come back.
async fn look<'a>(
    conn: &mut Conn,
    items: Vec<&'a CancelTask>,
    homes: &HashMap<TaskId, Home>,
    outcomes: &mut HashMap<TaskId, CancelOutcome>,
) -> Step<Vec<&'a CancelTask>> {
    let heads = heads::heads(conn, &items.iter().map(|item| item.task).collect::<Vec<_>>()).await?;
    let (mut free, mut open) = (Vec::new(), Vec::new());
    for item in items {
        let Some(head) = heads.get(&item.task) else {
            outcomes.insert(item.task, CancelOutcome::NoTask);
            continue;
        };
        match (head.terminal(), head.task.head.next_run()) {
            (Some(kind), _) => {
                outcomes.insert(item.task, ended(item, head, kind));
            }
            (None, Some(_)) => free.push(item),
            (None, None) => open.push(item),
        }
    }
    let slots: Vec<EndFacts<'_>> = free.iter().filter_map(|item| slot(item, heads.get(&item.task)?)).collect();
    let taken = close::take_slots(conn, &slots).await?;
    for slot in slots.iter().filter(|slot| taken.contains(&slot.task)) {
        if let Some(head) = heads.get(&slot.task) {
            let entry = Box::new(head.task.entry.clone());
            outcomes.insert(slot.task, CancelOutcome::Closed { run: slot.run, entry });
        }
    }
    request(conn, &open, &heads, homes, outcomes).await?;
    Ok(free.into_iter().filter(|item| !taken.contains(&item.task)).collect())
}

fn ended(item: &CancelTask, head: &Head, kind: EndKind) -> CancelOutcome {
    match head.task.head.latest {
        Some(latest) if head.closed_by(item.by) => {
            CancelOutcome::Closed { run: latest.run, entry: Box::new(head.task.entry.clone()) }
        }
        _ => CancelOutcome::Ended(kind),
    }
}

fn slot<'a>(item: &'a CancelTask, head: &Head) -> Option<EndFacts<'a>> {
    Some(EndFacts {
        task: item.task,
        run: head.task.head.next_run()?,
        kind: EndKind::Cancelled,
        by: item.by,
        attempts_used: head.task.head.attempts_used(),
        next_run_at: None,
        result: None,
        failure: Some(&item.failure),
        at: item.cancel.requested_at,
    })
}

async fn request(
    conn: &mut Conn,
    items: &[&CancelTask],
    heads: &HashMap<TaskId, Head>,
    homes: &HashMap<TaskId, Home>,
    outcomes: &mut HashMap<TaskId, CancelOutcome>,
) -> Step<()> {
    let found: Vec<_> = items.iter().filter_map(|item| heads.get(&item.task).map(|head| (head, &item.cancel))).collect();
    if found.is_empty() {
        return Ok(());
    }
    cancels::note(conn, &found, homes).await?;
    for (head, _) in found {
        outcomes.insert(head.task.entry.task, CancelOutcome::Requested(Box::new(head.task.clone())));
    }
    Ok(())
}
