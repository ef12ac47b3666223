//! VerifyQueues.

use std::{pin::Pin, sync::Arc, time::Duration};

use oxcart_proto::{
    convert::scalar,
    pb::submission::v1::{self as pb, verify_service_server::VerifyService},
};
use oxcart_types::Violations;
use tokio::sync::{OwnedMutexGuard, mpsc};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

use crate::{
    core::Core,
    error::Error,
    verify::{self, Disagreement, FindingKind, Of, Repaired, Verified, Verify},
};

/// Time between the two looks, when the caller names none: more than anything in motion takes while all is well.
const DEFAULT_SETTLE: Duration = Duration::from_secs(5);
/// Longest time between the two looks.
const MAX_SETTLE: Duration = Duration::from_secs(300);
/// Answers that may wait for their reader.
const BUFFER: usize = 64;

/// The gRPC service.
pub(crate) struct VerifyApi(pub(crate) Arc<Core>);

type Answer = Result<pb::VerifyQueuesResponse, Status>;

#[tonic::async_trait]
impl VerifyService for VerifyApi {
    type VerifyQueuesStream = Pin<Box<dyn Stream<Item = Answer> + Send>>;

    async fn verify_queues(&self, request: Request<pb::VerifyQueuesRequest>) -> Result<Response<Self::VerifyQueuesStream>, Status> {
        let wanted = read(request.into_inner())?;
        let core = Arc::clone(&self.0);
        // Held until the walk is over: one over everything at a time is enough.
        let alone = Arc::clone(&core.verifying).try_lock_owned().map_err(|_| Error::Verifying)?;
        let (answers, receiver) = mpsc::channel(BUFFER);
        let tracker = core.tracker.clone();
        tracker.spawn(async move {
            // Nobody may be left to hear it.
            let _ = run(&core, wanted, alone, &answers).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

fn read(request: pb::VerifyQueuesRequest) -> Result<Verify, Error> {
    let mut bad = Violations::new();
    let settle =
        request.settle.map_or(Some(DEFAULT_SETTLE), |settle| bad.take("settle", scalar::duration_up_to(settle, MAX_SETTLE)));
    let settle = super::checked(bad, settle)?;
    Ok(Verify { repair: request.repair, settle, full: request.full })
}

async fn run(
    core: &Arc<Core>,
    wanted: Verify,
    alone: OwnedMutexGuard<()>,
    answers: &mpsc::Sender<Answer>,
) -> Result<(), mpsc::error::SendError<Answer>> {
    let given_up = async {
        tokio::select! {
            () = core.stopping.cancelled() => {}
            () = answers.closed() => {}
        }
    };
    let verified = verify::verify(core, wanted, given_up).await;
    // Before the answer: who has read it may ask again.
    drop(alone);
    match verified {
        Err(error) => answers.send(Err(Error::from(error).into())).await,
        Ok(None) => answers.send(Err(Error::ShuttingDown.into())).await,
        Ok(Some(verified)) => {
            let summary = summary(&verified);
            for disagreement in &verified.disagreements {
                answers.send(Ok(answer(pb::verify_queues_response::Message::Disagreement(to_pb(disagreement))))).await?;
            }
            answers.send(Ok(answer(pb::verify_queues_response::Message::Summary(summary)))).await
        }
    }
}

const fn answer(message: pb::verify_queues_response::Message) -> pb::VerifyQueuesResponse {
    pb::VerifyQueuesResponse { message: Some(message) }
}

fn summary(verified: &Verified) -> pb::VerifySummary {
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let repaired = verified.disagreements.iter().filter(|one| one.repaired == Some(Repaired::Yes)).count();
    pb::VerifySummary {
        entry_count: i64::try_from(verified.entries).unwrap_or(i64::MAX),
        open_task_count: i64::try_from(verified.open_tasks).unwrap_or(i64::MAX),
        disagreement_count: count(verified.disagreements.len()),
        repaired_count: count(repaired),
        settled_count: count(verified.settled),
        more: verified.more,
    }
}

fn to_pb(disagreement: &Disagreement) -> pb::Disagreement {
    let Disagreement { finding, repaired } = disagreement;
    let subject = &finding.subject;
    let (repair, repair_failed) = match repaired {
        None => (String::new(), false),
        Some(Repaired::Yes) => (finding.remedy.done().to_owned(), false),
        Some(Repaired::No) => (format!("{}; it is still there", finding.remedy.done()), true),
    };
    pb::Disagreement {
        kind: kind(subject.kind).into(),
        task_id: match subject.of {
            Of::Task(id) => id.to_string(),
            Of::Handoff(id) => id.to_string(),
        },
        run: subject.run.map(scalar::to_run).unwrap_or_default(),
        queue: subject.queue.clone(),
        message: finding.to_string(),
        repair,
        repair_failed,
    }
}

const fn kind(kind: FindingKind) -> pb::DisagreementKind {
    match kind {
        FindingKind::TaskMissing => pb::DisagreementKind::TaskMissing,
        FindingKind::RunWithoutLease => pb::DisagreementKind::RunWithoutLease,
        FindingKind::TaskQuarantined => pb::DisagreementKind::TaskQuarantined,
        FindingKind::EntryOfFinishedTask => pb::DisagreementKind::EntryOfFinishedTask,
        FindingKind::EntryOfUnknownTask => pb::DisagreementKind::EntryOfUnknownTask,
        FindingKind::EntryBehind => pb::DisagreementKind::EntryBehind,
        FindingKind::EntryMisplaced => pb::DisagreementKind::EntryMisplaced,
        FindingKind::LeaseOfEndedRun => pb::DisagreementKind::LeaseOfEndedRun,
        FindingKind::LeaseTooLong => pb::DisagreementKind::LeaseTooLong,
        FindingKind::LeaseWithoutRecord => pb::DisagreementKind::LeaseWithoutRecord,
        FindingKind::RecordWithoutLease => pb::DisagreementKind::RecordWithoutLease,
        FindingKind::EntryInTwoPlaces => pb::DisagreementKind::EntryInTwoPlaces,
        FindingKind::AgendaOfFinishedTask => pb::DisagreementKind::AgendaOfFinishedTask,
        FindingKind::HandoffOfFinishedTasks => pb::DisagreementKind::HandoffOfFinishedTasks,
    }
}
