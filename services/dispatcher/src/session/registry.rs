//! The sessions of this replica, by worker.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use oxcart_proto::{
    convert::scalar,
    pb::{common::v1 as common, dispatcher::v1 as pb},
};
use oxcart_queue::{EntryKey, Granted};
use oxcart_types::{LeaseToken, QueueName, WorkerId};
use pb::open_session_response::Message;
use prometheus_client::metrics::gauge::Gauge;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::state::{Counted, PhaseEvent, Reserved, SessionState};
use crate::error::DispatcherError;

/// Workers that said goodbye are listed this long.
const LISTED_GONE: Duration = Duration::from_secs(120);
/// Workers that said goodbye and are listed at most.
const MAX_GONE: usize = 1000;

/// What goes out on a session.
pub(crate) type Frame = Result<pb::OpenSessionResponse, Status>;

/// A frame with a message.
pub(crate) const fn frame(message: Message) -> Frame {
    Ok(pb::OpenSessionResponse { message: Some(message) })
}

/// The session cannot take a message: it is over, or does not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the session takes no message")]
pub(crate) struct NotTaken;

/// How a worker looks and how busy it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Profile {
    pub(crate) info: common::WorkerInfo,
    pub(crate) load: Option<pb::WorkerLoad>,
}

/// One session.
pub(crate) struct Session {
    pub(crate) worker: WorkerId,
    /// Cancelled when a newer session of the worker took over.
    pub(crate) superseded: CancellationToken,
    state: Mutex<SessionState>,
    profile: Mutex<Profile>,
    sender: mpsc::Sender<Frame>,
}

impl Session {
    pub(crate) fn new(worker: WorkerId, state: SessionState, info: common::WorkerInfo, sender: mpsc::Sender<Frame>) -> Arc<Self> {
        let profile = Mutex::new(Profile { info, load: None });
        Arc::new(Self { worker, superseded: CancellationToken::new(), state: Mutex::new(state), profile, sender })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, SessionState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn profile(&self) -> MutexGuard<'_, Profile> {
        self.profile.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a reservation; returns the queues to be woken.
    pub(crate) fn settle_reservation(
        &self,
        queue: &QueueName,
        reserved: u32,
        granted: impl IntoIterator<Item = (LeaseToken, Counted)>,
    ) -> Vec<QueueName> {
        self.state().settle_reservation(queue, reserved, granted)
    }

    /// Stops counting leases.
    pub(crate) fn uncount<'a>(&self, tokens: impl IntoIterator<Item = &'a LeaseToken>) {
        self.state().uncount(tokens);
    }

    /// Hands a message over without waiting.
    pub(crate) fn push(&self, message: Message) -> Result<(), NotTaken> {
        self.sender.try_send(frame(message)).map_err(|_| NotTaken)
    }

    /// Hands over grants without waiting.
    pub(crate) fn send_grants(&self, queue: &QueueName, grants: &[Granted], claim_ttl: Duration) -> Result<(), NotTaken> {
        let grants = grants
            .iter()
            .map(|grant| pb::Grant {
                task_id: grant.key.task.to_string(),
                run: scalar::to_run(grant.run),
                lease_token: grant.token.as_bytes().to_vec(),
                deliveries: i32::from(grant.deliveries),
                priority: 9 - i32::from(grant.key.band.min(9)),
            })
            .collect();
        let batch = pb::GrantBatch { queue: queue.to_string(), grants, expires_in: Some(scalar::to_duration(claim_ttl)) };
        self.push(Message::Grants(batch))
    }

    /// Whether grants would be taken: half of the buffer is kept for answers.
    fn reads(&self) -> bool {
        self.sender.capacity() > self.sender.max_capacity() / 2
    }
}

/// The sessions of this replica. Streams are found by their worker; a poll lasts for one call and displaces nobody.
pub(crate) struct Sessions {
    max: usize,
    open: Mutex<Vec<Arc<Session>>>,
    gone: Mutex<VecDeque<Gone>>,
    gauge: Gauge,
}

/// A worker that said goodbye.
struct Gone {
    worker: WorkerId,
    info: common::WorkerInfo,
    at: Instant,
}

impl Sessions {
    pub(crate) fn new(max: usize, gauge: Gauge) -> Self {
        Self { max, open: Mutex::default(), gone: Mutex::default(), gauge }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Session>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a session. One of the same worker is superseded when `supersede` says so.
    pub(crate) fn add(&self, session: &Arc<Session>, supersede: bool) -> Result<(), DispatcherError> {
        let mut open = self.lock();
        if supersede {
            open.retain(|old| {
                let same = old.worker == session.worker;
                if same {
                    old.state().advance(PhaseEvent::Close);
                    old.superseded.cancel();
                }
                !same
            });
        }
        if open.len() >= self.max {
            return Err(DispatcherError::TooManySessions(self.max));
        }
        open.push(Arc::clone(session));
        // Whoever comes back is not gone.
        self.gone.lock().unwrap_or_else(PoisonError::into_inner).retain(|gone| gone.worker != session.worker);
        self.gauge.set(i64::try_from(open.len()).unwrap_or(i64::MAX));
        Ok(())
    }

    /// A worker said goodbye: it is listed as stopped for a while, so that whoever keeps the list hears of it.
    pub(crate) fn leave(&self, worker: WorkerId, mut info: common::WorkerInfo) {
        info.set_state(common::WorkerState::Stopped);
        info.used_slots = 0;
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        gone.push_back(Gone { worker, info, at: Instant::now() });
        while gone.len() > MAX_GONE || gone.front().is_some_and(|gone| gone.at.elapsed() > LISTED_GONE) {
            gone.pop_front();
        }
    }

    /// Workers that said goodbye a short while ago.
    pub(crate) fn gone(&self) -> Vec<(WorkerId, common::WorkerInfo)> {
        let gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        let listed = gone.iter().filter(|gone| gone.at.elapsed() <= LISTED_GONE);
        listed.map(|gone| (gone.worker, gone.info.clone())).collect()
    }

    /// Closes a session and takes it out.
    pub(crate) fn close(&self, session: &Arc<Session>) {
        session.state().advance(PhaseEvent::Close);
        let mut open = self.lock();
        open.retain(|other| !Arc::ptr_eq(other, session));
        self.gauge.set(i64::try_from(open.len()).unwrap_or(i64::MAX));
    }

    /// Reserves room for grants of a queue, `max` in each session at most.
    pub(crate) fn reserve(&self, queue: &QueueName, max: usize) -> Vec<(Arc<Session>, Reserved)> {
        let max = u32::try_from(max).unwrap_or(u32::MAX);
        let open = self.lock();
        let readers = open.iter().filter(|session| session.reads());
        readers.filter_map(|session| Some((Arc::clone(session), session.state().reserve(queue, max)?))).collect()
    }

    /// All sessions.
    pub(crate) fn all(&self) -> Vec<Arc<Session>> {
        self.lock().clone()
    }

    /// The session in which a lease counts.
    pub(crate) fn holder(&self, token: &LeaseToken) -> Option<Arc<Session>> {
        self.lock().iter().find(|session| session.state().lease(token).is_some()).cloned()
    }

    /// The key of a lease that counts here.
    pub(crate) fn key_of(&self, token: &LeaseToken) -> Option<EntryKey> {
        self.lock().iter().find_map(|session| session.state().lease(token).map(|lease| lease.key))
    }

    /// Stops counting settled leases of a worker, whichever way they were settled.
    pub(crate) fn uncount(&self, worker: WorkerId, tokens: &[LeaseToken]) {
        for session in self.lock().iter().filter(|session| session.worker == worker) {
            session.uncount(tokens);
        }
    }

    /// Queues that a worker takes from.
    pub(crate) fn queues_of(&self, worker: WorkerId) -> Vec<QueueName> {
        let open = self.lock();
        let mine = open.iter().filter(|session| session.worker == worker);
        mine.flat_map(|session| session.state().queues().cloned().collect::<Vec<_>>()).collect()
    }

    /// Sessions that take from a queue, and their free slots.
    pub(crate) fn of_queue(&self, queue: &QueueName) -> (usize, u32) {
        self.lock().iter().fold((0, 0), |(sessions, free), session| {
            let state = session.state();
            let takes = state.queues().any(|name| name == queue);
            (sessions + usize::from(takes), free + state.free(queue))
        })
    }

    /// Stops counting leases that the engine took back `grace` ago; returns the queues that have room by that.
    pub(crate) fn prune(&self, now: Instant, grace: Duration) -> (usize, Vec<QueueName>) {
        let (mut pruned, mut queues) = (0, Vec::new());
        for session in self.lock().iter() {
            let mut state = session.state();
            let gone = state.prune(now, grace);
            if gone > 0 {
                pruned += gone;
                queues.extend(state.queues().cloned());
            }
        }
        (pruned, queues)
    }
}
