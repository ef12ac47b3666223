//! StreamSubmitTasks: batches in, answers out in the same order.

use std::{collections::HashMap, sync::Arc};

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesOrdered};
use oxcart_proto::{convert::scalar, pb::submission::v1 as pb};
use oxcart_service::{status, telemetry::propagation::TraceContext};
use oxcart_types::{Violations, violation::reason};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tonic_types::StatusExt as _;

use super::{Answers, submit};
use crate::{core::Core, error::Error};

/// Batches that may be unanswered.
const UNANSWERED: usize = 64;

type Answer = Result<pb::StreamSubmitTasksResponse, Status>;

pub(super) fn serve(core: Arc<Core>, batches: Streaming<pb::StreamSubmitTasksRequest>, trace: Option<TraceContext>) -> Answers {
    let (answers, receiver) = mpsc::channel(UNANSWERED);
    let tracker = core.tracker.clone();
    tracker.spawn(run(core, batches, trace, answers));
    Box::pin(ReceiverStream::new(receiver))
}

async fn run(
    core: Arc<Core>,
    mut batches: Streaming<pb::StreamSubmitTasksRequest>,
    trace: Option<TraceContext>,
    answers: mpsc::Sender<Answer>,
) {
    let mut pending: FuturesOrdered<BoxFuture<'static, pb::StreamSubmitTasksResponse>> = FuturesOrdered::new();
    let mut last = None;
    // What ended the reading; `None` while it goes on, `Some(Ok)` when the caller said that there is no more.
    let mut ended: Option<Result<(), Status>> = None;
    loop {
        if let (Some(end), true) = (&ended, pending.is_empty()) {
            if let Err(end) = end {
                // Nobody may be left to hear it.
                let _ = answers.send(Err(end.clone())).await;
            }
            return;
        }
        tokio::select! {
            Some(answer) = pending.next(), if !pending.is_empty() => {
                if answers.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
            message = batches.message(), if ended.is_none() && pending.len() < UNANSWERED => match message {
                Ok(Some(batch)) => match in_sequence(&mut last, batch.sequence) {
                    Ok(()) => pending.push_back(answer(Arc::clone(&core), batch, trace.clone()).boxed()),
                    Err(refused) => ended = Some(Err(refused)),
                },
                Ok(None) => ended = Some(Ok(())),
                Err(error) => ended = Some(Err(status::explained(error))),
            },
            () = core.stopping.cancelled(), if ended.is_none() => ended = Some(Err(Error::ShuttingDown.into())),
        }
    }
}

fn in_sequence(last: &mut Option<i64>, sequence: i64) -> Result<(), Status> {
    if let Some(last) = *last
        && sequence <= last
    {
        let mut bad = Violations::new();
        bad.add("sequence", reason::FIELD_INVALID, format!("is {sequence} after {last}; it must grow"));
        return Err(status::invalid_argument(&bad));
    }
    *last = Some(sequence);
    Ok(())
}

async fn answer(
    core: Arc<Core>,
    batch: pb::StreamSubmitTasksRequest,
    trace: Option<TraceContext>,
) -> pb::StreamSubmitTasksResponse {
    let sequence = batch.sequence;
    let submitted = match core.admit_batch(batch.tasks, &batch.request_id) {
        Ok(unit) => submit::submit(&core, unit, trace.as_ref()).await,
        Err(bad) => Err(Error::Invalid(bad)),
    };
    match submitted {
        Ok(results) => pb::StreamSubmitTasksResponse { sequence, results, error: None },
        Err(error) => pb::StreamSubmitTasksResponse { sequence, results: Vec::new(), error: Some(batch_error(&error.into())) },
    }
}

fn batch_error(status: &Status) -> pb::BatchError {
    let mut violations = HashMap::<String, String>::new();
    // A field may have several.
    for violation in status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default() {
        let told = violations.entry(violation.field).or_default();
        if !told.is_empty() {
            told.push_str("; ");
        }
        told.push_str(&violation.description);
    }
    pb::BatchError {
        code: status.code().into(),
        message: status.message().to_owned(),
        reason: oxcart_service::status::reason_of(status).unwrap_or_default(),
        violations,
        retry_after: oxcart_service::status::retry_after(status).map(scalar::to_duration),
    }
}
