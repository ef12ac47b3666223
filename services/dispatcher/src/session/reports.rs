//! Reports about leases: the same for the stream and for the unary calls.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use oxcart_proto::{convert::scalar, pb::dispatcher::v1 as pb};
use oxcart_queue::{Complete, Enqueue, EnqueueStatus, EntryKey, Extend, ExtendCause, LeaseStatus, Outcome, Partition, Release};
use oxcart_types::{LeaseToken, TaskId, WorkerId};
use tokio::time::Instant;

use super::{registry::Session, state::Counted};
use crate::{
    core::Core,
    error::DispatcherError,
    grpc::decode::{self, Held, Settle, SettleKind},
    partition::Lane,
};

/// Extends the leases of a report. Of a session, those that are good count from now on, and those that are lost do not.
pub(crate) async fn extend(
    core: &Arc<Core>,
    session: Option<&Session>,
    cause: ExtendCause,
    report: pb::LeaseReport,
) -> Result<pb::LeaseReportResult, DispatcherError> {
    let sequence = report.sequence;
    let held = decode::held("leases", report.leases)?;
    let (statuses, expires_in) = extend_held(core, cause, &held).await;
    let counted_leases = session.map_or(0, |session| {
        recount(core, session, &held, &statuses);
        scalar::to_count(session.state().counted())
    });
    Ok(pb::LeaseReportResult {
        sequence,
        expires_in: Some(scalar::to_duration(expires_in)),
        exceptions: exceptions(&held, &statuses),
        counted_leases,
    })
}

/// Extends held leases, answers in order; `None` for those of partitions that could not be reached.
pub(crate) async fn extend_held(core: &Arc<Core>, cause: ExtendCause, held: &[Held]) -> (Vec<Option<LeaseStatus>>, Duration) {
    let ttl = core.config.lease_ttl;
    let groups = decode::by_partition(held.iter().map(|lease| {
        (Partition::first(lease.queue.clone()), Extend { ttl: lease.remaining.map_or(ttl, |left| left.min(ttl)), ..lease.extend })
    }));
    let calls = groups.into_iter().map(|group| async move {
        let statuses = match core.lane(&group.partition) {
            Ok(lane) => lane.extend(core, cause, group.items).await,
            Err(_) => None,
        };
        (group.positions, statuses)
    });
    let mut answers = vec![None; held.len()];
    for (positions, statuses) in join_all(calls).await {
        for (position, status) in positions.into_iter().zip(statuses.into_iter().flatten()) {
            answers[position] = Some(status);
        }
    }
    (answers, ttl)
}

fn recount(core: &Core, session: &Session, held: &[Held], statuses: &[Option<LeaseStatus>]) {
    let until = Instant::now() + core.config.lease_ttl;
    let mut freed = false;
    let mut state = session.state();
    for (lease, status) in held.iter().zip(statuses) {
        match status {
            Some(LeaseStatus::Ok | LeaseStatus::Adopted) | None => {
                let Extend { key, run, token, .. } = lease.extend;
                state.extend(token, Counted { key, run, queue: lease.queue.clone(), until });
            }
            Some(LeaseStatus::Lost | LeaseStatus::Unknown) => {
                state.uncount([&lease.extend.token]);
                freed = true;
            }
        }
    }
    if freed {
        for queue in state.queues() {
            core.wake_queue(queue);
        }
    }
}

/// Leases of a report that were not simply extended.
pub(crate) fn exceptions(held: &[Held], statuses: &[Option<LeaseStatus>]) -> Vec<pb::LeaseResult> {
    let pairs = held.iter().zip(statuses).filter(|(_, status)| **status != Some(LeaseStatus::Ok));
    pairs
        .map(|(lease, status)| pb::LeaseResult {
            task_id: lease.extend.key.task.to_string(),
            run: scalar::to_run(lease.extend.run),
            status: i32::from(to_status(*status)),
        })
        .collect()
}

const fn to_status(status: Option<LeaseStatus>) -> pb::LeaseStatus {
    match status {
        Some(LeaseStatus::Ok) => pb::LeaseStatus::Ok,
        Some(LeaseStatus::Adopted) => pb::LeaseStatus::Adopted,
        Some(LeaseStatus::Unknown) => pb::LeaseStatus::Unknown,
        Some(LeaseStatus::Lost) => pb::LeaseStatus::Lost,
        None => pb::LeaseStatus::TryAgain,
    }
}

/// Settles the leases of a report, whose ends are in SQL. What is settled frees the window and the queues are served at once.
pub(crate) async fn settle(
    core: &Arc<Core>,
    worker: WorkerId,
    report: pb::SettleReport,
) -> Result<pb::SettleResult, DispatcherError> {
    let sequence = report.sequence;
    let settles = decode::settles(report.settles)?;
    let named: Vec<(TaskId, oxcart_types::Run, LeaseToken)> =
        settles.iter().map(|settle| (settle.task, settle.run, settle.token)).collect();
    let groups = decode::by_partition(settles.into_iter().map(|settle| (Partition::first(settle.queue.clone()), settle)));
    let mut queues = Vec::with_capacity(groups.len());
    let calls = groups.into_iter().map(|group| {
        queues.push(group.partition.queue.clone());
        async move {
            let statuses = match core.lane(&group.partition) {
                Ok(lane) => settle_in(core, &lane, group.items).await,
                Err(_) => vec![None; group.positions.len()],
            };
            (group.positions, statuses)
        }
    });
    let calls: Vec<_> = calls.collect();
    let mut statuses = vec![None; named.len()];
    for (positions, answers) in join_all(calls).await {
        for (position, status) in positions.into_iter().zip(answers) {
            statuses[position] = status;
        }
    }
    let over: Vec<LeaseToken> =
        named.iter().zip(&statuses).filter(|(_, status)| status.is_some()).map(|((_, _, token), _)| *token).collect();
    core.sessions.uncount(worker, &over);
    for queue in core.sessions.queues_of(worker).iter().chain(&queues) {
        core.wake_queue(queue);
    }
    let exceptions =
        named.iter().zip(&statuses).filter(|(_, status)| **status != Some(LeaseStatus::Ok)).map(|((task, run, _), status)| {
            pb::LeaseResult { task_id: task.to_string(), run: scalar::to_run(*run), status: i32::from(to_status(*status)) }
        });
    Ok(pb::SettleResult { sequence, exceptions: exceptions.collect() })
}

/// The engine calls that a settle needs, with the position of each item in its group.
#[derive(Default)]
struct Plan {
    complete: (Vec<usize>, Vec<Complete>),
    enqueue: (Vec<usize>, Vec<Enqueue>),
    release: (Vec<usize>, Vec<Release>),
}

fn plan(settles: Vec<Settle>, counted: impl Fn(&LeaseToken) -> Option<EntryKey>) -> Plan {
    let mut plan = Plan::default();
    for (position, settle) in settles.into_iter().enumerate() {
        let Settle { task, token, kind, note, .. } = settle;
        let mut complete = |outcome, note: Bytes| {
            plan.complete.0.push(position);
            plan.complete.1.push(Complete { task, token, outcome, note });
        };
        match kind {
            SettleKind::Done => complete(Outcome::Done, note),
            SettleKind::Failed => complete(Outcome::Failed, note),
            SettleKind::Cancelled => complete(Outcome::Cancelled, note),
            SettleKind::Dropped => complete(Outcome::Dropped, note),
            SettleKind::Next { key, run, delay, cause } => {
                plan.enqueue.0.push(position);
                // What was granted is known better here than by the worker.
                let key = counted(&token).unwrap_or(key);
                plan.enqueue.1.push(Enqueue { key, run, delay, cause, note });
            }
            SettleKind::Released { delay, uncounted } => {
                plan.release.0.push(position);
                plan.release.1.push(Release { task, token, delay, uncounted });
            }
        }
    }
    plan
}

async fn settle_in(core: &Core, lane: &Lane, settles: Vec<Settle>) -> Vec<Option<LeaseStatus>> {
    let mut answers = vec![None; settles.len()];
    for settle in &settles {
        core.metrics.settled(settle.kind.name(), 1);
    }
    let plan = plan(settles, |token| core.sessions.key_of(token));
    let (completed, enqueued, released) =
        tokio::join!(lane.complete(core, plan.complete.1), lane.enqueue(core, plan.enqueue.1), lane.release(core, plan.release.1));
    let completed = plan.complete.0.into_iter().zip(completed.into_iter().flatten());
    let released = plan.release.0.into_iter().zip(released.into_iter().flatten());
    let enqueued = plan.enqueue.0.into_iter().zip(enqueued.into_iter().flatten().map(|status| match status {
        // The next run waits, which is all that this settle asked for; whether by this call or by one before is the same.
        EnqueueStatus::Created | EnqueueStatus::Exists | EnqueueStatus::Superseded => LeaseStatus::Ok,
        EnqueueStatus::Older => LeaseStatus::Lost,
        // Only first runs meet a full window, and a next run is none; the feeder would bring it in.
        EnqueueStatus::WindowFull => LeaseStatus::Unknown,
    }));
    for (position, status) in completed.chain(released).chain(enqueued) {
        answers[position] = Some(status);
    }
    answers
}
