//! A session for the length of one call, for workers whose network passes no streams.

use std::{sync::Arc, time::Duration};

use oxcart_proto::{convert::scalar, pb::dispatcher::v1 as pb};
use oxcart_queue::Extend;
use pb::open_session_response::Message;
use tokio::{sync::mpsc, time::Instant};

use super::{
    Outbound,
    registry::Session,
    state::{Counted, SessionState},
    stream::{check_version, settings, wake_queues},
};
use crate::{core::Core, error::DispatcherError, grpc::decode};

const DEFAULT_WAIT: Duration = Duration::from_secs(20);
const MAX_WAIT: Duration = Duration::from_secs(55);

/// Waits for grants and notices.
pub(crate) async fn poll(core: Arc<Core>, request: pb::PollGrantsRequest) -> Result<pb::PollGrantsResponse, DispatcherError> {
    check_version(request.protocol_version)?;
    let wait = match request.max_wait {
        None => DEFAULT_WAIT,
        Some(wait) => {
            scalar::duration_up_to(wait, MAX_WAIT).map_err(|bad| DispatcherError::invalid("max_wait", bad.description))?
        }
    };
    let info = request.worker.unwrap_or_default();
    let worker = decode::worker_id("worker.worker_id", &info.worker_id)?;
    let unnamed = scalar::count(request.held_leases).map_err(|bad| DispatcherError::invalid("held_leases", bad.description))?;
    let held = decode::held("held", request.held)?;
    let mut window = decode::window(&core.config, request.window.unwrap_or_default())?;
    window.slots = window.slots.saturating_sub(unnamed);
    if core.draining.is_cancelled() {
        return Err(DispatcherError::ShuttingDown);
    }
    if let Some(lasted) = core.outage() {
        return Err(DispatcherError::EngineDown(lasted));
    }
    let (sender, receiver) = mpsc::channel(core.config.session_buffer.max(2));
    let until = Instant::now() + core.config.lease_ttl;
    let tokens: Vec<_> = held.iter().map(|lease| lease.extend.token).collect();
    let counted = held.into_iter().map(|lease| {
        let Extend { key, run, token, .. } = lease.extend;
        (token, Counted { key, run, queue: lease.queue, until })
    });
    let session = Session::new(worker, SessionState::open(window, counted), info, sender);
    let mut outbound = Outbound::new(Arc::clone(&core), Arc::clone(&session), receiver);
    core.sessions.add(&session, false)?;
    wake_queues(&core, &session)?;
    let mut response = pb::PollGrantsResponse { settings: Some(settings(&core.config)), ..Default::default() };
    // Read once the session is known: what is cancelled from now on comes through it.
    response.cancels = core.unheard.take(&tokens);
    let wait = if response.cancels.is_empty() { wait } else { Duration::ZERO };
    let deadline = Instant::now() + wait;
    tokio::select! {
        frame = outbound.recv() => if let Some(Ok(frame)) = frame { add(&mut response, frame.message) },
        () = tokio::time::sleep_until(deadline) => {}
        () = core.draining.cancelled() => {
            let command = i32::from(pb::SessionCommand::Reconnect);
            response.control = Some(pb::SessionControl { command, reason: "shutting down".to_owned() });
        }
    }
    // No grant comes after this; what came meanwhile goes along.
    core.sessions.close(&session);
    while let Some(Ok(frame)) = outbound.try_recv() {
        add(&mut response, frame.message);
    }
    Ok(response)
}

fn add(response: &mut pb::PollGrantsResponse, message: Option<Message>) {
    match message {
        Some(Message::Grants(batch)) => response.grants.push(batch),
        Some(Message::Cancel(notice)) => response.cancels.push(notice),
        Some(Message::Lost(notice)) => response.lost.push(notice),
        Some(Message::Control(control)) => response.control = Some(control),
        // Answers to reports, which a poll does not make.
        Some(Message::Opened(_) | Message::Extended(_) | Message::Verdicts(_) | Message::Settled(_)) | None => {}
    }
}
