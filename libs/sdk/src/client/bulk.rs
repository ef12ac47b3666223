//! Many tasks over one stream.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::stream;
use oxcart_proto::pb::{
    common::v1::TaskSpec,
    submission::v1::{StreamSubmitTasksRequest, StreamSubmitTasksResponse, submission_service_client::SubmissionServiceClient},
};
use oxcart_types::{IdSource, Limits};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Code, Status, transport::Channel};

use super::{ClientError, FieldViolation, RetryOptions, retry::with_retries};

/// Batches that may be unanswered at once.
const IN_FLIGHT: usize = 16;
/// Tasks of a batch at most.
const BATCH: usize = Limits::BATCH_ITEMS;
/// Bytes of a batch at most: below the limit of a message, which counts a few more.
const BATCH_BYTES: usize = Limits::MESSAGE_BYTES - 256 * 1024;

/// What became of a bulk submission.
#[derive(Debug, Default)]
pub struct BulkSummary {
    /// Tasks that are stored.
    pub accepted: u64,
    /// Of these, tasks that were known before.
    pub deduplicated: u64,
    /// Refused batches: how many tasks each had, and why. At most 100 are kept.
    pub refused: Vec<(usize, ClientError)>,
    /// Tasks of refused batches.
    pub refused_tasks: u64,
}

/// Refusals that a summary keeps.
const KEPT_REFUSALS: usize = 100;

/// Sends batches and reads their answers; over a new stream when one breaks, beginning with what is unanswered. A batch keeps
/// its request id, so that one whose answer was lost is accepted once.
pub(super) async fn submit(
    service: SubmissionServiceClient<Channel>,
    ids: Arc<dyn IdSource>,
    retry: RetryOptions,
    specs: Box<dyn Iterator<Item = TaskSpec> + Send>,
) -> Result<BulkSummary, ClientError> {
    let bulk = tokio::sync::Mutex::new(Bulk {
        batches: Batches { specs: specs.peekable(), ids, sequence: 0 },
        unanswered: BTreeMap::new(),
        summary: BulkSummary::default(),
    });
    with_retries(&retry, async || bulk.lock().await.run(service.clone()).await)
        .await
        .map_err(|status| ClientError::from_status(&status))?;
    Ok(bulk.into_inner().summary)
}

struct Bulk {
    batches: Batches,
    unanswered: BTreeMap<i64, StreamSubmitTasksRequest>,
    summary: BulkSummary,
}

impl Bulk {
    /// One stream, until everything is answered or it breaks.
    async fn run(&mut self, mut service: SubmissionServiceClient<Channel>) -> Result<(), Status> {
        let (send, receive) = mpsc::channel(IN_FLIGHT);
        let repeated = stream::iter(self.unanswered.values().cloned().collect::<Vec<_>>());
        let mut answers = service.stream_submit_tasks(repeated.chain(ReceiverStream::new(receive))).await?.into_inner();
        let mut send = Some(send);
        loop {
            while let Some(channel) = send.as_ref().filter(|_| self.unanswered.len() < IN_FLIGHT) {
                let Some(batch) = self.batches.next() else {
                    send = None;
                    break;
                };
                self.unanswered.insert(batch.sequence, batch.clone());
                // A closed stream is told by its answers.
                if channel.send(batch).await.is_err() {
                    send = None;
                }
            }
            if send.is_none() && self.unanswered.is_empty() {
                return Ok(());
            }
            match answers.message().await? {
                Some(answer) => self.note(answer)?,
                None => return Err(Status::unavailable("the stream ended before its answers")),
            }
        }
    }

    fn note(&mut self, answer: StreamSubmitTasksResponse) -> Result<(), Status> {
        let Some(batch) = self.unanswered.remove(&answer.sequence) else { return Ok(()) };
        let Some(error) = answer.error else {
            self.summary.accepted += answer.results.len() as u64;
            self.summary.deduplicated += answer.results.iter().filter(|r| r.deduplicated).count() as u64;
            return Ok(());
        };
        let code = Code::from(error.code);
        if code == Code::Unavailable {
            let status = Status::unavailable(error.message);
            self.unanswered.insert(batch.sequence, batch);
            return Err(status);
        }
        self.summary.refused_tasks += batch.tasks.len() as u64;
        if self.summary.refused.len() < KEPT_REFUSALS {
            let violations =
                error.violations.into_iter().map(|(field, description)| FieldViolation { field, description }).collect();
            let retry_after = error.retry_after.and_then(|d| d.try_into().ok());
            let refused = ClientError::Refused { code, reason: error.reason, message: error.message, violations, retry_after };
            self.summary.refused.push((batch.tasks.len(), refused));
        }
        Ok(())
    }
}

struct Batches {
    specs: std::iter::Peekable<Box<dyn Iterator<Item = TaskSpec> + Send>>,
    ids: Arc<dyn IdSource>,
    sequence: i64,
}

impl Iterator for Batches {
    type Item = StreamSubmitTasksRequest;

    fn next(&mut self) -> Option<StreamSubmitTasksRequest> {
        let mut tasks = Vec::new();
        let mut bytes = 0;
        while let Some(spec) = self.specs.next_if(|spec| {
            bytes += spec.encoded_len();
            tasks.is_empty() || (tasks.len() < BATCH && bytes <= BATCH_BYTES)
        }) {
            tasks.push(spec);
        }
        if tasks.is_empty() {
            return None;
        }
        self.sequence += 1;
        Some(StreamSubmitTasksRequest { sequence: self.sequence, tasks, request_id: self.ids.task_id().to_string() })
    }
}

#[cfg(test)]
mod tests {
    use oxcart_types::SystemIds;

    use super::*;

    fn batches(specs: Vec<TaskSpec>) -> Vec<usize> {
        let specs: Box<dyn Iterator<Item = TaskSpec> + Send> = Box::new(specs.into_iter());
        Batches { specs: specs.peekable(), ids: Arc::new(SystemIds), sequence: 0 }.map(|batch| batch.tasks.len()).collect()
    }

    #[test]
    fn batches_keep_to_both_limits() {
        assert_eq!(batches(Vec::new()), [0; 0]);
        assert_eq!(batches(vec![TaskSpec::default(); 2500]), [1000, 1000, 500]);
        let large = TaskSpec { task_name: "x".repeat(1024 * 1024), ..Default::default() };
        assert_eq!(batches(vec![large; 7]), [3, 3, 1]);
    }
}
