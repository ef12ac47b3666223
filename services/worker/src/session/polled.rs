//! The leases that a poll names: pure bookkeeping over the messages that pass.
//!
//! A stream lets the dispatcher count the leases of a worker; a poll begins from nothing, so it says what is held.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use oxcart_proto::pb::{
    common::v1::LeaseKey,
    dispatcher::v1::{GrantBatch, HeldLease, Settle},
};
use oxcart_types::Limits;

/// A lease of which nothing was heard for this long is not held any more, however it was lost. Heartbeats name every run at work.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// Leases held, by token. The window bounds them.
#[derive(Debug, Default)]
pub(super) struct PolledLeases(HashMap<Vec<u8>, (HeldLease, Instant)>);

impl PolledLeases {
    /// Begins with what the worker holds.
    pub(super) fn new(held: &[HeldLease]) -> Self {
        let mut leases = Self::default();
        leases.reported(held);
        leases
    }

    /// Grants arrived.
    pub(super) fn granted(&mut self, batch: &GrantBatch) {
        for grant in &batch.grants {
            let lease = LeaseKey { task_id: grant.task_id.clone(), run: grant.run, lease_token: grant.lease_token.clone() };
            let (queue, priority, deliveries) = (batch.queue.clone(), grant.priority, grant.deliveries);
            self.insert(HeldLease { lease: Some(lease), queue, priority, deliveries, ..HeldLease::default() });
        }
    }

    /// Runs are at work on these.
    pub(super) fn reported(&mut self, held: &[HeldLease]) {
        for lease in held {
            self.insert(lease.clone());
        }
    }

    /// These leases are at their end.
    pub(super) fn settled(&mut self, settles: &[Settle]) {
        for lease in settles.iter().filter_map(|settle| settle.lease.as_ref()) {
            self.0.remove(&lease.lease_token);
        }
    }

    /// What a poll names, and how many more there are.
    pub(super) fn held(&mut self) -> (Vec<HeldLease>, u32) {
        let now = Instant::now();
        self.0.retain(|_, (_, heard)| now.duration_since(*heard) < FORGOTTEN_AFTER);
        let named: Vec<_> = self.0.values().take(Limits::BATCH_ITEMS).map(|(lease, _)| lease.clone()).collect();
        let unnamed = u32::try_from(self.0.len() - named.len()).unwrap_or(u32::MAX);
        (named, unnamed)
    }

    fn insert(&mut self, held: HeldLease) {
        if let Some(token) = held.lease.as_ref().map(|lease| lease.lease_token.clone()) {
            self.0.insert(token, (held, Instant::now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use oxcart_proto::pb::dispatcher::v1::Grant;

    use super::*;

    fn grants(tokens: std::ops::Range<u16>) -> GrantBatch {
        let grant = |n: u16| Grant { lease_token: n.to_be_bytes().to_vec(), run: 1, ..Grant::default() };
        GrantBatch { queue: "q".to_owned(), grants: tokens.map(grant).collect(), expires_in: None }
    }

    fn settle(held: &HeldLease) -> Settle {
        Settle { lease: held.lease.clone(), ..Settle::default() }
    }

    #[test]
    fn a_lease_is_held_from_its_grant_to_its_settle() {
        let mut leases = PolledLeases::default();
        leases.granted(&grants(0..3));
        let (held, unnamed) = leases.held();
        assert_eq!((held.len(), unnamed), (3, 0));
        assert!(held.iter().all(|lease| lease.queue == "q"));
        // A heartbeat says more of the same lease.
        leases.reported(&[HeldLease { fairness_key: "key".to_owned(), ..held[0].clone() }]);
        assert_eq!(leases.held().0.len(), 3);
        leases.settled(&[settle(&held[0]), settle(&held[1])]);
        leases.settled(&[settle(&held[0])]);
        let (left, unnamed) = leases.held();
        assert_eq!((left.as_slice(), unnamed), (&held[2..], 0));
    }

    #[test]
    fn what_finds_no_place_in_a_message_is_counted() {
        let mut leases = PolledLeases::default();
        leases.granted(&grants(0..1003));
        let (held, unnamed) = leases.held();
        assert_eq!((held.len(), unnamed), (1000, 3));
    }
}
