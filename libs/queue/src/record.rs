//! The binary form of the journal: one record holds all that one call did.
//!
//! ```text
//! record = version:u8 = 1, at_ms:u64, group*
//! group  = shape:u8, count:u16, [worker:16 bytes], entry{count}
//! entry  = task:16 bytes, run:u32, deliveries:u8, [due_ms:u64], [note_bytes:u32, note]
//! shape  = code of the transition (low five bits) | HAS_DUE | HAS_NOTE | HAS_WORKER
//! ```
//!
//! Numbers are big-endian. Groups keep the order in which their first entries were made: a task that was taken back and given
//! out again by one call appears in that order. The Redis scripts write the same bytes.

use bytes::{Buf as _, BufMut as _, Bytes};
use oxcart_types::{Run, TaskId, WorkerId};

use crate::{
    engine::{EnqueueCause, JournalEntry, Outcome, QueueError, Transition},
    rules::to_time,
};

const VERSION: u8 = 1;
const CODE: u8 = 0x1f;
const HAS_DUE: u8 = 0x20;
const HAS_NOTE: u8 = 0x40;
const HAS_WORKER: u8 = 0x80;

/// Codes of the transitions, as stored: never change one.
const CODES: [(Transition, u8); 13] = [
    (Transition::Enqueued, 1),
    (Transition::Granted, 2),
    (Transition::Started, 3),
    (Transition::Done, 4),
    (Transition::Failed, 5),
    (Transition::Retried, 6),
    (Transition::Released, 7),
    (Transition::Cancelled, 8),
    (Transition::Dropped, 9),
    (Transition::Reaped, 10),
    (Transition::Quarantined, 11),
    (Transition::Adopted, 12),
    (Transition::Removed, 13),
];

/// The code of a transition.
pub(crate) const fn code(transition: Transition) -> u8 {
    match transition {
        Transition::Enqueued => 1,
        Transition::Granted => 2,
        Transition::Started => 3,
        Transition::Done => 4,
        Transition::Failed => 5,
        Transition::Retried => 6,
        Transition::Released => 7,
        Transition::Cancelled => 8,
        Transition::Dropped => 9,
        Transition::Reaped => 10,
        Transition::Quarantined => 11,
        Transition::Adopted => 12,
        Transition::Removed => 13,
    }
}

fn transition(code: u8) -> Option<Transition> {
    CODES.iter().find(|(_, c)| *c == code).map(|(transition, _)| *transition)
}

impl EnqueueCause {
    /// What the journal says of it.
    pub(crate) const fn transition(self) -> Transition {
        match self {
            Self::Submitted => Transition::Enqueued,
            Self::Retried => Transition::Retried,
            Self::Released => Transition::Released,
        }
    }
}

impl Outcome {
    /// What the journal says of it.
    pub(crate) const fn transition(self) -> Transition {
        match self {
            Self::Done => Transition::Done,
            Self::Failed => Transition::Failed,
            Self::Cancelled => Transition::Cancelled,
            Self::Dropped => Transition::Dropped,
        }
    }
}

/// One entry on its way into a record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fact<'a> {
    pub(crate) transition: Transition,
    pub(crate) task: TaskId,
    pub(crate) run: Run,
    pub(crate) deliveries: u8,
    pub(crate) worker: Option<WorkerId>,
    pub(crate) due_ms: Option<u64>,
    pub(crate) note: &'a [u8],
}

struct Group {
    shape: u8,
    count: u16,
    worker: Option<WorkerId>,
    body: Vec<u8>,
}

/// Collects what one call does.
pub(crate) struct RecordWriter {
    at_ms: u64,
    groups: Vec<Group>,
}

impl RecordWriter {
    pub(crate) const fn new(at_ms: u64) -> Self {
        Self { at_ms, groups: Vec::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Adds an entry.
    pub(crate) fn add(&mut self, fact: Fact<'_>) {
        let flag = |flag: u8, set: bool| if set { flag } else { 0 };
        let shape = code(fact.transition)
            | flag(HAS_DUE, fact.due_ms.is_some())
            | flag(HAS_NOTE, !fact.note.is_empty())
            | flag(HAS_WORKER, fact.worker.is_some());
        let same = |group: &Group| group.shape == shape && group.worker == fact.worker;
        let at = self.groups.iter().position(same).unwrap_or_else(|| {
            self.groups.push(Group { shape, count: 0, worker: fact.worker, body: Vec::new() });
            self.groups.len() - 1
        });
        let group = &mut self.groups[at];
        group.count += 1;
        group.body.put_slice(fact.task.as_bytes());
        group.body.put_u32(fact.run.get());
        group.body.put_u8(fact.deliveries);
        if let Some(due_ms) = fact.due_ms {
            group.body.put_u64(due_ms);
        }
        if !fact.note.is_empty() {
            group.body.put_u32(u32::try_from(fact.note.len()).unwrap_or(u32::MAX));
            group.body.put_slice(fact.note);
        }
    }

    /// The record.
    pub(crate) fn finish(self) -> Bytes {
        let mut record = Vec::with_capacity(9 + self.groups.iter().map(|group| group.body.len() + 19).sum::<usize>());
        record.put_u8(VERSION);
        record.put_u64(self.at_ms);
        for group in self.groups {
            record.put_u8(group.shape);
            record.put_u16(group.count);
            if let Some(worker) = group.worker {
                record.put_slice(worker.as_bytes());
            }
            record.put_slice(&group.body);
        }
        record.into()
    }
}

/// Reads a record.
///
/// # Errors
/// [`QueueError::Corrupt`]: no version of this program wrote it.
pub(crate) fn decode(record: Bytes) -> Result<Vec<JournalEntry>, QueueError> {
    decode_parts(record).map_err(|error| QueueError::Corrupt(format!("a journal record cannot be read: {error}")))
}

fn decode_parts(mut record: Bytes) -> Result<Vec<JournalEntry>, String> {
    let short = |error: bytes::TryGetError| error.to_string();
    let version = record.try_get_u8().map_err(short)?;
    if version != VERSION {
        return Err(format!("version {version} is unknown"));
    }
    let at = to_time(record.try_get_u64().map_err(short)?);
    let mut entries = Vec::new();
    while record.has_remaining() {
        let shape = record.try_get_u8().map_err(short)?;
        let transition = transition(shape & CODE).ok_or_else(|| format!("shape {shape} has no transition"))?;
        let count = record.try_get_u16().map_err(short)?;
        let worker = if shape & HAS_WORKER == 0 { None } else { Some(WorkerId::from_bytes(bytes16(&mut record)?)) };
        for _ in 0..count {
            let task = TaskId::from_bytes(bytes16(&mut record)?);
            let run = record.try_get_u32().map_err(short)?;
            let run = Run::new(run).ok_or_else(|| format!("task {task} has run 0"))?;
            let deliveries = record.try_get_u8().map_err(short)?;
            let due_at = if shape & HAS_DUE == 0 { None } else { Some(to_time(record.try_get_u64().map_err(short)?)) };
            let note = if shape & HAS_NOTE == 0 { Bytes::new() } else { take_note(&mut record)? };
            entries.push(JournalEntry { transition, at, task, run, deliveries, worker, due_at, note });
        }
    }
    Ok(entries)
}

fn bytes16(record: &mut Bytes) -> Result<[u8; 16], String> {
    let mut bytes = [0; 16];
    record.try_copy_to_slice(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

fn take_note(record: &mut Bytes) -> Result<Bytes, String> {
    let length = record.try_get_u32().map_err(|error| error.to_string())? as usize;
    if length > record.remaining() {
        return Err(format!("a note of {length} bytes in {} left", record.remaining()));
    }
    // A copy, so that a reader who keeps a note does not keep the whole record.
    Ok(Bytes::copy_from_slice(&record.split_to(length)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fact(transition: Transition, task: u8) -> Fact<'static> {
        Fact {
            transition,
            task: TaskId::from_bytes([task; 16]),
            run: Run::FIRST,
            deliveries: 2,
            worker: None,
            due_ms: None,
            note: b"",
        }
    }

    #[test]
    fn every_transition_has_the_code_it_is_read_by() {
        for (transition_, code_) in CODES {
            assert_eq!(code(transition_), code_);
            assert_eq!(transition(code_), Some(transition_));
        }
    }

    #[test]
    fn a_record_reads_back() {
        let mut writer = RecordWriter::new(1_700_000_000_123);
        let worker = Some(WorkerId::from_bytes([9; 16]));
        writer.add(Fact { due_ms: Some(5), ..fact(Transition::Reaped, 1) });
        writer.add(Fact { worker, ..fact(Transition::Granted, 2) });
        writer.add(Fact { worker, ..fact(Transition::Granted, 1) });
        writer.add(Fact { note: b"note", due_ms: Some(6), ..fact(Transition::Retried, 3) });
        let entries = decode(writer.finish()).unwrap();
        let told: Vec<_> = entries.iter().map(|e| (e.transition, e.task.as_bytes()[0], e.worker, e.due_at)).collect();
        assert_eq!(
            told,
            [
                (Transition::Reaped, 1, None, Some(to_time(5))),
                (Transition::Granted, 2, worker, None),
                (Transition::Granted, 1, worker, None),
                (Transition::Retried, 3, None, Some(to_time(6))),
            ]
        );
        assert_eq!(entries[3].note, "note");
        assert!(entries.iter().all(|e| e.at == to_time(1_700_000_000_123) && e.deliveries == 2));
    }

    proptest! {
        #[test]
        fn garbage_is_refused_and_never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), version: bool) {
            if version && !bytes.is_empty() {
                bytes[0] = VERSION;
            }
            let _ = decode(bytes.into());
        }

        #[test]
        fn a_cut_record_is_refused(cut in 10_usize..60) {
            let mut writer = RecordWriter::new(1);
            writer.add(Fact { note: b"twelve bytes", ..fact(Transition::Done, 1) });
            writer.add(fact(Transition::Done, 2));
            let record = writer.finish();
            // 9 + 3 + 21 + 4 + 12: the end of the first group is the end of a shorter record.
            prop_assume!(cut < record.len() && cut != 49);
            prop_assert!(matches!(decode(record.slice(..cut)), Err(QueueError::Corrupt(_))));
        }
    }
}
