//! The way out of a session. When the transport drops it, grants that were never sent go back at once.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use oxcart_proto::{convert::scalar, pb::dispatcher::v1 as pb};
use oxcart_queue::Partition;
use pb::open_session_response::Message;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::Status;

use super::registry::{Frame, Session};
use crate::{core::Core, partition::granter::give_back};

/// Messages on their way to a worker, shared by the transport, which takes them out, and by whoever ends the session: a worker
/// that does not read keeps the transport waiting for ever, and its grants must not wait with it.
struct Queue {
    receiver: mpsc::Receiver<Frame>,
    /// Why the session ended; the last that the worker hears.
    last: Option<Status>,
    waker: Option<Waker>,
}

/// Ends the way out of a session.
#[derive(Clone)]
pub(crate) struct Closer(Arc<Mutex<Queue>>);

impl Closer {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes no more messages and gives back the grants that nobody has read; the worker is told why, should it read on.
    pub(crate) fn close(&self, core: &Arc<Core>, why: Option<Status>) {
        let mut queue = self.lock();
        queue.receiver.close();
        while let Ok(frame) = queue.receiver.try_recv() {
            if let Ok(pb::OpenSessionResponse { message: Some(Message::Grants(batch)) }) = frame {
                let returned = Arc::clone(core);
                core.tasks.spawn(async move { return_batch(&returned, &batch).await });
            }
        }
        queue.last = why;
        if let Some(waker) = queue.waker.take() {
            waker.wake();
        }
    }
}

/// Messages for a worker, as the transport takes them.
pub(crate) struct Outbound {
    core: Arc<Core>,
    session: Arc<Session>,
    queue: Closer,
}

impl Outbound {
    pub(crate) fn new(core: Arc<Core>, session: Arc<Session>, receiver: mpsc::Receiver<Frame>) -> Self {
        let queue = Closer(Arc::new(Mutex::new(Queue { receiver, last: None, waker: None })));
        Self { core, session, queue }
    }

    /// Ends this way out.
    pub(crate) fn closer(&self) -> Closer {
        self.queue.clone()
    }

    /// The next message; waits.
    pub(crate) async fn recv(&mut self) -> Option<Frame> {
        std::future::poll_fn(|context| self.poll(context)).await
    }

    /// A message that is there already.
    pub(crate) fn try_recv(&mut self) -> Option<Frame> {
        self.queue.lock().receiver.try_recv().ok()
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<Option<Frame>> {
        let mut queue = self.queue.lock();
        match queue.receiver.poll_recv(context) {
            Poll::Ready(None) => Poll::Ready(queue.last.take().map(Err)),
            Poll::Ready(frame) => Poll::Ready(frame),
            Poll::Pending => {
                queue.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Stream for Outbound {
    type Item = Frame;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Frame>> {
        self.poll(context)
    }
}

impl Drop for Outbound {
    fn drop(&mut self) {
        self.core.sessions.close(&self.session);
        self.queue.close(&self.core, None);
    }
}

async fn return_batch(core: &Arc<Core>, batch: &pb::GrantBatch) {
    let Ok(queue) = batch.queue.parse() else { return };
    let Ok(lane) = core.lane(&Partition::first(queue)) else { return };
    let grants = batch.grants.iter();
    let keys = grants.filter_map(|grant| Some((grant.task_id.parse().ok()?, scalar::lease_token(&grant.lease_token).ok()?)));
    give_back(core, &lane, keys).await;
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use oxcart_queue::{EngineOptions, Enqueue, EnqueueCause, EntryKey, MemoryEngine, Place, QueueEngine};
    use oxcart_service::Metrics;
    use oxcart_types::{IdSource as _, Priority, QueueName, Run, SystemClock, SystemIds};

    use super::*;
    use crate::{
        config::Config,
        session::{Subscription, Window, state::SessionState, stream::wake_queues},
    };

    async fn until(what: &str, holds: impl AsyncFn() -> bool) {
        let met = async {
            while !holds().await {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), met).await.expect(what);
    }

    /// A session with a grant that the transport has not taken, and its task.
    async fn unread() -> (Arc<Core>, Outbound, EntryKey) {
        let engine: Arc<dyn QueueEngine> = Arc::new(MemoryEngine::new(EngineOptions::default(), Arc::new(SystemClock)));
        let core = Core::new(Config::default(), engine, Arc::new(SystemClock), Arc::new(SystemIds), Metrics::new());
        let key = EntryKey::new(SystemIds.task_id(), Priority::default(), None);
        let entry =
            Enqueue { key, run: Run::FIRST, delay: Duration::ZERO, cause: EnqueueCause::Submitted, note: Default::default() };
        core.engine.enqueue(&Partition::first(QueueName::default_queue()), &[entry]).await.expect("enqueued");
        let queues = vec![Subscription { queue: QueueName::default_queue(), weight: 1, slots: None }];
        let state = SessionState::open(Window { sequence: 1, slots: 1, queues }, []);
        let (sender, receiver) = mpsc::channel(4);
        let session = Session::new(SystemIds.worker_id(), state, Default::default(), sender);
        let outbound = Outbound::new(Arc::clone(&core), Arc::clone(&session), receiver);
        core.sessions.add(&session, true).expect("room");
        wake_queues(&core, &session).expect("a lane");
        until("a grant", async || session.state().counted() == 1 && !outbound.queue.lock().receiver.is_empty()).await;
        (core, outbound, key)
    }

    async fn comes_back_uncounted(core: &Core, key: EntryKey) {
        let partition = Partition::first(QueueName::default_queue());
        until("the grant comes back", async || {
            let found = core.engine.inspect(&partition, &[key]).await.expect("inspected");
            found[0].is_some_and(|entry| (entry.place, entry.deliveries) == (Place::Ready, 0))
        })
        .await;
    }

    #[tokio::test]
    async fn grants_that_the_transport_drops_come_back_uncounted() {
        let (core, outbound, key) = unread().await;
        drop(outbound);
        comes_back_uncounted(&core, key).await;
    }

    /// The transport of a worker that does not read holds the way out for ever, but not its grants.
    #[tokio::test]
    async fn grants_of_a_session_that_ends_come_back_while_the_transport_waits() {
        let (core, mut outbound, key) = unread().await;
        core.sessions.close(&outbound.session);
        outbound.closer().close(&core, Some(Status::deadline_exceeded("silent")));
        comes_back_uncounted(&core, key).await;
        let last = outbound.recv().await.expect("why it ended").expect_err("an error");
        assert_eq!(last.message(), "silent");
        assert!(outbound.recv().await.is_none());
    }

    #[tokio::test]
    async fn who_waits_for_a_message_hears_of_the_end() {
        let (core, mut outbound, _) = unread().await;
        assert!(outbound.recv().await.is_some_and(|frame| frame.is_ok()), "the grant");
        let closer = outbound.closer();
        let waiting = tokio::spawn(async move { outbound.recv().await });
        until("it waits", async || closer.lock().waker.is_some()).await;
        closer.close(&core, None);
        assert!(tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("woken").expect("no panic").is_none());
    }
}
