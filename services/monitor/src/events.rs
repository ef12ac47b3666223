//! Entries of the dispatcher's journal as events for people and programs.

use oxcart_proto::pb::{
    common::v1::{Event, TaskState},
    dispatcher::v1::{JournalEntry, Transition},
};

/// The type of the events of a transition; `None` for one that is unknown here, which is not shown.
#[must_use]
pub(crate) const fn kind(transition: Transition) -> Option<&'static str> {
    Some(match transition {
        Transition::Unspecified => return None,
        Transition::Enqueued => "task.queued",
        Transition::Granted => "task.granted",
        Transition::Started => "task.started",
        Transition::Done => "task.succeeded",
        Transition::Failed => "task.failed",
        Transition::Retried => "task.retrying",
        Transition::Released => "task.released",
        Transition::Cancelled => "task.cancelled",
        Transition::Dropped => "task.dropped",
        Transition::Reaped => "task.reaped",
        Transition::Quarantined => "task.quarantined",
        Transition::Adopted => "task.adopted",
        Transition::Removed => "task.removed",
    })
}

const TRANSITIONS: [Transition; 13] = [
    Transition::Enqueued,
    Transition::Granted,
    Transition::Started,
    Transition::Done,
    Transition::Failed,
    Transition::Retried,
    Transition::Released,
    Transition::Cancelled,
    Transition::Dropped,
    Transition::Reaped,
    Transition::Quarantined,
    Transition::Adopted,
    Transition::Removed,
];

/// The type of that name, with or without `task.`; `None` when there is none.
#[must_use]
pub(crate) fn kind_named(name: &str) -> Option<&'static str> {
    TRANSITIONS.into_iter().filter_map(kind).find(|kind| *kind == name || kind.strip_prefix("task.") == Some(name))
}

/// The event of an entry; `None` for a transition that is unknown here.
#[must_use]
pub(crate) fn event(entry: JournalEntry) -> Option<Event> {
    let transition = entry.transition();
    let kind = kind(transition)?;
    let state = match entry.task_state() {
        TaskState::Unspecified => state_after(transition),
        told => told,
    };
    let time = entry.transition_time.unwrap_or_default();
    // Made of what the journal says, so that an event that is delivered again has the same id.
    let event_id = format!("{}-{}-{kind}-{}.{:09}", entry.task_id, entry.run, time.seconds, time.nanos);
    let actor = if entry.worker_id.is_empty() { "system".to_owned() } else { entry.worker_id.clone() };
    Some(Event {
        event_id,
        event_time: entry.transition_time,
        r#type: kind.to_owned(),
        subject_id: entry.task_id,
        queue: entry.queue,
        task_state: state.into(),
        run: entry.run,
        attempt: entry.attempt,
        worker_id: entry.worker_id,
        error: entry.error,
        actor,
        ..Default::default()
    })
}

/// The state after a transition that does not tell it; unspecified where the journal cannot know.
const fn state_after(transition: Transition) -> TaskState {
    match transition {
        Transition::Enqueued | Transition::Released | Transition::Reaped => TaskState::Queued,
        Transition::Started | Transition::Adopted => TaskState::Running,
        Transition::Done => TaskState::Succeeded,
        Transition::Failed => TaskState::Failed,
        Transition::Retried => TaskState::Retrying,
        Transition::Cancelled => TaskState::Cancelled,
        // What is granted is queued or a retry; dropped and removed say nothing of the task; quarantine is ended by the recorder.
        Transition::Unspecified | Transition::Granted | Transition::Dropped | Transition::Quarantined | Transition::Removed => {
            TaskState::Unspecified
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_transition_of_the_contract_has_a_type() {
        let mut number = 1;
        while let Ok(transition) = Transition::try_from(number) {
            assert!(TRANSITIONS.contains(&transition), "{transition:?}");
            let name = kind(transition).expect("a type");
            assert_eq!(kind_named(name), Some(name));
            assert_eq!(kind_named(&name["task.".len()..]), Some(name));
            number += 1;
        }
        assert_eq!(number, 14);
    }

    #[test]
    fn an_entry_delivered_again_has_the_same_id() {
        let entry = JournalEntry {
            transition: Transition::Done.into(),
            transition_time: Some(prost_types::Timestamp { seconds: 5, nanos: 7 }),
            task_id: "t".to_owned(),
            run: 2,
            queue: "mail".to_owned(),
            ..Default::default()
        };
        let event = event(entry.clone()).expect("an event");
        assert_eq!(Some(&event.event_id), super::event(entry).as_ref().map(|e| &e.event_id));
        assert_eq!((event.r#type.as_str(), event.task_state(), event.run), ("task.succeeded", TaskState::Succeeded, 2));
        assert!(super::event(JournalEntry::default()).is_none());
    }
}
