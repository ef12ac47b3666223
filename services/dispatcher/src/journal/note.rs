//! What travels with a journal entry: the fields of the entry that the engine does not know, encoded.

use bytes::Bytes;
use oxcart_proto::pb::{common::v1 as common, dispatcher::v1 as pb};
use oxcart_types::Limits;
use prost::Message as _;

fn encode(entry: &pb::JournalEntry) -> Bytes {
    entry.encode_to_vec().into()
}

/// Of a success. A result that is not small stays behind: SQL has it.
pub(crate) fn done(attempt: i32, result: Option<common::Payload>) -> Bytes {
    let result = result.filter(|result| result.encoded_len() <= Limits::SMALL_RESULT_BYTES);
    encode(&pb::JournalEntry { attempt, task_state: i32::from(common::TaskState::Succeeded), result, ..Default::default() })
}

/// Of a failure. Detail stays behind, and the message is cut.
pub(crate) fn failed(attempt: i32, state: common::TaskState, error: Option<common::TaskError>) -> Bytes {
    let error = error.map(|mut error| {
        error.detail.clear();
        error.message.truncate(error.message.floor_char_boundary(Limits::SMALL_RESULT_BYTES));
        error.kind.truncate(error.kind.floor_char_boundary(Limits::ERROR_KIND_BYTES));
        error
    });
    encode(&pb::JournalEntry { attempt, task_state: i32::from(state), error, ..Default::default() })
}

/// Of an end that has neither.
pub(crate) fn ended(attempt: i32, state: common::TaskState) -> Bytes {
    encode(&pb::JournalEntry { attempt, task_state: i32::from(state), ..Default::default() })
}

/// Reads a note into an entry; one that cannot be read is none.
pub(crate) fn decode(note: &Bytes) -> pb::JournalEntry {
    pb::JournalEntry::decode(note.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(bytes: usize) -> Option<common::Payload> {
        let content = Some(common::payload::Content::Data(vec![1; bytes]));
        Some(common::Payload { content, ..Default::default() })
    }

    #[test]
    fn small_results_travel_and_large_ones_do_not() {
        assert_eq!(decode(&done(2, payload(100))).result, payload(100));
        let large = decode(&done(2, payload(Limits::SMALL_RESULT_BYTES + 1)));
        assert_eq!((large.result, large.attempt), (None, 2));
    }

    #[test]
    fn errors_travel_without_detail() {
        let error =
            common::TaskError { kind: "K".into(), detail: "stack".into(), message: "ä".repeat(5000), ..Default::default() };
        let read = decode(&failed(1, common::TaskState::Failed, Some(error))).error.expect("error");
        assert_eq!((read.detail.as_str(), read.message.len()), ("", Limits::SMALL_RESULT_BYTES));
    }
}
