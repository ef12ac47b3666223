//! Grants leases of one partition while sessions have room for them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use oxcart_queue::{Granted, LeaseRequest, Leased, MAX_ITEMS, QueueError, Release};
use oxcart_types::WorkerId;

use super::{Lane, spread::spread};
use crate::{
    core::Core,
    session::{Counted, Reserved, Session},
};

/// Leases asked for when it is not known whether anything is ready: the tokens of a call that finds little are wasted.
const MIN_ASK: usize = 32;

/// What one turn of the granter found.
enum Turn {
    /// No session has room: wait until one has.
    NoRoom,
    /// More may be ready: go on at once.
    More,
    /// Nothing more is ready until then.
    Dry(Option<Duration>),
    /// The engine failed.
    Failed,
}

/// Runs until the dispatcher drains.
pub(super) async fn run(core: Arc<Core>, lane: Arc<Lane>) {
    let mut granter = Granter { core: Arc::clone(&core), lane: Arc::clone(&lane), ask: MIN_ASK, turn: 0 };
    loop {
        let turn = granter.turn().await;
        let poll = core.config.grant_poll.mul_f64(rand::random_range(0.75..1.25));
        let wait = match turn {
            Turn::More => {
                if core.draining.is_cancelled() {
                    return;
                }
                continue;
            }
            // A session that gets room wakes this loop.
            Turn::NoRoom => None,
            Turn::Dry(next_due) => Some(next_due.map_or(poll, |due| due.clamp(Duration::from_millis(1), poll))),
            Turn::Failed => Some(poll),
        };
        let timer = async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = core.draining.cancelled() => return,
            () = lane.wake.notified() => {}
            () = timer => {}
        }
    }
}

struct Granter {
    core: Arc<Core>,
    lane: Arc<Lane>,
    /// Leases to ask for next: grows while calls come back full.
    ask: usize,
    turn: usize,
}

impl Granter {
    async fn turn(&mut self) -> Turn {
        let rooms = self.core.sessions.reserve(&self.lane.partition.queue, self.ask);
        let wanted: usize = rooms.iter().map(|(_, room)| room.slots as usize).sum();
        if wanted == 0 {
            return Turn::NoRoom;
        }
        let wanted = wanted.min(self.ask);
        let leased = match self.lease(&rooms, wanted).await {
            Ok(leased) => leased,
            Err(_) => {
                self.distribute(&rooms, Vec::new()).await;
                return Turn::Failed;
            }
        };
        let granted = leased.granted.len();
        self.distribute(&rooms, leased.granted).await;
        if granted == wanted {
            self.ask = (self.ask * 2).min(MAX_ITEMS);
            Turn::More
        } else {
            if granted < self.ask / 4 {
                self.ask = (self.ask / 2).max(MIN_ASK);
            }
            Turn::Dry(leased.next_due)
        }
    }

    async fn lease(&self, rooms: &[(Arc<Session>, Reserved)], wanted: usize) -> Result<Leased, QueueError> {
        // One call serves several sessions; the journal names the holder only when there is one.
        let worker = match rooms {
            [(session, _)] => session.worker,
            _ => WorkerId::from_bytes([0; 16]),
        };
        let tokens = (0..wanted).map(|_| self.core.ids.lease_token()).collect();
        let request = LeaseRequest { worker, tokens, claim_ttl: self.core.config.claim_ttl };
        let began = Instant::now();
        let result = self.core.engine.lease(&self.lane.partition, &request).await;
        self.core.observe("lease", wanted, began, &result);
        result
    }

    /// Gives every session its share, counts it, and sends it. What cannot be sent goes back at once.
    async fn distribute(&mut self, rooms: &[(Arc<Session>, Reserved)], granted: Vec<Granted>) {
        self.turn = self.turn.wrapping_add(1);
        let reserved: Vec<Reserved> = rooms.iter().map(|(_, room)| *room).collect();
        let shares = spread(granted.len(), &reserved, self.turn);
        let until = Instant::now() + self.core.config.claim_ttl;
        let queue = &self.lane.partition.queue;
        let mut granted = granted.into_iter();
        let mut unsent = Vec::new();
        for ((session, room), share) in rooms.iter().zip(shares) {
            let part: Vec<Granted> = granted.by_ref().take(share).collect();
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
                }
                Err(_) => {
                    session.uncount(part.iter().map(|grant| &grant.token));
                    unsent.extend(part);
                }
            }
        }
        unsent.extend(granted);
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
        let _ = lane.release(core, chunk.to_vec()).await;
    }
}
