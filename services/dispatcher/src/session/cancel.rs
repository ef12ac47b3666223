//! Cancels on their way to whoever holds the lease.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use oxcart_proto::{
    convert::scalar,
    pb::{common::v1 as common, dispatcher::v1 as pb},
};
use oxcart_types::{LeaseToken, Run, TaskId};
use pb::open_session_response::Message;
use tokio::time::Instant;

use crate::core::Core;

/// Cancels that are kept at most; SQL tells the worker about the others.
const KEPT: usize = 10_000;

/// What a holder is told.
pub(crate) struct Cancel {
    /// Its task.
    pub(crate) task: TaskId,
    /// Run that was to be removed.
    pub(crate) run: Run,
    /// Proof of the lease.
    pub(crate) token: LeaseToken,
    /// Why.
    pub(crate) reason: String,
    /// Time that the handler gets.
    pub(crate) grace: Option<prost_types::Duration>,
}

impl Cancel {
    fn into_notice(self) -> pb::CancelNotice {
        let (task_id, run) = (self.task.to_string(), scalar::to_run(self.run));
        let lease = common::LeaseKey { task_id, run, lease_token: Vec::new() };
        pb::CancelNotice { leases: vec![lease], reason: self.reason, grace_period: self.grace }
    }
}

/// Cancels of leases that no session of this replica named: their holders are between two polls, or between two streams. Kept
/// for as long as a lease lives without its holder. A holder that goes to another replica is told by SQL, which it asks once per
/// heartbeat.
pub(crate) struct Unheard {
    kept_for: Duration,
    notices: Mutex<HashMap<LeaseToken, Kept>>,
}

struct Kept {
    notice: pb::CancelNotice,
    until: Instant,
}

impl Unheard {
    pub(crate) fn new(kept_for: Duration) -> Self {
        Self { kept_for, notices: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<LeaseToken, Kept>> {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, token: LeaseToken, notice: pb::CancelNotice, now: Instant) {
        let mut notices = self.lock();
        if notices.len() >= KEPT {
            notices.retain(|_, kept| kept.until > now);
        }
        if notices.len() < KEPT {
            notices.insert(token, Kept { notice, until: now + self.kept_for });
        }
    }

    /// Takes out what these leases have not heard.
    pub(crate) fn take(&self, tokens: &[LeaseToken]) -> Vec<pb::CancelNotice> {
        let mut notices = self.lock();
        if notices.is_empty() {
            return Vec::new();
        }
        tokens.iter().filter_map(|token| notices.remove(token)).map(|kept| kept.notice).collect()
    }
}

/// Tells the holder of a lease that its task is to be cancelled: at once when a session of this replica names the lease, else
/// with its next poll, heartbeat or stream here.
pub(crate) fn cancel(core: &Core, cancel: Cancel) {
    let (token, notice) = (cancel.token, cancel.into_notice());
    let told = |notice: &pb::CancelNotice| {
        core.sessions.holder(&token).is_some_and(|session| session.push(Message::Cancel(notice.clone())).is_ok())
    };
    if told(&notice) {
        return;
    }
    core.unheard.keep(token, notice.clone(), Instant::now());
    // A session that named the lease since the first look did not see what was kept after it.
    if told(&notice) {
        core.unheard.take(&[token]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(n: usize) -> LeaseToken {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&n.to_le_bytes());
        LeaseToken::from_bytes(bytes)
    }

    #[test]
    fn what_is_kept_is_told_once_and_is_bounded() {
        let (unheard, now) = (Unheard::new(Duration::from_secs(1)), Instant::now());
        let notice = |n: usize| pb::CancelNotice { reason: n.to_string(), ..Default::default() };
        for n in 0..KEPT + 2 {
            unheard.keep(token(n), notice(n), now);
        }
        assert_eq!(unheard.take(&[token(1), token(KEPT)]), [notice(1)], "no more than the limit is kept");
        assert_eq!(unheard.take(&[token(1)]), []);
        unheard.keep(token(KEPT), notice(KEPT), now);
        unheard.keep(token(KEPT + 1), notice(KEPT + 1), now + Duration::from_secs(2));
        assert_eq!(unheard.take(&[token(2), token(KEPT + 1)]), [notice(KEPT + 1)], "what is too old makes room");
    }
}
