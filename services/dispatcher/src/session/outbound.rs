//! The way out of a session. When the transport drops it, grants that were never sent go back at once.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use oxcart_proto::{convert::scalar, pb::dispatcher::v1 as pb};
use oxcart_queue::Partition;
use pb::open_session_response::Message;
use tokio::sync::mpsc;
use tokio_stream::Stream;

use super::registry::{Frame, Session};
use crate::{core::Core, partition::granter::give_back};

/// Messages for a worker, as the transport takes them.
pub(crate) struct Outbound {
    core: Arc<Core>,
    session: Arc<Session>,
    receiver: mpsc::Receiver<Frame>,
}

impl Outbound {
    pub(crate) const fn new(core: Arc<Core>, session: Arc<Session>, receiver: mpsc::Receiver<Frame>) -> Self {
        Self { core, session, receiver }
    }

    /// The next message; waits.
    pub(crate) async fn recv(&mut self) -> Option<Frame> {
        self.receiver.recv().await
    }

    /// A message that is there already.
    pub(crate) fn try_recv(&mut self) -> Option<Frame> {
        self.receiver.try_recv().ok()
    }
}

impl Stream for Outbound {
    type Item = Frame;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Frame>> {
        self.receiver.poll_recv(context)
    }
}

impl Drop for Outbound {
    fn drop(&mut self) {
        self.core.sessions.close(&self.session);
        self.receiver.close();
        while let Ok(frame) = self.receiver.try_recv() {
            if let Ok(pb::OpenSessionResponse { message: Some(Message::Grants(batch)) }) = frame {
                let core = Arc::clone(&self.core);
                self.core.tasks.spawn(async move { return_batch(&core, &batch).await });
            }
        }
    }
}

async fn return_batch(core: &Arc<Core>, batch: &pb::GrantBatch) {
    let Ok(queue) = batch.queue.parse() else { return };
    let Ok(lane) = core.lane(&Partition::first(queue)) else { return };
    let grants = batch.grants.iter();
    let keys = grants.filter_map(|grant| Some((grant.task_id.parse().ok()?, scalar::lease_token(&grant.lease_token).ok()?)));
    give_back(core, &lane, keys).await;
}
