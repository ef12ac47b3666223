//! A run at work.

use std::{
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use oxcart_sdk::{Reporter, StopSignal};
use oxcart_service::telemetry::propagation::TraceContext;
use oxcart_store::model::RunKey;
use oxcart_types::{Payload, RetryPolicy, TaskName, Timestamp};
use tokio::{task::AbortHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{grant::Grant, moment::Moment};

/// A run at work: shared by its handler, by those who may stop it, and by those who keep its lease.
#[derive(Debug)]
pub(crate) struct Attempt {
    /// Task, run and token.
    pub(crate) key: RunKey,
    /// What the dispatcher gave.
    pub(crate) grant: Grant,
    /// Handler.
    pub(crate) name: TaskName,
    /// Counted starts, this one included.
    pub(crate) number: u32,
    /// Runs of the budget in force that were given back before.
    pub(crate) releases: u32,
    /// The task's policy.
    pub(crate) retry: RetryPolicy,
    /// When the task must have ended.
    pub(crate) deadline_at: Option<Timestamp>,
    /// Limit of this attempt.
    pub(crate) timeout: Option<Duration>,
    /// Longest silence of its handler.
    pub(crate) heartbeat_timeout: Option<Duration>,
    /// When it started, for people.
    pub(crate) started_at: Timestamp,
    /// When it started, for measuring.
    pub(crate) started: Moment,
    /// Asks the handler to stop.
    pub(crate) stop: StopSignal,
    /// Cancelled when the handler is done or given up.
    pub(crate) over: CancellationToken,
    concluded: AtomicBool,
    abort: OnceLock<AbortHandle>,
    trace: OnceLock<TraceContext>,
    reports: Mutex<Reports>,
}

/// What the handler reported, and what of it has not been written.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    /// Newest progress: done, in all, text, when.
    pub(crate) progress: Option<(i64, i64, String)>,
    /// Newest checkpoint that has not been written.
    pub(crate) checkpoint: Option<Payload>,
    /// `progress` has not been written.
    pub(crate) progress_is_new: bool,
    /// When the run was last written as alive.
    pub(crate) written: Option<Moment>,
    /// When the handler last reported anything; `None` before the first time.
    heard: Option<Instant>,
}

/// What is known of a run when it starts.
pub(crate) struct NewAttempt {
    pub(crate) key: RunKey,
    pub(crate) grant: Grant,
    pub(crate) name: TaskName,
    pub(crate) number: u32,
    pub(crate) releases: u32,
    pub(crate) retry: RetryPolicy,
    pub(crate) deadline_at: Option<Timestamp>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) heartbeat_timeout: Option<Duration>,
    pub(crate) started_at: Timestamp,
}

impl Attempt {
    pub(crate) fn new(new: NewAttempt) -> Self {
        Self {
            key: new.key,
            grant: new.grant,
            name: new.name,
            number: new.number,
            releases: new.releases,
            retry: new.retry,
            deadline_at: new.deadline_at,
            timeout: new.timeout,
            heartbeat_timeout: new.heartbeat_timeout,
            started_at: new.started_at,
            started: Moment::now(),
            stop: StopSignal::new(),
            over: CancellationToken::new(),
            concluded: AtomicBool::new(false),
            abort: OnceLock::new(),
            trace: OnceLock::new(),
            reports: Mutex::default(),
        }
    }

    /// True for the one caller that may conclude the run.
    pub(crate) fn claim_conclusion(&self) -> bool {
        let first = !self.concluded.swap(true, Ordering::AcqRel);
        self.over.cancel();
        first
    }

    /// Keeps the handle that aborts the handler.
    pub(crate) fn set_abort(&self, handle: AbortHandle) {
        // Set once, right after the handler was spawned.
        let _ = self.abort.set(handle);
    }

    /// Keeps the place in a trace that the end of the run follows: its span, or that of the submission when no handler is
    /// entered.
    pub(crate) fn set_trace(&self, trace: TraceContext) {
        // Set once, before the run can end.
        let _ = self.trace.set(trace);
    }

    /// See [`Self::set_trace`].
    pub(crate) fn trace(&self) -> Option<&TraceContext> {
        self.trace.get()
    }

    /// Aborts the handler at its next `.await`.
    pub(crate) fn abort(&self) {
        if let Some(handle) = self.abort.get() {
            handle.abort();
        }
    }

    /// What is left of timeout plus grace: the lease must not live longer.
    pub(crate) fn remaining(&self, grace: Duration) -> Option<Duration> {
        self.timeout.map(|timeout| (timeout + grace).saturating_sub(self.started.elapsed()))
    }

    /// Comes back once the handler, which is entered now, has said nothing for `limit`.
    pub(crate) async fn silent_for(&self, limit: Duration) {
        let entered = Instant::now();
        loop {
            let due = self.reports().heard.unwrap_or(entered) + limit;
            if due <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(due).await;
        }
    }

    /// What was reported.
    pub(crate) fn reports(&self) -> MutexGuard<'_, Reports> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reporter for Attempt {
    fn progress(&self, current: i64, total: i64, message: String) {
        let mut reports = self.reports();
        reports.progress = Some((current, total, message));
        reports.progress_is_new = true;
        reports.heard = Some(Instant::now());
    }

    fn heartbeat(&self) {
        self.reports().heard = Some(Instant::now());
    }

    fn checkpoint(&self, checkpoint: Payload) {
        let mut reports = self.reports();
        reports.checkpoint = Some(checkpoint);
        reports.heard = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use oxcart_types::{Clock as _, LeaseToken, Priority, QueueName, Run, SystemClock, TaskId};

    use super::*;

    fn attempt() -> Attempt {
        let (task, run, token) = (TaskId::from_bytes([1; 16]), Run::FIRST, LeaseToken::from_bytes([2; 16]));
        let grant = Grant {
            task,
            run,
            token,
            queue: QueueName::default_queue(),
            priority: Priority::default(),
            deliveries: 1,
            fairness_key: String::new(),
            fresh_until: Moment::now(),
        };
        Attempt::new(NewAttempt {
            key: RunKey { task, run, token },
            grant,
            name: "beats".parse().expect("a name"),
            number: 1,
            releases: 0,
            retry: RetryPolicy::default(),
            deadline_at: None,
            timeout: None,
            heartbeat_timeout: None,
            started_at: SystemClock.now(),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn whatever_a_handler_reports_is_a_sign_of_life() {
        let (attempt, limit, begun) = (Arc::new(attempt()), Duration::from_secs(10), Instant::now());
        let silent = tokio::spawn({
            let attempt = Arc::clone(&attempt);
            async move { attempt.silent_for(limit).await }
        });
        let reports: [fn(&Attempt); 3] =
            [|a| a.heartbeat(), |a| a.progress(1, 2, String::new()), |a| a.checkpoint(Payload::null())];
        for report in reports {
            tokio::time::sleep(Duration::from_secs(9)).await;
            assert!(!silent.is_finished());
            report(&attempt);
        }
        silent.await.expect("no panic");
        assert_eq!(begun.elapsed(), Duration::from_secs(37));
    }
}
