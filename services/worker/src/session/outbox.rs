//! What was sent and is not answered: pure bookkeeping.

use std::collections::{BTreeMap, HashSet};

use oxcart_proto::pb::dispatcher::v1::{
    Failure, FailureReport, LeaseResult, LeaseStatus, OpenSessionRequest, Settle, SettleReport, SettleResult, Verdict,
    VerdictBatch, open_session_request::Message,
};
use oxcart_types::{LeaseToken, Limits};
use tokio::sync::oneshot;

use crate::moment::Moment;

/// Bytes of one message at most: well below the limit of 4 MiB.
const MESSAGE_BYTES: usize = 2 * 1024 * 1024;

/// What was sent and is not answered, and what waits to be sent.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    sequence: i64,
    /// Settles that wait for those on their way: they become one message, and one call of the engine.
    waiting: Vec<Settle>,
    settles: BTreeMap<i64, Vec<Settle>>,
    failures: BTreeMap<i64, PendingVerdicts>,
    leases: BTreeMap<i64, PendingLeases>,
    /// Settles whose partition could not be reached.
    later: Vec<Settle>,
}

#[derive(Debug)]
struct PendingVerdicts {
    failures: Vec<Failure>,
    reply: oneshot::Sender<Vec<Verdict>>,
}

/// A report of leases on its way.
#[derive(Debug)]
pub(super) struct PendingLeases {
    /// When it was sent: the leases are good from then on.
    pub(super) sent: Moment,
    /// What it named, with the id and run of each.
    pub(super) leases: Vec<(String, i32, LeaseToken)>,
}

impl Outbox {
    fn next(&mut self) -> i64 {
        self.sequence += 1;
        self.sequence
    }

    /// Messages that settle these. None while earlier ones are on their way: then they wait for [`Self::settled`].
    pub(super) fn settle(&mut self, settles: Vec<Settle>) -> Vec<OpenSessionRequest> {
        self.waiting.extend(settles);
        if self.settles.is_empty() { self.send_waiting() } else { Vec::new() }
    }

    /// A message names a task once. Two runs of a task may wait together: a settle that was put off, and that of the run which
    /// followed; the later one waits for the answer to the first.
    fn send_waiting(&mut self) -> Vec<OpenSessionRequest> {
        let mut named = HashSet::new();
        let task = |settle: &Settle| settle.lease.as_ref().map(|key| key.task_id.clone());
        let (first, later) = std::mem::take(&mut self.waiting).into_iter().partition(|settle| named.insert(task(settle)));
        self.waiting = later;
        chunks(first)
            .into_iter()
            .map(|settles| {
                let sequence = self.next();
                self.settles.insert(sequence, settles.clone());
                message(Message::Settle(SettleReport { sequence, settles }))
            })
            .collect()
    }

    /// The message that asks for verdicts. Callers keep to the limits of a message.
    pub(super) fn judge(&mut self, failures: Vec<Failure>, reply: oneshot::Sender<Vec<Verdict>>) -> OpenSessionRequest {
        let sequence = self.next();
        self.failures.insert(sequence, PendingVerdicts { failures: failures.clone(), reply });
        message(Message::Failures(FailureReport { sequence, failures }))
    }

    /// Number for a report of leases.
    pub(super) fn report(&mut self, pending: PendingLeases) -> i64 {
        let sequence = self.next();
        self.leases.insert(sequence, pending);
        sequence
    }

    /// The answer to a report of leases.
    pub(super) fn reported(&mut self, sequence: i64) -> Option<PendingLeases> {
        self.leases.remove(&sequence)
    }

    /// Verdicts arrived; who gave up waiting is not told.
    pub(super) fn judged(&mut self, batch: VerdictBatch) {
        if let Some(pending) = self.failures.remove(&batch.sequence) {
            let _ = pending.reply.send(batch.verdicts);
        }
    }

    /// Settles arrived. Those of a partition that cannot be reached are kept for later; what waited goes out.
    pub(super) fn settled(&mut self, result: &SettleResult) -> Vec<OpenSessionRequest> {
        let Some(settles) = self.settles.remove(&result.sequence) else { return Vec::new() };
        let again: HashSet<(&str, i32)> =
            result.exceptions.iter().filter(|r| is_try_again(r)).map(|r| (r.task_id.as_str(), r.run)).collect();
        let is_again = |settle: &Settle| settle.lease.as_ref().is_some_and(|key| again.contains(&(key.task_id.as_str(), key.run)));
        self.later.extend(settles.into_iter().filter(is_again));
        self.settle(Vec::new())
    }

    /// Messages for what was put off.
    pub(super) fn put_off(&mut self) -> Vec<OpenSessionRequest> {
        let later = std::mem::take(&mut self.later);
        self.settle(later)
    }

    /// The connection broke: everything that must arrive, again. Reports of leases are not: the next heartbeat is one.
    pub(super) fn reconnected(&mut self) -> Vec<OpenSessionRequest> {
        self.leases.clear();
        self.failures.retain(|_, pending| !pending.reply.is_closed());
        let settles = self
            .settles
            .iter()
            .map(|(&sequence, settles)| (sequence, Message::Settle(SettleReport { sequence, settles: settles.clone() })));
        let failures = self.failures.iter().map(|(&sequence, pending)| {
            (sequence, Message::Failures(FailureReport { sequence, failures: pending.failures.clone() }))
        });
        let again: BTreeMap<i64, Message> = settles.chain(failures).collect();
        let again: Vec<_> = again.into_values().map(message).collect();
        again.into_iter().chain(self.put_off()).collect()
    }

    /// True when nothing that must arrive is open.
    pub(super) fn is_empty(&self) -> bool {
        self.settles.is_empty() && self.waiting.is_empty() && self.later.is_empty() && self.failures.is_empty()
    }
}

fn is_try_again(result: &LeaseResult) -> bool {
    match result.status() {
        LeaseStatus::TryAgain => true,
        // Settled before, by whomever, or lost: nothing is left to do.
        LeaseStatus::Unspecified | LeaseStatus::Ok | LeaseStatus::Adopted | LeaseStatus::Lost | LeaseStatus::Unknown => false,
    }
}

pub(super) fn message(message: Message) -> OpenSessionRequest {
    OpenSessionRequest { message: Some(message) }
}

/// Cuts items into messages of at most 1000 items and 2 MiB.
pub(crate) fn chunks<M: prost::Message>(items: Vec<M>) -> Vec<Vec<M>> {
    let mut chunks = Vec::new();
    let (mut chunk, mut bytes) = (Vec::new(), 0);
    for item in items {
        let size = item.encoded_len();
        if chunk.len() == Limits::BATCH_ITEMS || (!chunk.is_empty() && bytes + size > MESSAGE_BYTES) {
            chunks.push(std::mem::take(&mut chunk));
            bytes = 0;
        }
        bytes += size;
        chunk.push(item);
    }
    if !chunk.is_empty() {
        chunks.push(chunk);
    }
    chunks
}

#[cfg(test)]
mod tests {
    use oxcart_proto::pb::common::v1::LeaseKey;

    use super::*;

    fn settle(task: &str) -> Settle {
        Settle { lease: Some(LeaseKey { task_id: task.to_owned(), run: 1, lease_token: vec![1; 16] }), ..Default::default() }
    }

    fn sequence(message: &OpenSessionRequest) -> i64 {
        match &message.message {
            Some(Message::Settle(report)) => report.sequence,
            Some(Message::Failures(report)) => report.sequence,
            other => panic!("unexpected {other:?}"),
        }
    }

    #[test]
    fn what_is_unanswered_is_sent_again_in_order() {
        let mut outbox = Outbox::default();
        let first = outbox.settle(vec![settle("a")]);
        let (reply, mut verdicts) = oneshot::channel();
        let second = outbox.judge(vec![Failure::default()], reply);
        let again = outbox.reconnected();
        assert_eq!(again.iter().map(sequence).collect::<Vec<_>>(), [sequence(&first[0]), sequence(&second)]);
        assert!(outbox.settled(&SettleResult { sequence: sequence(&first[0]), exceptions: Vec::new() }).is_empty());
        assert!(!outbox.is_empty());
        outbox.judged(VerdictBatch { sequence: sequence(&second), verdicts: vec![Verdict::default()] });
        assert_eq!(verdicts.try_recv().expect("answered").len(), 1);
        assert!(outbox.is_empty() && outbox.reconnected().is_empty());
    }

    #[test]
    fn settles_collect_while_others_are_on_their_way() {
        let mut outbox = Outbox::default();
        let first = outbox.settle(vec![settle("a")]);
        assert_eq!(first.len(), 1, "one that is alone goes at once");
        assert!(outbox.settle(vec![settle("b")]).is_empty() && outbox.settle(vec![settle("c")]).is_empty());
        assert_eq!(outbox.reconnected().len(), 1, "a broken connection repeats what was sent");
        let next = outbox.settled(&SettleResult { sequence: sequence(&first[0]), exceptions: Vec::new() });
        let [OpenSessionRequest { message: Some(Message::Settle(report)) }] = &next[..] else { panic!("one message: {next:?}") };
        assert_eq!(report.settles, [settle("b"), settle("c")]);
        assert!(!outbox.is_empty());
        assert!(outbox.settled(&SettleResult { sequence: report.sequence, exceptions: Vec::new() }).is_empty());
        assert!(outbox.is_empty());
    }

    #[test]
    fn only_settles_of_unreachable_partitions_are_put_off() {
        let mut outbox = Outbox::default();
        let sent = outbox.settle(vec![settle("a"), settle("b"), settle("c")]);
        let result = |task: &str, status: LeaseStatus| LeaseResult { task_id: task.into(), run: 1, status: status.into() };
        let exceptions = vec![result("a", LeaseStatus::Unknown), result("b", LeaseStatus::TryAgain)];
        assert!(outbox.settled(&SettleResult { sequence: sequence(&sent[0]), exceptions }).is_empty());
        let put_off = outbox.put_off();
        let Some(Message::Settle(report)) = &put_off[0].message else { panic!("a settle") };
        assert_eq!(report.settles, [settle("b")]);
        assert_ne!(report.sequence, sequence(&sent[0]));
    }

    #[test]
    fn a_message_names_a_task_once_and_keeps_the_order_of_its_runs() {
        let mut outbox = Outbox::default();
        let run = |task: &str, run: i32| {
            let lease = LeaseKey { task_id: task.to_owned(), run, lease_token: vec![1; 16] };
            Settle { lease: Some(lease), ..Default::default() }
        };
        let first = outbox.settle(vec![run("a", 1)]);
        // The engine cannot be reached: the settle of run 1 is put off, and meanwhile run 2 has begun and ended here.
        let again = LeaseResult { task_id: "a".into(), run: 1, status: LeaseStatus::TryAgain.into() };
        assert!(outbox.settled(&SettleResult { sequence: sequence(&first[0]), exceptions: vec![again] }).is_empty());
        outbox.waiting.extend([run("b", 1)]);
        outbox.later.extend([run("a", 2)]);
        let runs = |messages: &[OpenSessionRequest]| {
            let [OpenSessionRequest { message: Some(Message::Settle(report)) }] = messages else { panic!("one message") };
            let keys = report.settles.iter().filter_map(|settle| settle.lease.as_ref());
            (report.sequence, keys.map(|key| (key.task_id.clone(), key.run)).collect::<Vec<_>>())
        };
        let (sequence, named) = runs(&outbox.put_off());
        assert_eq!(named, [("b".to_owned(), 1), ("a".to_owned(), 1)]);
        let (sequence, named) = runs(&outbox.settled(&SettleResult { sequence, exceptions: Vec::new() }));
        assert_eq!(named, [("a".to_owned(), 2)]);
        assert!(outbox.settled(&SettleResult { sequence, exceptions: Vec::new() }).is_empty() && outbox.is_empty());
    }

    #[test]
    fn messages_keep_to_their_limits() {
        assert_eq!(chunks(vec![settle("a"); 2001]).iter().map(Vec::len).collect::<Vec<_>>(), [1000, 1000, 1]);
        let large = Settle { queue: "q".repeat(1024 * 1024), ..settle("a") };
        assert_eq!(chunks(vec![large; 3]).iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1]);
    }
}
