//! The operations of the engine on one partition.

use std::{collections::HashMap, time::Duration};

use oxcart_types::{LeaseToken, Run, TaskId};

use super::{
    call::{Call, Told},
    state::{Entry, Spot, State},
};
use crate::{
    engine::{
        Claim, Complete, Enqueue, EnqueueStatus, EntryKey, Extend, ExtendCause, Granted, Inspected, LeaseRequest, LeaseStatus,
        Leased, PartitionStats, Place, Presence, Release, Remove, RemoveStatus, TickLimits, Ticked, Transition,
    },
    rules::to_millis,
};

pub(super) fn enqueue(call: &mut Call<'_>, item: &Enqueue, with_note: bool) -> EnqueueStatus {
    let status = match call.state.get(item.key.task) {
        Some(old) if old.run == item.run => return EnqueueStatus::Exists,
        Some(old) if old.run > item.run => return EnqueueStatus::Older,
        Some(_) => EnqueueStatus::Superseded,
        None if item.run == Run::FIRST && call.state.len() >= call.options.window => return EnqueueStatus::WindowFull,
        None => EnqueueStatus::Created,
    };
    let spot = call.waiting(&item.key, to_millis(item.delay));
    let entry = Entry { key: item.key, run: item.run, deliveries: 0, spot };
    call.put(entry);
    let note: &[u8] = if with_note { &item.note } else { b"" };
    call.tell(item.cause.transition(), &entry, Told { due_ms: spot.due_ms(), note, ..Told::default() });
    status
}

pub(super) fn lease(call: &mut Call<'_>, request: &LeaseRequest) -> Leased {
    call.configure(request.settings);
    let limits = TickLimits::default();
    call.settle_time(if request.reap { limits } else { TickLimits { reap: 0, ..limits } });
    let turn = call.state.turns + 1;
    let every = u64::from(call.options.lowest_band_every);
    let mut from_band = if every > 0 && turn.is_multiple_of(every) { call.state.lowest_band().unwrap_or(0) } else { 0 };
    let ttl_ms = to_millis(request.claim_ttl);
    let mut granted = Vec::with_capacity(request.claims.len());
    // Per band: the pass of the last entry given out, and how many were.
    let mut served: HashMap<u8, (u64, u64)> = HashMap::new();
    let claims: &[Claim] = if call.state.settings.paused { &[] } else { &request.claims };
    for Claim { token, worker } in claims {
        let mut next = call.state.next_ready(from_band);
        if next.is_none() {
            from_band = 0;
            next = call.state.next_ready(from_band);
        }
        let Some(entry) = next.and_then(|task| call.state.get(task)).copied() else { break };
        if let Spot::Ready { pass } = entry.spot {
            let (last_pass, count) = served.entry(entry.key.band).or_default();
            (*last_pass, *count) = (pass, *count + 1);
        }
        let entry = Entry { deliveries: entry.deliveries.saturating_add(1), spot: call.leased(ttl_ms, *token), ..entry };
        call.put(entry);
        call.tell(Transition::Granted, &entry, Told { worker: Some(*worker), ..Told::default() });
        granted.push(Granted { key: entry.key, run: entry.run, deliveries: entry.deliveries, token: *token });
    }
    if !granted.is_empty() {
        call.state.turns = turn;
    }
    for (band, (pass, count)) in served {
        call.state.fairness.served(band, pass, count);
    }
    let next_due = call.state.next_due().map(|(due_ms, _)| until(due_ms, call.now_ms));
    Leased { granted, ready: call.state.ready_count(), next_due, settings: call.state.settings }
}

pub(super) fn extend(call: &mut Call<'_>, cause: ExtendCause, item: &Extend) -> LeaseStatus {
    let spot = call.leased(to_millis(item.ttl), item.token);
    let old = call.state.get(item.key.task).copied();
    let (status, entry) = match old {
        Some(Entry { spot: Spot::Leased { token, .. }, .. }) if token != item.token => return LeaseStatus::Lost,
        Some(old @ Entry { spot: Spot::Leased { .. }, .. }) => (LeaseStatus::Ok, Entry { run: old.run.max(item.run), spot, ..old }),
        Some(old) if old.run > item.run => return LeaseStatus::Lost,
        other => {
            let deliveries = item.deliveries.max(other.map_or(0, |old| old.deliveries)).max(1);
            (LeaseStatus::Adopted, Entry { key: item.key, run: item.run, deliveries, spot })
        }
    };
    call.put(entry);
    match (status, cause) {
        (LeaseStatus::Adopted, _) => call.tell(Transition::Adopted, &entry, Told::default()),
        (_, ExtendCause::Started) => call.tell(Transition::Started, &entry, Told::default()),
        (_, ExtendCause::Heartbeat) => {}
    }
    status
}

/// The entry that a token holds, or why it holds none.
fn held(state: &State, task: TaskId, mine: LeaseToken) -> Result<Entry, LeaseStatus> {
    match state.get(task) {
        Some(entry @ Entry { spot: Spot::Leased { token, .. }, .. }) if *token == mine => Ok(*entry),
        Some(Entry { spot: Spot::Leased { .. }, .. }) => Err(LeaseStatus::Lost),
        Some(_) | None => Err(LeaseStatus::Unknown),
    }
}

pub(super) fn complete(call: &mut Call<'_>, item: &Complete, with_note: bool) -> LeaseStatus {
    let entry = match held(call.state, item.task, item.token) {
        Ok(entry) => entry,
        Err(status) => return status,
    };
    call.take(&entry);
    let note: &[u8] = if with_note { &item.note } else { b"" };
    call.tell(item.outcome.transition(), &entry, Told { note, ..Told::default() });
    LeaseStatus::Ok
}

pub(super) fn release(call: &mut Call<'_>, item: &Release) -> LeaseStatus {
    let entry = match held(call.state, item.task, item.token) {
        Ok(entry) => entry,
        Err(status) => return status,
    };
    let deliveries = entry.deliveries.saturating_sub(u8::from(item.uncounted));
    let spot = call.waiting(&entry.key, to_millis(item.delay));
    let entry = Entry { deliveries, spot, ..entry };
    call.put(entry);
    call.tell(Transition::Released, &entry, Told { due_ms: spot.due_ms(), ..Told::default() });
    LeaseStatus::Ok
}

pub(super) fn remove(call: &mut Call<'_>, item: &Remove) -> RemoveStatus {
    let Some(entry) = call.state.get(item.key.task).copied() else { return RemoveStatus::Unknown };
    if entry.run > item.up_to {
        return RemoveStatus::Newer;
    }
    let status = match entry.spot {
        Spot::Leased { token, .. } if !item.take_lease => return RemoveStatus::Leased(token),
        Spot::Leased { token, .. } => RemoveStatus::Leased(token),
        Spot::Ready { .. } | Spot::Delayed { .. } | Spot::Quarantined => RemoveStatus::Removed,
    };
    call.take(&entry);
    call.tell(Transition::Removed, &entry, Told::default());
    status
}

pub(super) fn tick(call: &mut Call<'_>, limits: TickLimits) -> Ticked {
    let (reap, promoted) = call.settle_time(limits);
    if call.state.ready_count() == 0 {
        call.state.fairness.reset();
    }
    Ticked {
        promoted,
        reaped: reap.reaped,
        quarantined: reap.quarantined,
        ready: call.state.ready_count(),
        next_due: call.state.next_due().map(|(due_ms, _)| until(due_ms, call.now_ms)),
        next_expiry: call.state.next_expiry().map(|(until_ms, _)| until(until_ms, call.now_ms)),
    }
}

pub(super) fn missing(state: &State, key: &EntryKey, run: Run) -> Presence {
    match state.get(key.task) {
        Some(entry) if entry.run < run => Presence::Missing,
        Some(Entry { spot: Spot::Quarantined, .. }) => Presence::Quarantined,
        Some(_) => Presence::Present,
        None => Presence::Missing,
    }
}

pub(super) fn inspect(state: &State, keys: &[EntryKey], now_ms: u64) -> Vec<Option<Inspected>> {
    let ahead = state.ahead(keys.iter().map(|key| key.task));
    let inspect = |key: &EntryKey| {
        let entry = state.get(key.task)?;
        Some(inspected(entry, ahead.get(&key.task).copied().unwrap_or(0), now_ms))
    };
    keys.iter().map(inspect).collect()
}

/// An entry as it stands.
pub(super) fn inspected(entry: &Entry, ahead: u64, now_ms: u64) -> Inspected {
    let (place, remaining) = match entry.spot {
        Spot::Ready { .. } => (Place::Ready, None),
        Spot::Delayed { due_ms } => (Place::Delayed, Some(until(due_ms, now_ms))),
        Spot::Leased { until_ms, .. } => (Place::Leased, Some(until(until_ms, now_ms))),
        Spot::Quarantined => (Place::Quarantined, None),
    };
    Inspected { key: entry.key, run: entry.run, place, deliveries: entry.deliveries, ahead, remaining }
}

pub(super) fn stats(state: &State) -> PartitionStats {
    PartitionStats {
        incarnation: state.incarnation,
        seq: state.seq,
        ready: state.ready_count(),
        delayed: state.delayed_count(),
        leased: state.leased_count(),
        quarantined: state.quarantined_count(),
        next_ready: state.next_ready(0),
        settings: state.settings,
    }
}

const fn until(at_ms: u64, now_ms: u64) -> Duration {
    Duration::from_millis(at_ms.saturating_sub(now_ms))
}
