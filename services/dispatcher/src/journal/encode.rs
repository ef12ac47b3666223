//! Journal entries onto the wire.

use oxcart_proto::{convert::scalar, pb::dispatcher::v1 as pb};
use oxcart_queue::{JournalEntry, Partition, Transition};

use super::note;

/// Writes an entry.
pub(crate) fn entry(partition: &Partition, entry: JournalEntry) -> pb::JournalEntry {
    let noted = note::decode(&entry.note);
    pb::JournalEntry {
        transition: i32::from(transition(entry.transition)),
        transition_time: Some(scalar::to_timestamp(entry.at)),
        task_id: entry.task.to_string(),
        run: scalar::to_run(entry.run),
        queue: partition.queue.to_string(),
        deliveries: i32::from(entry.deliveries),
        worker_id: entry.worker.map(|worker| worker.to_string()).unwrap_or_default(),
        next_run_at: entry.due_at.map(scalar::to_timestamp),
        ..noted
    }
}

const fn transition(transition: Transition) -> pb::Transition {
    match transition {
        Transition::Enqueued => pb::Transition::Enqueued,
        Transition::Granted => pb::Transition::Granted,
        Transition::Started => pb::Transition::Started,
        Transition::Done => pb::Transition::Done,
        Transition::Failed => pb::Transition::Failed,
        Transition::Retried => pb::Transition::Retried,
        Transition::Released => pb::Transition::Released,
        Transition::Cancelled => pb::Transition::Cancelled,
        Transition::Dropped => pb::Transition::Dropped,
        Transition::Reaped => pb::Transition::Reaped,
        Transition::Quarantined => pb::Transition::Quarantined,
        Transition::Adopted => pb::Transition::Adopted,
        Transition::Removed => pb::Transition::Removed,
    }
}
