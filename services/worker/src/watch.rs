//! Looks after running tasks: cancels, leases of which nobody knows, signs of life.

use std::{collections::HashMap, sync::Arc, time::Duration};

use oxcart_sdk::StopReason;
use oxcart_store::model::{Live, Progress, RunKey};
use oxcart_types::{Limits, TaskId, Timestamp};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{
    attempt::Attempt,
    config::LeaseUncertain,
    core::Core,
    moment::Moment,
    run::stop,
    session::{Notice, Settings},
};

/// Progress and checkpoints of a run are written at most this often.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// A lease is uncertain when no good answer came until this long before its end; SQL is then asked this often.
const UNCERTAIN: Duration = Duration::from_secs(5);

/// Looks after running tasks until the notices end.
pub(crate) async fn run(core: Arc<Core>, mut notices: mpsc::Receiver<Notice>) {
    let mut tick = interval(Duration::from_millis(250));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut cancels_read, mut leases_read) = (Instant::now(), Instant::now());
    loop {
        tokio::select! {
            notice = notices.recv() => match notice {
                Some(notice) => hear(&core, notice).await,
                None => return,
            },
            _ = tick.tick() => {
                let Settings { heartbeat_interval, lease_ttl, .. } = core.settings();
                if core.gate.is_store_down() && core.store.ping().await.is_ok() {
                    core.store_works();
                }
                let attempts = core.held.attempts();
                if attempts.is_empty() {
                    continue;
                }
                write_live(&core, &attempts, lease_ttl).await;
                if cancels_read.elapsed() >= heartbeat_interval {
                    cancels_read = Instant::now();
                    read_cancels(&core, &attempts, heartbeat_interval).await;
                }
                let margin = UNCERTAIN.min(lease_ttl / 6);
                if leases_read.elapsed() >= margin {
                    leases_read = Instant::now();
                    let uncertain = core.held.uncertain(margin, lease_ttl.saturating_sub(margin));
                    if !uncertain.is_empty() {
                        doubt(&core, &uncertain).await;
                    }
                }
            }
        }
    }
}

async fn hear(core: &Arc<Core>, notice: Notice) {
    match notice {
        Notice::Cancel { runs, reason, grace } => {
            // A notice that comes late must not stop a later run, which may be that of a replay. When it was meant, SQL says so.
            let attempt = |(task, run)| core.held.attempt_of(task).filter(|attempt| attempt.key.run <= run);
            for attempt in runs.into_iter().filter_map(attempt) {
                stop(core, &attempt, StopReason::Cancelled { reason: reason.clone() }, grace);
            }
        }
        Notice::Lost(tasks) => {
            let attempts: Vec<_> = tasks.into_iter().filter_map(|task| core.held.attempt_of(task)).collect();
            verify(core, &attempts).await;
        }
        Notice::Drain => core.request_drain(None),
    }
}

/// The dispatcher tells of cancels at once; this finds those of which it did not hear.
async fn read_cancels(core: &Arc<Core>, attempts: &[Arc<Attempt>], older_than: Duration) {
    let asked: HashMap<TaskId, &Arc<Attempt>> =
        attempts.iter().filter(|a| a.started.elapsed() >= older_than).map(|a| (a.key.task, a)).collect();
    let ids: Vec<TaskId> = asked.keys().copied().collect();
    for ids in ids.chunks(Limits::BATCH_ITEMS) {
        match core.store.cancels(ids).await {
            Ok(cancels) => {
                for (task, cancel) in cancels {
                    // The run that was asked about: one that began meanwhile may belong to a replay.
                    if let Some(attempt) = asked.get(&task) {
                        stop(core, attempt, StopReason::Cancelled { reason: cancel.reason }, cancel.grace);
                    }
                }
            }
            Err(error) => tracing::debug!(%error, "cancels could not be read; trying again with the next heartbeat"),
        }
    }
}

/// Nobody can say whether these leases hold.
async fn doubt(core: &Arc<Core>, attempts: &[Arc<Attempt>]) {
    match core.config.lease_uncertain {
        LeaseUncertain::Verify => verify(core, attempts).await,
        LeaseUncertain::Cancel => {
            for attempt in attempts {
                stop(core, attempt, StopReason::LeaseUncertain, core.config.abort_grace);
            }
        }
    }
}

/// SQL decides whether a run is still this worker's. While it cannot be asked, the run goes on.
async fn verify(core: &Arc<Core>, attempts: &[Arc<Attempt>]) {
    for attempts in attempts.chunks(Limits::BATCH_ITEMS) {
        let keys: Vec<RunKey> = attempts.iter().map(|attempt| attempt.key).collect();
        match core.store.still_mine(&keys).await {
            Ok(mine) => {
                for (attempt, _) in attempts.iter().zip(mine).filter(|(_, mine)| !mine) {
                    if !attempt.over.is_cancelled() {
                        tracing::info!(task_id = %attempt.key.task, run = attempt.key.run.get(), "another worker has the run; stopping it");
                    }
                    stop(core, attempt, StopReason::LeaseLost, core.config.abort_grace);
                }
            }
            Err(error) => tracing::debug!(%error, "leases could not be verified; the runs go on"),
        }
    }
}

/// Writes what was reported, and that long runs are alive: the age guard of takeovers reads it.
async fn write_live(core: &Core, attempts: &[Arc<Attempt>], lease_ttl: Duration) {
    let now = core.clock.now();
    let due = attempts.iter().filter(|attempt| !attempt.over.is_cancelled() && is_due(attempt, lease_ttl));
    let live: Vec<(Arc<Attempt>, Live)> = due.map(|attempt| (Arc::clone(attempt), take(attempt, now))).collect();
    for batch in live.chunks(Limits::BATCH_ITEMS) {
        let rows: Vec<Live> = batch.iter().map(|(_, live)| live.clone()).collect();
        if let Err(error) = core.store.set_live(&rows, now).await {
            tracing::debug!(%error, "signs of life could not be written; trying again");
            for (attempt, live) in batch {
                put_back(attempt, live);
            }
        }
    }
}

fn is_due(attempt: &Attempt, lease_ttl: Duration) -> bool {
    let reports = attempt.reports();
    let since = reports.written.unwrap_or(attempt.started).elapsed();
    let reported = reports.progress_is_new || reports.checkpoint.is_some();
    // The first report goes out at once.
    since >= lease_ttl / 3 || (reported && (reports.written.is_none() || since >= REPORT_EVERY))
}

/// What is to be written of a run; marks it as written.
fn take(attempt: &Attempt, now: Timestamp) -> Live {
    let mut reports = attempt.reports();
    reports.written = Some(Moment::now());
    let is_new = std::mem::take(&mut reports.progress_is_new);
    let progress =
        reports.progress.clone().filter(|_| is_new).map(|(current, total, message)| Progress { current, total, message, at: now });
    Live { task: attempt.key.task, run: attempt.key.run, progress, checkpoint: reports.checkpoint.take() }
}

/// What could not be written, unless there is something newer.
fn put_back(attempt: &Attempt, live: &Live) {
    let mut reports = attempt.reports();
    reports.progress_is_new |= live.progress.is_some();
    if reports.checkpoint.is_none() {
        reports.checkpoint.clone_from(&live.checkpoint);
    }
}

/// What a run reported and nobody has written; `None` when there is nothing.
pub(crate) fn unwritten(attempt: &Attempt, now: Timestamp) -> Option<Live> {
    let live = take(attempt, now);
    (live.progress.is_some() || live.checkpoint.is_some()).then_some(live)
}
