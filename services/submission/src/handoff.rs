//! Hands committed tasks to the dispatcher and confirms it in SQL.
//!
//! A hand-off that fails costs nothing: its outbox row stays, and the sweeper offers it again.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use futures_util::future::join_all;
use oxcart_service::{
    coalesce::{Batcher, BatcherOptions},
    status,
};
use oxcart_store::{AgendaRow, AgendaWhy, Entry, Store};
use oxcart_types::{Clock, HandoffId, Limits, Timestamp};
use tokio_util::task::TaskTracker;

use crate::{
    config::Config,
    dispatcher::{Dispatcher, DispatcherError, Offered},
    metrics::{HandoffLabels, Meters},
};

/// Commit batches offered together.
const OFFERED_TOGETHER: usize = 64;

/// An outbox row and what it covers.
#[derive(Debug, Clone)]
pub(crate) struct Handoff {
    pub(crate) id: HandoffId,
    pub(crate) entries: Vec<Entry>,
}

/// An outbox row that the dispatcher has answered for.
#[derive(Debug)]
struct Answered {
    id: HandoffId,
    no_room: Vec<AgendaRow>,
}

/// The pipeline. Clones share it.
#[derive(Clone)]
pub(crate) struct Handoffs(Arc<Inner>);

struct Inner {
    offers: Batcher<Handoff, bool>,
    tracker: TaskTracker,
    /// Tasks in the pipeline.
    under_way: AtomicUsize,
    /// Other tasks of the outbox: given up here, or left by another process. The sweeper counts them.
    left: AtomicUsize,
    meters: Meters,
}

impl Handoffs {
    pub(crate) fn spawn(config: &Config, store: Store, dispatcher: Dispatcher, clock: Arc<dyn Clock>, meters: Meters) -> Self {
        let waiting = config.unconfirmed_tasks.max(1);
        let confirms = {
            let options = BatcherOptions { max_batch: 500, max_waiting: waiting, lanes: 1 };
            Batcher::spawn(options, move |answered| confirm(store.clone(), answered))
        };
        let options = BatcherOptions { max_batch: OFFERED_TOGETHER, max_waiting: waiting, lanes: config.handoff_lanes };
        let offerer = Offerer { dispatcher, clock, confirms, reachable: Arc::new(AtomicBool::new(true)), meters: meters.clone() };
        let offers = Batcher::spawn(options, move |handoffs| offerer.clone().offer(handoffs));
        let (under_way, left) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self(Arc::new(Inner { offers, tracker: TaskTracker::new(), under_way, left, meters }))
    }

    /// Hands off in the background.
    pub(crate) fn push(&self, handoff: Handoff) {
        let (this, tasks) = (self.clone(), handoff.entries.len());
        self.count(&self.0.under_way, tasks, true);
        self.0.tracker.spawn(async move {
            let confirmed = this.0.offers.submit(handoff).await.unwrap_or(false);
            this.count(&this.0.under_way, tasks, false);
            if !confirmed {
                this.count(&this.0.left, tasks, true);
            }
        });
    }

    /// Hands off and waits; true when it is confirmed. For the sweeper.
    pub(crate) async fn offer(&self, handoff: Handoff) -> bool {
        self.0.offers.submit_waiting(handoff).await.unwrap_or(false)
    }

    /// Tasks that the dispatcher has not confirmed, as far as this process knows.
    pub(crate) fn unconfirmed(&self) -> usize {
        self.0.under_way.load(Ordering::Relaxed) + self.0.left.load(Ordering::Relaxed)
    }

    /// So many tasks are in the outbox, those under way among them. What was given up since they were counted is left out until
    /// the next count.
    pub(crate) fn counted(&self, in_outbox: usize) {
        self.0.left.store(in_outbox.saturating_sub(self.0.under_way.load(Ordering::Relaxed)), Ordering::Relaxed);
        self.gauge();
    }

    /// Waits for what was pushed.
    pub(crate) async fn drain(&self) {
        self.0.tracker.close();
        self.0.tracker.wait().await;
    }

    fn count(&self, counter: &AtomicUsize, tasks: usize, up: bool) {
        if up {
            counter.fetch_add(tasks, Ordering::Relaxed);
        } else {
            counter.fetch_sub(tasks, Ordering::Relaxed);
        }
        self.gauge();
    }

    fn gauge(&self) {
        self.0.meters.unconfirmed.set(i64::try_from(self.unconfirmed()).unwrap_or(i64::MAX));
    }
}

#[derive(Clone)]
struct Offerer {
    dispatcher: Dispatcher,
    clock: Arc<dyn Clock>,
    confirms: Batcher<Answered, bool>,
    reachable: Arc<AtomicBool>,
    meters: Meters,
}

impl Offerer {
    /// Offers the entries of all hand-offs in as few calls as they fit, and confirms those of which every entry was answered.
    async fn offer(self, handoffs: Vec<Handoff>) -> Vec<bool> {
        let now = self.clock.now();
        let entries: Vec<Entry> = handoffs.iter().flat_map(|handoff| handoff.entries.iter().cloned()).collect();
        let offered = in_chunks(&entries, |chunk| async {
            let answer = self.dispatcher.enqueue(chunk, now).await;
            self.note(&answer);
            answer
        });
        let offered = offered.await;
        for outcome in [Offered::Taken, Offered::NoRoom, Offered::TryAgain] {
            let tasks = offered.iter().filter(|&&seen| seen == outcome).count();
            self.meters.handoffs.get_or_create(&HandoffLabels { outcome: outcome.as_str() }).inc_by(tasks as u64);
        }
        let mut rest = offered.as_slice();
        let confirms = handoffs.into_iter().map(|handoff| {
            let (mine, others) = rest.split_at(handoff.entries.len().min(rest.len()));
            rest = others;
            self.confirm(answered(&handoff, mine, now))
        });
        join_all(confirms.collect::<Vec<_>>()).await
    }

    fn confirm(&self, answered: Option<Answered>) -> impl Future<Output = bool> + use<> {
        let confirms = self.confirms.clone();
        async move {
            match answered {
                Some(answered) => confirms.submit_waiting(answered).await.unwrap_or(false),
                None => false,
            }
        }
    }

    /// An outage is logged when it begins and when it ends.
    fn note(&self, answer: &Result<Vec<Offered>, DispatcherError>) {
        let was = self.reachable.swap(answer.is_ok(), Ordering::Relaxed);
        match answer {
            Err(error) if was => {
                tracing::warn!(error = status::chain(error), "the dispatcher is unreachable; tasks wait in SQL");
            }
            Ok(_) if !was => tracing::info!("the dispatcher is back"),
            Ok(_) | Err(_) => {}
        }
    }
}

/// Offers entries in calls of at most 1000. Once the dispatcher is found to be away the rest is not tried: each call would wait
/// for its timeout, and nobody would be served when it is back.
async fn in_chunks<'a, F, Fut>(entries: &'a [Entry], offer: F) -> Vec<Offered>
where
    F: Fn(&'a [Entry]) -> Fut,
    Fut: Future<Output = Result<Vec<Offered>, DispatcherError>>,
{
    let mut offered = Vec::with_capacity(entries.len());
    for chunk in entries.chunks(Limits::BATCH_ITEMS) {
        match offer(chunk).await {
            Ok(answers) => offered.extend(answers),
            Err(error) if error.is_absence() => break,
            Err(_) => offered.resize(offered.len() + chunk.len(), Offered::TryAgain),
        }
    }
    offered.resize(entries.len(), Offered::TryAgain);
    offered
}

/// What to write when every entry was answered; `None` leaves the outbox row to the sweeper.
fn answered(handoff: &Handoff, offered: &[Offered], now: Timestamp) -> Option<Answered> {
    if offered.contains(&Offered::TryAgain) || offered.len() != handoff.entries.len() {
        return None;
    }
    let without_room = handoff.entries.iter().zip(offered).filter(|(_, offered)| **offered == Offered::NoRoom);
    let no_room = without_room.map(|(entry, _)| no_room(entry, now)).collect();
    Some(Answered { id: handoff.id, no_room })
}

/// The agenda row of an entry that found no room.
pub(crate) fn no_room(entry: &Entry, now: Timestamp) -> AgendaRow {
    AgendaRow { task: entry.task, at: now, run: entry.run, why: AgendaWhy::Room }
}

async fn confirm(store: Store, answered: Vec<Answered>) -> Vec<bool> {
    let done: Vec<HandoffId> = answered.iter().map(|answered| answered.id).collect();
    let no_room: Vec<AgendaRow> = answered.iter().flat_map(|answered| answered.no_room.iter().copied()).collect();
    let confirmed = store.confirm_handoffs(&done, &no_room).await;
    if let Err(error) = &confirmed {
        tracing::warn!(error = status::chain(error), "hand-offs are not confirmed; they are offered again");
    }
    vec![confirmed.is_ok(); answered.len()]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use oxcart_types::{IdSource as _, Priority, QueueName, Run, SystemIds};
    use tonic::Status;

    use super::*;

    fn entry() -> Entry {
        let (task, queue) = (SystemIds.task_id(), QueueName::default_queue());
        Entry { task, run: Run::FIRST, queue, priority: Priority::default(), fairness_key: None, due_at: None }
    }

    #[tokio::test]
    async fn an_absence_ends_an_offer_and_a_refusal_only_its_call() {
        let entries: Vec<Entry> = (0..2 * Limits::BATCH_ITEMS + 1).map(|_| entry()).collect();
        let offers = async |first: fn() -> DispatcherError| {
            let calls = AtomicUsize::new(0);
            let offered = in_chunks(&entries, |chunk| {
                let nth = calls.fetch_add(1, Ordering::Relaxed);
                async move { if nth == 0 { Err(first()) } else { Ok(vec![Offered::Taken; chunk.len()]) } }
            });
            let offered = offered.await;
            assert_eq!(offered.len(), entries.len());
            let taken = offered.iter().filter(|offered| **offered == Offered::Taken).count();
            assert!(offered[..Limits::BATCH_ITEMS].iter().all(|offered| *offered == Offered::TryAgain));
            (calls.into_inner(), taken)
        };
        assert_eq!(offers(|| DispatcherError::Timeout(Duration::ZERO)).await, (1, 0));
        assert_eq!(offers(|| Box::new(Status::unavailable("down")).into()).await, (1, 0));
        assert_eq!(offers(|| Box::new(Status::invalid_argument("bad")).into()).await, (3, Limits::BATCH_ITEMS + 1));
    }
}
