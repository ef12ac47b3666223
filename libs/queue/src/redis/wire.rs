//! Items as the scripts take them.

use bytes::BufMut as _;
use oxcart_types::{Run, TaskId};

use crate::{
    engine::{Claim, Complete, Enqueue, EntryKey, Extend, Release, Remove},
    record::code,
    rules::to_millis,
};

/// Bytes of a member.
pub(super) const MEMBER_BYTES: usize = 21;

/// The member that stands for an entry: task, band, fairness key.
pub(super) fn member(key: &EntryKey) -> [u8; MEMBER_BYTES] {
    let mut member = [0; MEMBER_BYTES];
    let mut rest = member.as_mut_slice();
    rest.put_slice(key.task.as_bytes());
    rest.put_u8(key.band);
    rest.put_u32(key.fairness);
    member
}

/// The key that a member stands for; `None` for other bytes.
pub(super) fn key_of(member: &[u8]) -> Option<EntryKey> {
    let (task, rest) = member.split_first_chunk()?;
    key_from(TaskId::from_bytes(*task), rest)
}

/// A key from its task and the five bytes that follow it in a member.
pub(super) fn key_from(task: TaskId, band_and_fairness: &[u8]) -> Option<EntryKey> {
    let (band, fairness) = band_and_fairness.split_first()?;
    Some(EntryKey { task, band: *band, fairness: u32::from_be_bytes(fairness.try_into().ok()?) })
}

/// Run and deliveries from the five bytes that scripts keep of them.
pub(super) fn run_and_deliveries(bytes: &[u8]) -> Option<(Run, u8)> {
    let (run, deliveries) = bytes.split_first_chunk()?;
    Some((Run::new(u32::from_be_bytes(*run))?, *deliveries.first()?))
}

/// A run as scripts keep it.
pub(super) fn run(run: Run) -> [u8; 4] {
    run.get().to_be_bytes()
}

pub(super) fn enqueue(item: &Enqueue, with_note: bool) -> Vec<u8> {
    let note: &[u8] = if with_note { &item.note } else { b"" };
    let mut spec = Vec::with_capacity(13 + note.len());
    spec.put_slice(&run(item.run));
    spec.put_u64(to_millis(item.delay));
    spec.put_u8(code(item.cause.transition()));
    spec.put_slice(note);
    spec
}

pub(super) fn claim(claim: &Claim) -> Vec<u8> {
    [claim.token.as_bytes().as_slice(), claim.worker.as_bytes()].concat()
}

pub(super) fn extend(item: &Extend) -> Vec<u8> {
    let mut spec = Vec::with_capacity(29);
    spec.put_slice(&run(item.run));
    spec.put_u8(item.deliveries);
    spec.put_slice(item.token.as_bytes());
    spec.put_u64(to_millis(item.ttl));
    spec
}

pub(super) fn complete(item: &Complete, with_note: bool) -> Vec<u8> {
    let note: &[u8] = if with_note { &item.note } else { b"" };
    let mut spec = Vec::with_capacity(17 + note.len());
    spec.put_slice(item.token.as_bytes());
    spec.put_u8(code(item.outcome.transition()));
    spec.put_slice(note);
    spec
}

pub(super) fn release(item: &Release) -> Vec<u8> {
    let mut spec = Vec::with_capacity(25);
    spec.put_slice(item.token.as_bytes());
    spec.put_u64(to_millis(item.delay));
    spec.put_u8(u8::from(item.uncounted));
    spec
}

pub(super) fn remove(item: &Remove) -> Vec<u8> {
    let mut spec = Vec::with_capacity(5);
    spec.put_slice(&run(item.up_to));
    spec.put_u8(u8::from(item.take_lease));
    spec
}
