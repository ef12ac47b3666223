//! What a group commit writes, decided before anything is written: units that conflict are refused alone.
//!
//! Pure: what the database knows goes in, rows and outcomes come out.

use std::collections::HashMap;

use oxcart_types::{IdempotencyPolicy, LeaseToken, Run, TaskId, TaskState, Timestamp};

use crate::{Accepted, Conflict, NewTask, SubmitUnit, UnitOutcome, codes::KeyKind, rows::head::Head};

/// Digest of a request.
pub(crate) type Digest = [u8; 16];
/// Ids of tasks, each with the digest of its request.
pub(crate) type Bodies = Vec<(TaskId, Digest)>;
/// An idempotency key or a request id.
pub(crate) type KeyName = (KeyKind, Vec<u8>);

/// What is known before the commit.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Tasks by their ids.
    pub(crate) tasks: HashMap<TaskId, Digest>,
    /// Keys that live.
    pub(crate) keys: HashMap<KeyName, Bodies>,
    /// Chains of holders that may be replaced.
    pub(crate) holders: HashMap<TaskId, Head>,
}

/// A key to be written.
#[derive(Debug, Clone)]
pub(crate) struct NewKey {
    /// Name.
    pub(crate) name: KeyName,
    /// What it stands for.
    pub(crate) bodies: Bodies,
    /// End of its life.
    pub(crate) expires_at: Timestamp,
}

/// A slot of a replaced holder, to be closed as cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReplacedSlot {
    /// The holder.
    pub(crate) task: TaskId,
    /// Its next run.
    pub(crate) run: Run,
    /// Its attempts so far.
    pub(crate) attempts_used: u32,
    /// Closer token: follows from the new task, so that it is the same over all tries.
    pub(crate) by: LeaseToken,
}

/// What is to be written.
#[derive(Debug, Default)]
pub(crate) struct Plan<'a> {
    /// New tasks.
    pub(crate) tasks: Vec<&'a NewTask>,
    /// New keys.
    pub(crate) keys: Vec<NewKey>,
    /// Keys whose holders are replaced.
    pub(crate) freed: Vec<KeyName>,
    /// Slots to be closed.
    pub(crate) slots: Vec<ReplacedSlot>,
    /// What becomes of each unit if all of it can be written.
    pub(crate) outcomes: Vec<UnitOutcome>,
}

/// Names of the keys that units ask for.
pub(crate) fn key_names(units: &[SubmitUnit]) -> Vec<KeyName> {
    let requests = units.iter().filter_map(|unit| unit.request.as_ref()).map(|(id, _)| (KeyKind::Request, id.as_bytes().to_vec()));
    requests.chain(units.iter().flat_map(|unit| &unit.tasks).filter_map(task_key)).collect()
}

/// Names of the keys whose holders units want to replace.
pub(crate) fn replacing(units: &[SubmitUnit]) -> impl Iterator<Item = KeyName> {
    let replaces = |task: &&NewTask| task.spec.idempotency.as_ref().is_some_and(|key| key.policy == IdempotencyPolicy::Replace);
    units.iter().flat_map(|unit| &unit.tasks).filter(replaces).filter_map(task_key)
}

fn task_key(task: &NewTask) -> Option<KeyName> {
    task.spec.idempotency.as_ref().map(|key| (KeyKind::Task, key.key.as_bytes().to_vec()))
}

/// Decides what becomes of units, in their order.
pub(crate) fn plan<'a>(mut known: Known, units: &'a [SubmitUnit]) -> Plan<'a> {
    let mut plan = Plan::default();
    for unit in units {
        let outcome = match decide(&known, unit) {
            Err(conflict) => UnitOutcome::Refused(conflict),
            Ok(decided) => {
                known.tasks.extend(decided.tasks.iter().map(|task| (task.spec.id, task.digest)));
                known.keys.extend(decided.keys.iter().map(|key| (key.name.clone(), key.bodies.clone())));
                plan.tasks.extend(decided.tasks);
                plan.keys.extend(decided.keys);
                plan.freed.extend(decided.freed);
                plan.slots.extend(decided.slots);
                UnitOutcome::Accepted(decided.accepted)
            }
        };
        plan.outcomes.push(outcome);
    }
    plan
}

/// What one unit adds.
#[derive(Debug, Default)]
struct Decided<'a> {
    accepted: Vec<Accepted>,
    tasks: Vec<&'a NewTask>,
    keys: Vec<NewKey>,
    freed: Vec<KeyName>,
    slots: Vec<ReplacedSlot>,
}

impl Decided<'_> {
    fn digest_of(&self, known: &Known, id: TaskId) -> Option<Digest> {
        let own = self.tasks.iter().find(|task| task.spec.id == id).map(|task| task.digest);
        own.or_else(|| known.tasks.get(&id).copied())
    }

    fn holder(&self, known: &Known, name: &KeyName) -> Option<(TaskId, Digest)> {
        let own = self.keys.iter().rev().find(|key| key.name == *name).map(|key| &key.bodies);
        own.or_else(|| known.keys.get(name)).and_then(|bodies| bodies.first().copied())
    }
}

fn decide<'a>(known: &Known, unit: &'a SubmitUnit) -> Result<Decided<'a>, Conflict> {
    let request = unit.request.as_ref().map(|(id, expires_at)| (*id, (KeyKind::Request, id.as_bytes().to_vec()), *expires_at));
    if let Some((request, name, _)) = &request
        && let Some(bodies) = known.keys.get(name)
    {
        let same = |(task, (id, digest)): (&NewTask, &(TaskId, Digest))| {
            task.digest == *digest && (!task.id_chosen || task.spec.id == *id || task.spec.idempotency.is_some())
        };
        if bodies.len() != unit.tasks.len() || !unit.tasks.iter().zip(bodies).all(same) {
            return Err(Conflict::RequestReused { request: *request });
        }
        let accepted = bodies.iter().map(|(id, _)| known_before(*id)).collect();
        return Ok(Decided { accepted, ..Decided::default() });
    }
    let mut decided = Decided::default();
    for (index, task) in unit.tasks.iter().enumerate() {
        let id = task.spec.id;
        match decided.digest_of(known, id) {
            Some(digest) if digest == task.digest => decided.accepted.push(known_before(id)),
            Some(_) => return Err(Conflict::TaskIdTaken { index, id }),
            None => add(known, &mut decided, index, task)?,
        }
    }
    if let Some((_, name, expires_at)) = request {
        let bodies = decided.accepted.iter().zip(&unit.tasks).map(|(accepted, task)| (accepted.id, task.digest)).collect();
        decided.keys.push(NewKey { name, bodies, expires_at });
    }
    Ok(decided)
}

const fn known_before(id: TaskId) -> Accepted {
    Accepted { id, deduplicated: true, replaced: None, cancelled: false }
}

/// Adds a task whose id is new.
fn add<'a>(known: &Known, decided: &mut Decided<'a>, index: usize, task: &'a NewTask) -> Result<(), Conflict> {
    let id = task.spec.id;
    let mut replaced = None;
    if let (Some(key), Some(name)) = (&task.spec.idempotency, task_key(task)) {
        if let Some((holder, digest)) = decided.holder(known, &name) {
            if holder == id && digest == task.digest {
                // A repeat, of which only the key was looked up.
                decided.accepted.push(known_before(id));
                return Ok(());
            }
            let taken = Conflict::KeyTaken { index, key: key.key.clone(), holder };
            match key.policy {
                IdempotencyPolicy::ReturnExisting if digest == task.digest => {
                    decided.accepted.push(known_before(holder));
                    return Ok(());
                }
                IdempotencyPolicy::ReturnExisting | IdempotencyPolicy::Reject => return Err(taken),
                IdempotencyPolicy::Replace => replaced = replace(known, decided, task, holder).ok_or(taken)?,
            }
            decided.freed.push(name.clone());
        }
        let ttl = chrono::TimeDelta::from_std(key.ttl).unwrap_or(chrono::TimeDelta::MAX);
        let expires_at = task.created_at.checked_add_signed(ttl).unwrap_or(Timestamp::MAX_UTC);
        decided.keys.push(NewKey { name, bodies: vec![(id, task.digest)], expires_at });
    }
    decided.tasks.push(task);
    decided.accepted.push(Accepted { id, deduplicated: false, replaced, cancelled: false });
    Ok(())
}

/// Replaces the holder of a key: `None` when it must not be, else the slot that is closed, if one is.
fn replace(known: &Known, decided: &mut Decided<'_>, task: &NewTask, holder: TaskId) -> Option<Option<(TaskId, Run)>> {
    if known.tasks.contains_key(&holder) && !known.holders.contains_key(&holder) {
        // Accepted a moment ago, in this very commit.
        return None;
    }
    if decided.tasks.iter().any(|task| task.spec.id == holder) {
        return None;
    }
    // A holder that is gone, or that never ran and never will, stands in nobody's way.
    let Some(head) = known.holders.get(&holder) else { return Some(None) };
    match head.task.head.state().ok()? {
        TaskState::Pending | TaskState::Queued => {
            let run = head.task.head.next_run()?;
            let by = LeaseToken::from_bytes(*task.spec.id.as_bytes());
            decided.slots.push(ReplacedSlot { task: holder, run, attempts_used: head.task.head.attempts_used(), by });
            Some(Some((holder, run)))
        }
        TaskState::Cancelled | TaskState::Expired if head.task.head.attempts_used() == 0 => Some(None),
        TaskState::Running
        | TaskState::Retrying
        | TaskState::Succeeded
        | TaskState::Failed
        | TaskState::Cancelled
        | TaskState::Expired => None,
    }
}
