//! The journal of one partition in memory, with the reading rules of a Redis stream.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::{
    engine::{JournalFrom, JournalId, JournalRead, QueueError},
    record,
};

/// Records of calls, oldest first; the oldest are dropped beyond the limit.
#[cfg_attr(feature = "simulation", derive(Clone))]
pub(super) struct Journal {
    limit: usize,
    records: VecDeque<(JournalId, Bytes)>,
    trimmed: bool,
    last: JournalId,
}

impl Journal {
    pub(super) const fn new(limit: usize) -> Self {
        Self { limit, records: VecDeque::new(), trimmed: false, last: JournalId { ms: 0, seq: 0 } }
    }

    /// Adds the record of a call. Positions grow even when the clock goes back.
    pub(super) fn push(&mut self, now_ms: u64, record: Bytes) {
        self.last = if now_ms > self.last.ms {
            JournalId { ms: now_ms, seq: 0 }
        } else {
            JournalId { ms: self.last.ms, seq: self.last.seq + 1 }
        };
        self.records.push_back((self.last, record));
        while self.records.len() > self.limit {
            self.records.pop_front();
            self.trimmed = true;
        }
    }

    /// Reads at most `max_calls` records.
    pub(super) fn read(&self, from: JournalFrom, max_calls: usize) -> Result<JournalRead, QueueError> {
        let (start, gap) = match from {
            JournalFrom::Newest => return Ok(JournalRead { entries: Vec::new(), last: self.last, gap: false, more: false }),
            JournalFrom::Oldest => (0, false),
            JournalFrom::After(position) if position == JournalId::default() => (0, self.trimmed),
            // A position from a journal that was lost: this one begins anew.
            JournalFrom::After(position) if position > self.last => (0, true),
            JournalFrom::After(position) => match self.records.binary_search_by_key(&position, |(id, _)| *id) {
                Ok(at) => (at + 1, false),
                Err(at) => (at, true),
            },
        };
        let mut read = JournalRead { entries: Vec::new(), last: self.resume_at(from), gap, more: false };
        let records = self.records.range(start..);
        read.more = records.len() >= max_calls;
        for (id, record) in records.take(max_calls) {
            read.entries.extend(record::decode(record.clone())?);
            read.last = *id;
        }
        Ok(read)
    }

    /// Where to go on when there was nothing to read.
    fn resume_at(&self, from: JournalFrom) -> JournalId {
        match from {
            JournalFrom::After(position) if position <= self.last => position,
            JournalFrom::After(_) | JournalFrom::Oldest | JournalFrom::Newest => JournalId::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use oxcart_types::{Run, TaskId};

    use super::*;
    use crate::engine::Transition;

    fn record(task: u8) -> Bytes {
        let mut writer = record::RecordWriter::new(1);
        writer.add(record::Fact {
            transition: Transition::Done,
            task: TaskId::from_bytes([task; 16]),
            run: Run::FIRST,
            deliveries: 1,
            worker: None,
            due_ms: None,
            note: b"",
        });
        writer.finish()
    }

    fn tasks(read: &JournalRead) -> Vec<u8> {
        read.entries.iter().map(|entry| entry.task.as_bytes()[0]).collect()
    }

    #[test]
    fn positions_grow_when_the_clock_goes_back() {
        let mut journal = Journal::new(10);
        for (task, now) in [(1, 100), (2, 100), (3, 50), (4, 101)] {
            journal.push(now, record(task));
        }
        let ids: Vec<_> = journal.records.iter().map(|(id, _)| (id.ms, id.seq)).collect();
        assert_eq!(ids, [(100, 0), (100, 1), (100, 2), (101, 0)]);
    }

    #[test]
    fn a_reader_is_told_what_it_missed() {
        let mut journal = Journal::new(3);
        let start = journal.read(JournalFrom::Newest, 10).unwrap().last;
        journal.push(1, record(1));
        let first = journal.read(JournalFrom::After(start), 10).unwrap();
        assert_eq!((tasks(&first), first.gap), (vec![1], false));
        for task in 2..=5 {
            journal.push(2, record(task));
        }
        let late = journal.read(JournalFrom::After(first.last), 2).unwrap();
        assert_eq!((tasks(&late), late.gap, late.more), (vec![3, 4], true, true));
        let next = journal.read(JournalFrom::After(late.last), 2).unwrap();
        assert_eq!((tasks(&next), next.gap, next.more), (vec![5], false, false));
        let idle = journal.read(JournalFrom::After(next.last), 2).unwrap();
        assert_eq!((tasks(&idle), idle.gap, idle.last), (vec![], false, next.last));
        let oldest = journal.read(JournalFrom::Oldest, 10).unwrap();
        assert_eq!((tasks(&oldest), oldest.gap), (vec![3, 4, 5], false));
    }

    #[test]
    fn a_position_of_a_lost_journal_starts_over() {
        let mut journal = Journal::new(3);
        let old = JournalFrom::After(JournalId { ms: 9, seq: 9 });
        let empty = journal.read(old, 10).unwrap();
        assert_eq!((empty.last, empty.gap), (JournalId::default(), true));
        journal.push(1, record(1));
        let read = journal.read(old, 10).unwrap();
        assert_eq!((tasks(&read), read.gap), (vec![1], true));
    }
}
