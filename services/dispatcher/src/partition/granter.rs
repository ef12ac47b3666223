//! Grants leases of one partition while sessions have room for them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use oxcart_queue::{Claim, Granted, LeaseRequest, Leased, MAX_ITEMS, QueueError, Release};
use oxcart_service::reconcile::Progress;
use tokio::time::Instant;

use super::{Lane, deal::deal};
use crate::{
    core::Core,
    session::{Counted, Reserved, Session},
};

/// Leases asked for when it is not known whether anything is ready: the tokens of a call that finds little are wasted.
const MIN_ASK: usize = 8;

/// A session and the room that is reserved in it.
type Room = (Arc<Session>, Reserved);

/// Grants the leases of one partition. One pass is one lease call and its sends: what is freed meanwhile goes into the next.
pub(super) struct Granter {
    core: Arc<Core>,
    lane: Arc<Lane>,
    /// Leases to ask for next: grows while calls come back full.
    ask: AtomicUsize,
    turn: AtomicUsize,
}

impl Granter {
    pub(super) fn new(core: Arc<Core>, lane: Arc<Lane>) -> Self {
        Self { core, lane, ask: AtomicUsize::new(MIN_ASK), turn: AtomicUsize::new(0) }
    }

    /// One pass.
    pub(super) async fn pass(&self) -> Progress {
        let ask = self.ask.load(Ordering::Relaxed);
        let rooms = self.core.sessions.reserve(&self.lane.partition.queue, ask);
        let reserved: Vec<Reserved> = rooms.iter().map(|(_, room)| *room).collect();
        let owners = deal(ask, &reserved, self.turn.fetch_add(1, Ordering::Relaxed));
        if owners.is_empty() {
            // A session that gets room wakes the granter.
            return Progress::Idle;
        }
        let poll = self.core.config.grant_poll.mul_f64(rand::random_range(0.75..1.25));
        let Ok(leased) = self.lease(&rooms, &owners).await else {
            self.distribute(&rooms, &owners, Vec::new()).await;
            return Progress::Until(poll);
        };
        let granted = leased.granted.len();
        self.distribute(&rooms, &owners, leased.granted).await;
        if granted == owners.len() {
            self.ask.store((ask * 2).min(MAX_ITEMS), Ordering::Relaxed);
            return Progress::More;
        }
        if granted < ask / 4 {
            self.ask.store((ask / 2).max(MIN_ASK), Ordering::Relaxed);
        }
        Progress::Until(leased.next_due.map_or(poll, |due| due.clamp(Duration::from_millis(1), poll)))
    }

    async fn lease(&self, rooms: &[Room], owners: &[usize]) -> Result<Leased, QueueError> {
        let claim = |&owner: &usize| Claim { token: self.core.ids.lease_token(), worker: rooms[owner].0.worker };
        let claims = owners.iter().map(claim).collect();
        let settings = self.lane.settings();
        let request = LeaseRequest { claims, claim_ttl: self.core.config.claim_ttl, reap: self.core.may_reap(), settings };
        let began = Instant::now();
        let result = self.core.engine.lease(&self.lane.partition, &request).await;
        self.core.observe("lease", owners.len(), began, &result);
        if let Ok(leased) = &result {
            self.lane.learn(leased.settings);
        }
        result
    }

    /// Gives every session what was leased for it, counts it, and sends it. What cannot be sent goes back at once.
    async fn distribute(&self, rooms: &[Room], owners: &[usize], granted: Vec<Granted>) {
        let until = Instant::now() + self.core.config.claim_ttl;
        let queue = &self.lane.partition.queue;
        let mut parts = vec![Vec::new(); rooms.len()];
        for (grant, &owner) in granted.into_iter().zip(owners) {
            parts[owner].push(grant);
        }
        let mut unsent = Vec::new();
        for ((session, room), part) in rooms.iter().zip(parts) {
            let counted =
                part.iter().map(|grant| (grant.token, Counted { key: grant.key, run: grant.run, queue: queue.clone(), until }));
            for starved in session.settle_reservation(queue, room.slots, counted) {
                self.core.wake_queue(&starved);
            }
            if part.is_empty() {
                continue;
            }
            match session.send_grants(queue, &part, self.core.config.claim_ttl) {
                Ok(()) => {
                    self.core.metrics.grants.inc_by(part.len() as u64);
                    let again = part.iter().filter(|grant| grant.deliveries > 1).count();
                    self.core.metrics.redeliveries.inc_by(again as u64);
                    self.core.retry_budgets.granted(queue, part.len(), tokio::time::Instant::now());
                }
                Err(_) => {
                    session.uncount(part.iter().map(|grant| &grant.token));
                    unsent.extend(part);
                }
            }
        }
        give_back(&self.core, &self.lane, unsent.iter().map(|grant| (grant.key.task, grant.token))).await;
    }
}

/// Gives back grants that reached nobody. When that fails, their claims run out.
pub(crate) async fn give_back(
    core: &Core,
    lane: &Lane,
    grants: impl Iterator<Item = (oxcart_types::TaskId, oxcart_types::LeaseToken)>,
) {
    let items: Vec<Release> = grants.map(|(task, token)| Release { task, token, delay: Duration::ZERO, uncounted: true }).collect();
    core.metrics.grants_returned.inc_by(items.len() as u64);
    for chunk in items.chunks(MAX_ITEMS) {
        // Should the engine be away, these are claims that nobody confirms: they run out by themselves, as one delivery each.
        let _ = lane.release(core, chunk.to_vec()).await;
    }
}
