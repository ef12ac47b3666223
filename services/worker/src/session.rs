//! The worker's session with a dispatcher: one actor that owns the connection.
//!
//! Everybody else holds a [`SessionHandle`]. What has to reach the dispatcher (settles, failures) is kept until it is
//! answered, over any number of broken connections; what is soon repeated anyway (heartbeats) is not.

mod actor;
mod link;
mod messages;
mod outbox;
mod polled;

use oxcart_proto::pb::dispatcher::v1 as pb;
use tokio::sync::{mpsc, oneshot};

pub(crate) use self::{
    actor::{Actor, ActorState, Notice, SessionEvents, Settings},
    messages::{Settle, Settlement, lease_key, without_detail},
    outbox::chunks,
};

/// What the session is asked to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Send these, until they are answered.
    Settle(Vec<Settle>),
    /// Ask for verdicts; in the order of the failures.
    Judge(Vec<pb::Failure>, oneshot::Sender<Vec<pb::Verdict>>),
    /// The window may have changed.
    Window,
    /// Say goodbye once everything is answered, and end.
    Leave,
}

/// Talks to the session; cheap to clone. Its queue is bounded by the leases held: each is settled once and judged once.
#[derive(Debug, Clone)]
pub(crate) struct SessionHandle(mpsc::UnboundedSender<Command>);

impl SessionHandle {
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Command>) {
        let (send, receive) = mpsc::unbounded_channel();
        (Self(send), receive)
    }

    /// Settles leases; returns at once, the session sees to it that they arrive.
    pub(crate) fn settle(&self, settles: Vec<Settle>) {
        if !settles.is_empty() {
            self.send(Command::Settle(settles));
        }
    }

    /// Asks what follows these failures, for as long as it takes to reach a dispatcher. `None` when the session has ended.
    pub(crate) async fn judge(&self, failures: Vec<pb::Failure>) -> Option<Vec<pb::Verdict>> {
        let (reply, verdicts) = oneshot::channel();
        self.send(Command::Judge(failures, reply));
        verdicts.await.ok()
    }

    /// Tells that the window may have changed.
    pub(crate) fn window_changed(&self) {
        self.send(Command::Window);
    }

    /// Ends the session.
    pub(crate) fn leave(&self) {
        self.send(Command::Leave);
    }

    fn send(&self, command: Command) {
        // The session outlives the parts that use it; at the very end there is nobody left to be told.
        let _ = self.0.send(command);
    }
}
