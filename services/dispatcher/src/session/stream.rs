//! A session over a stream: the task that reads a worker's messages and answers them.

use std::sync::Arc;

use oxcart_proto::{
    convert::scalar,
    pb::{common::v1 as common, dispatcher::v1 as pb},
};
use oxcart_queue::{ExtendCause, LeaseStatus};
use oxcart_types::Limits;
use pb::{open_session_request::Message as Request, open_session_response::Message};
use tokio::{sync::mpsc, time::Instant};
use tonic::{Status, Streaming};

use super::{
    Closer, Outbound, exceptions, extend, extend_held,
    registry::{Frame, Session, frame},
    settle,
    state::{Counted, PhaseEvent, SessionState},
    verdicts,
};
use crate::{config::Config, core::Core, error::DispatcherError, grpc::decode};

/// The protocol version that is spoken.
const PROTOCOL_VERSION: i32 = 1;

/// Checks a worker's version.
pub(crate) fn check_version(version: i32) -> Result<(), DispatcherError> {
    if version >= PROTOCOL_VERSION { Ok(()) } else { Err(DispatcherError::ProtocolVersion(version)) }
}

/// Intervals and limits that hold for every session.
pub(crate) fn settings(config: &Config) -> pb::SessionOpened {
    pb::SessionOpened {
        protocol_version: PROTOCOL_VERSION,
        heartbeat_interval: Some(scalar::to_duration(config.heartbeat_interval)),
        session_timeout: Some(scalar::to_duration(config.session_timeout)),
        claim_ttl: Some(scalar::to_duration(config.claim_ttl)),
        lease_ttl: Some(scalar::to_duration(config.lease_ttl)),
        held: None,
        max_message_bytes: i64::try_from(Limits::MESSAGE_BYTES).unwrap_or(i64::MAX),
        max_result_bytes: i64::try_from(Limits::SMALL_RESULT_BYTES).unwrap_or(i64::MAX),
    }
}

/// Opens a session: reads the first message, takes back what the worker holds, and starts the task.
pub(crate) async fn open(core: Arc<Core>, mut inbound: Streaming<pb::OpenSessionRequest>) -> Result<Outbound, Status> {
    if core.draining.is_cancelled() {
        return Err(DispatcherError::ShuttingDown.into());
    }
    let timeout = core.config.session_timeout;
    let first = tokio::time::timeout(timeout, inbound.message()).await.map_err(|_| DispatcherError::SessionSilent(timeout))??;
    let Some(Request::Open(open)) = first.and_then(|first| first.message) else {
        return Err(DispatcherError::SessionNotOpen.into());
    };
    check_version(open.protocol_version)?;
    let info = open.worker.unwrap_or_default();
    let worker = decode::worker_id("worker.worker_id", &info.worker_id)?;
    let window = decode::window(&core.config, open.window.unwrap_or_default())?;
    let held = decode::held("held", open.held)?;
    let (statuses, expires_in) = extend_held(&core, ExtendCause::Heartbeat, &held).await;
    let until = Instant::now() + core.config.lease_ttl;
    let counted = held.iter().zip(&statuses).filter_map(|(lease, status)| match status {
        // What could not be asked about is held as long as the worker says so.
        Some(LeaseStatus::Ok | LeaseStatus::Adopted) | None => {
            let counted = Counted { key: lease.extend.key, run: lease.extend.run, queue: lease.queue.clone(), until };
            Some((lease.extend.token, counted))
        }
        Some(LeaseStatus::Lost | LeaseStatus::Unknown) => None,
    });
    let tokens: Vec<_> = held.iter().map(|lease| lease.extend.token).collect();
    let state = SessionState::open(window, counted);
    let opened = pb::SessionOpened {
        held: Some(pb::LeaseReportResult {
            sequence: 0,
            expires_in: Some(scalar::to_duration(expires_in)),
            exceptions: exceptions(&held, &statuses),
            counted_leases: scalar::to_count(state.counted()),
        }),
        ..settings(&core.config)
    };
    let (sender, receiver) = mpsc::channel(core.config.session_buffer.max(2));
    let session = Session::new(worker, state, info, sender.clone());
    let outbound = Outbound::new(Arc::clone(&core), Arc::clone(&session), receiver);
    // In the channel before the session is known, so that no grant can come first.
    let _ = sender.try_send(frame(Message::Opened(opened)));
    core.sessions.add(&session, true)?;
    // Read once the session is known: what is cancelled from now on comes through it.
    for notice in core.unheard.take(&tokens) {
        let _ = session.push(Message::Cancel(notice));
    }
    wake_queues(&core, &session)?;
    let task = Task { core: Arc::clone(&core), session, sender, closer: outbound.closer() };
    core.tasks.spawn(task.run(inbound));
    Ok(outbound)
}

/// Wakes the granters of a session's queues; makes those that are new here.
pub(crate) fn wake_queues(core: &Arc<Core>, session: &Session) -> Result<(), DispatcherError> {
    let queues: Vec<_> = session.state().queues().cloned().collect();
    for queue in queues {
        core.lane(&oxcart_queue::Partition::first(queue))?.wake.notify_one();
    }
    Ok(())
}

/// Why the task of a session ends.
enum End {
    /// The worker has gone.
    Gone,
    /// The stream ends with an error.
    Error(DispatcherError),
}

impl From<DispatcherError> for End {
    fn from(error: DispatcherError) -> Self {
        Self::Error(error)
    }
}

struct Task {
    core: Arc<Core>,
    session: Arc<Session>,
    sender: mpsc::Sender<Frame>,
    closer: Closer,
}

impl Task {
    async fn run(self, inbound: Streaming<pb::OpenSessionRequest>) {
        let end = self.follow(inbound).await;
        self.core.sessions.close(&self.session);
        let why = match end {
            Err(End::Error(error)) => {
                tracing::debug!(worker = %self.session.worker, %error, "a session ends");
                Some(error.into())
            }
            Ok(()) | Err(End::Gone) => None,
        };
        self.closer.close(&self.core, why);
    }

    async fn follow(&self, mut inbound: Streaming<pb::OpenSessionRequest>) -> Result<(), End> {
        let timeout = self.core.config.session_timeout;
        let mut told = false;
        loop {
            let message = tokio::select! {
                () = self.session.superseded.cancelled() => return Err(DispatcherError::Superseded.into()),
                () = self.core.draining.cancelled(), if !told => {
                    told = true;
                    self.session.state().advance(PhaseEvent::Leave);
                    let command = i32::from(pb::SessionCommand::Reconnect);
                    self.send(Message::Control(pb::SessionControl { command, reason: "shutting down".to_owned() })).await?;
                    continue;
                }
                // What was told to leave gets half of the time to do so.
                message = tokio::time::timeout(if told { timeout / 2 } else { timeout }, inbound.message()) => message,
            };
            let message = match message {
                Err(_) if told => return Err(DispatcherError::ShuttingDown.into()),
                Err(_) => return Err(DispatcherError::SessionSilent(timeout).into()),
                Ok(Err(_) | Ok(None)) => return Err(End::Gone),
                Ok(Ok(Some(message))) => message,
            };
            if let Some(lasted) = self.core.outage().filter(|lasted| *lasted > timeout) {
                return Err(DispatcherError::EngineDown(lasted).into());
            }
            let Some(message) = message.message else {
                return Err(DispatcherError::invalid("message", "is required").into());
            };
            self.handle(message).await?;
        }
    }

    async fn handle(&self, message: Request) -> Result<(), End> {
        match message {
            Request::Open(_) => return Err(DispatcherError::invalid("open", "comes first and once").into()),
            Request::Window(window) => self.window(window)?,
            Request::Starts(report) => self.report(ExtendCause::Started, report).await?,
            Request::Heartbeat(report) => self.report(ExtendCause::Heartbeat, report).await?,
            Request::Failures(report) => self.send(Message::Verdicts(verdicts(&self.core, report)?)).await?,
            Request::Settle(report) => {
                let result = settle(&self.core, self.session.worker, report).await?;
                self.send(Message::Settled(result)).await?;
            }
            Request::Status(status) => {
                let mut profile = self.session.profile();
                profile.load = status.load;
                if status.task_names.len() <= Limits::BATCH_ITEMS {
                    profile.info.task_names = status.task_names;
                }
            }
            Request::Goodbye(goodbye) => {
                self.session.state().advance(PhaseEvent::Leave);
                if !goodbye.reconnecting {
                    self.core.sessions.leave(self.session.worker, self.session.profile().info.clone());
                }
            }
        }
        Ok(())
    }

    fn window(&self, window: common::Window) -> Result<(), DispatcherError> {
        let window = decode::window(&self.core.config, window)?;
        let newer = self.session.state().set_window(window);
        if newer { wake_queues(&self.core, &self.session) } else { Ok(()) }
    }

    async fn report(&self, cause: ExtendCause, report: pb::LeaseReport) -> Result<(), End> {
        let result = extend(&self.core, Some(&self.session), cause, report).await?;
        let lost = pb::LeaseStatus::Lost;
        let leases: Vec<_> = result.exceptions.iter().filter(|exception| exception.status() == lost).collect();
        let leases: Vec<_> = leases
            .into_iter()
            .map(|lease| common::LeaseKey { task_id: lease.task_id.clone(), run: lease.run, lease_token: Vec::new() })
            .collect();
        self.send(Message::Extended(result)).await?;
        if !leases.is_empty() {
            self.send(Message::Lost(pb::LostNotice { leases, reason: "superseded, reaped or removed".to_owned() })).await?;
        }
        Ok(())
    }

    /// Sends an answer; a worker that does not read is dropped.
    async fn send(&self, message: Message) -> Result<(), End> {
        let timeout = self.core.config.session_timeout;
        match tokio::time::timeout(timeout, self.sender.send(frame(message))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Gone),
            Err(_) => Err(DispatcherError::SessionSilent(timeout).into()),
        }
    }
}
