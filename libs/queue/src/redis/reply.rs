//! Replies of the scripts, read back.

use std::time::Duration;

use bytes::Bytes;
use oxcart_types::{LeaseToken, Run, TaskId};

use super::wire::{MEMBER_BYTES, key_from, key_of, run_and_deliveries};
use crate::{
    engine::{
        Claim, Damage, Damaged, EnqueueStatus, EntryKey, Granted, Inspected, JournalFrom, JournalId, JournalRead, LeaseStatus,
        PartitionStats, Place, Presence, QueueError, RemoveStatus, Settings,
    },
    record,
};

fn corrupt(what: &str) -> QueueError {
    QueueError::Corrupt(format!("a script answered with {what}"))
}

/// One status per item.
fn statuses<T>(codes: &[u8], count: usize, status: impl Fn(u8) -> Option<T>) -> Result<Vec<T>, QueueError> {
    if codes.len() != count {
        return Err(corrupt("another number of statuses than items"));
    }
    codes.iter().map(|code| status(*code).ok_or_else(|| corrupt("an unknown status"))).collect()
}

pub(super) fn enqueued(codes: &[u8], count: usize) -> Result<Vec<EnqueueStatus>, QueueError> {
    statuses(codes, count, |code| match code {
        0 => Some(EnqueueStatus::Exists),
        1 => Some(EnqueueStatus::Created),
        2 => Some(EnqueueStatus::Older),
        3 => Some(EnqueueStatus::Superseded),
        4 => Some(EnqueueStatus::WindowFull),
        _ => None,
    })
}

pub(super) fn leases(codes: &[u8], count: usize) -> Result<Vec<LeaseStatus>, QueueError> {
    statuses(codes, count, |code| match code {
        0 => Some(LeaseStatus::Unknown),
        1 => Some(LeaseStatus::Ok),
        2 => Some(LeaseStatus::Adopted),
        3 => Some(LeaseStatus::Lost),
        _ => None,
    })
}

pub(super) fn presences(codes: &[u8], count: usize) -> Result<Vec<Presence>, QueueError> {
    statuses(codes, count, |code| match code {
        0 => Some(Presence::Missing),
        1 => Some(Presence::Present),
        2 => Some(Presence::Quarantined),
        _ => None,
    })
}

pub(super) fn removed(codes: &[u8], tokens: &[u8], count: usize) -> Result<Vec<RemoveStatus>, QueueError> {
    if codes.len() != count {
        return Err(corrupt("another number of statuses than items"));
    }
    let mut tokens = tokens.chunks_exact(16).map(LeaseToken::try_from);
    let mut status = |code: &u8| match code {
        0 => Ok(RemoveStatus::Unknown),
        1 => Ok(RemoveStatus::Removed),
        2 => match tokens.next() {
            Some(Ok(token)) => Ok(RemoveStatus::Leased(token)),
            Some(Err(_)) | None => Err(corrupt("a lease without a token")),
        },
        3 => Ok(RemoveStatus::Newer),
        _ => Err(corrupt("an unknown status")),
    };
    codes.iter().map(&mut status).collect()
}

pub(super) fn granted(grants: &[u8], claims: &[Claim]) -> Result<Vec<Granted>, QueueError> {
    let grant_bytes = MEMBER_BYTES + 5;
    if !grants.len().is_multiple_of(grant_bytes) || grants.len() / grant_bytes > claims.len() {
        return Err(corrupt("grants that do not match the claims"));
    }
    let grant = |(grant, claim): (&[u8], &Claim)| {
        let (member, rest) = grant.split_at(MEMBER_BYTES);
        let (run, deliveries) = run_and_deliveries(rest)?;
        Some(Granted { key: key_of(member)?, run, deliveries, token: claim.token })
    };
    let grants = grants.chunks_exact(grant_bytes).zip(claims).map(grant);
    grants.map(|grant| grant.ok_or_else(|| corrupt("a malformed grant"))).collect()
}

/// Milliseconds, or a negative number for none.
pub(super) fn duration(ms: i64) -> Option<Duration> {
    u64::try_from(ms).ok().map(Duration::from_millis)
}

/// One entry as `inspect.lua` tells it.
pub(super) type InspectedParts = Option<(u8, Bytes, Bytes, u64, i64)>;

pub(super) fn inspected(task: TaskId, parts: InspectedParts) -> Result<Option<Inspected>, QueueError> {
    let Some((place, key, run, ahead, remaining_ms)) = parts else { return Ok(None) };
    let place = match place {
        1 => Place::Ready,
        2 => Place::Delayed,
        3 => Place::Leased,
        4 => Place::Quarantined,
        _ => return Err(corrupt("an unknown place")),
    };
    let key: EntryKey = key_from(task, &key).ok_or_else(|| corrupt("a malformed key"))?;
    let (run, deliveries) = run_and_deliveries(&run).ok_or_else(|| corrupt("a malformed run"))?;
    Ok(Some(Inspected { key, run, place, deliveries, ahead, remaining: duration(remaining_ms) }))
}

/// One entry as `list.lua` tells it.
pub(super) type ListedParts = (Bytes, Bytes, i64);

pub(super) fn listed(place: Place, (member, run, remaining_ms): ListedParts) -> Result<Inspected, QueueError> {
    let key = key_of(&member).ok_or_else(|| corrupt("a malformed member"))?;
    let (run, deliveries) = run_and_deliveries(&run).ok_or_else(|| corrupt("a malformed run"))?;
    Ok(Inspected { key, run, place, deliveries, ahead: 0, remaining: duration(remaining_ms) })
}

/// One damaged entry as `check.lua` tells it.
pub(super) type DamagedParts = (u8, Bytes, Bytes, Bytes);

pub(super) fn damaged((damage, task, member, run): &DamagedParts) -> Result<Damaged, QueueError> {
    let damage = match damage {
        1 => Damage::LeaseWithoutRecord,
        2 => Damage::RecordWithoutLease,
        3 => Damage::TwoPlaces,
        _ => return Err(corrupt("an unknown damage")),
    };
    let task = task.as_ref().try_into().map(TaskId::from_bytes).map_err(|_| corrupt("a malformed task"))?;
    let run = run.as_ref().try_into().ok().map(u32::from_be_bytes).and_then(Run::new);
    Ok(Damaged { task, known: key_of(member).zip(run), damage })
}

/// Settings as scripts tell them.
pub(super) const fn settings(revision: u64, paused: u8) -> Settings {
    Settings { revision, paused: paused != 0 }
}

/// Numbers as `stats.lua` tells them.
pub(super) type StatsParts = (u64, u64, u64, u64, u64, Bytes, u64, u8);

pub(super) fn stats(incarnation: u64, parts: &StatsParts) -> Result<PartitionStats, QueueError> {
    let (seq, ready, delayed, leased, quarantined, next, revision, paused) = parts;
    let next_ready = match key_of(next) {
        Some(key) => Some(key.task),
        None if next.is_empty() => None,
        None => return Err(corrupt("a malformed member")),
    };
    Ok(PartitionStats {
        incarnation,
        seq: *seq,
        ready: *ready,
        delayed: *delayed,
        leased: *leased,
        quarantined: *quarantined,
        next_ready,
        settings: settings(*revision, *paused),
    })
}

/// An incarnation, 16 hexadecimal digits.
pub(super) fn incarnation(text: &str) -> Result<u64, QueueError> {
    u64::from_str_radix(text, 16).map_err(|_| corrupt("a malformed incarnation"))
}

/// A position of a stream.
pub(super) fn position(text: &str) -> Result<JournalId, QueueError> {
    let parse = |text: &str| {
        let (ms, seq) = text.split_once('-')?;
        Some(JournalId { ms: ms.parse().ok()?, seq: seq.parse().ok()? })
    };
    parse(text).ok_or_else(|| corrupt("a malformed position"))
}

pub(super) fn journal(
    from: JournalFrom,
    gap: bool,
    newest: JournalId,
    records: Vec<(String, Bytes)>,
    more: bool,
) -> Result<JournalRead, QueueError> {
    let (last, gap) = match from {
        JournalFrom::Newest => (newest, false),
        JournalFrom::Oldest => (JournalId::default(), false),
        // A position beyond the newest is of a journal that was lost: begin anew.
        JournalFrom::After(after) => (if after <= newest { after } else { JournalId::default() }, gap),
    };
    let mut read = JournalRead { entries: Vec::new(), last, gap, more };
    for (id, record) in records {
        read.entries.extend(record::decode(record)?);
        read.last = position(&id)?;
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use oxcart_types::WorkerId;

    use super::*;

    #[test]
    fn replies_of_another_shape_are_refused() {
        let refused = |result: Result<(), QueueError>| assert!(matches!(result, Err(QueueError::Corrupt(_))));
        refused(enqueued(&[1, 9], 2).map(drop));
        refused(enqueued(&[1], 2).map(drop));
        refused(leases(&[4], 1).map(drop));
        refused(removed(&[2], &[0; 15], 1).map(drop));
        let claim = Claim { token: LeaseToken::from_bytes([1; 16]), worker: WorkerId::from_bytes([2; 16]) };
        refused(granted(&[0; 25], &[claim]).map(drop));
        refused(granted(&[0; 26], &[]).map(drop));
        // A grant of run 0.
        refused(granted(&[0; 26], &[claim]).map(drop));
        refused(position("12").map(drop));
        refused(incarnation("xyz").map(drop));
    }
}
