//! Two ways to reach a dispatcher, with the same messages: a stream, and long polls where streams do not pass.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, stream::BoxStream};
use oxcart_proto::pb::{
    common::v1::Window,
    dispatcher::v1::{
        ConfirmStartsRequest, ExtendLeasesRequest, LeaseReport, OpenSessionRequest, OpenSessionResponse, PollGrantsRequest,
        ReportFailuresRequest, SessionOpen, SettleLeasesRequest, open_session_request::Message as Up,
        open_session_response::Message as Down, session_service_client::SessionServiceClient,
    },
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, transport::Channel};

use super::{outbox::message, polled::PolledLeases};

/// Messages on their way up before the sender waits.
const UP: usize = 64;

/// An open connection.
pub(super) struct Connection {
    /// Worker to dispatcher.
    pub(super) up: mpsc::Sender<OpenSessionRequest>,
    /// Dispatcher to worker; ends when the connection does.
    pub(super) down: BoxStream<'static, Result<OpenSessionResponse, Status>>,
}

/// A client that takes as large messages as the contract allows.
fn client(channel: Channel) -> SessionServiceClient<Channel> {
    SessionServiceClient::new(channel)
}

/// Opens a stream; the first message is on its way when this returns.
pub(super) async fn open_stream(channel: Channel, open: SessionOpen) -> Result<Connection, Status> {
    let (up, receive) = mpsc::channel(UP);
    // There is room for the first message in a channel that was just made.
    let _ = up.try_send(message(Up::Open(open)));
    let down = client(channel).open_session(ReceiverStream::new(receive)).await?.into_inner();
    Ok(Connection { up, down: down.boxed() })
}

/// Opens long polls that look like a stream: the answer to the first poll is the answer to `open`.
pub(super) fn open_polls(channel: Channel, open: SessionOpen) -> Connection {
    let (up, requests) = mpsc::channel(UP);
    let (answers, down) = mpsc::channel(UP);
    tokio::spawn(translate(client(channel), open, requests, answers));
    Connection { up, down: ReceiverStream::new(down).boxed() }
}

fn lock(leases: &Mutex<PolledLeases>) -> MutexGuard<'_, PolledLeases> {
    leases.lock().unwrap_or_else(PoisonError::into_inner)
}

type Answers = mpsc::Sender<Result<OpenSessionResponse, Status>>;

async fn send(answers: &Answers, down: Down) -> Result<(), Status> {
    let sent = answers.send(Ok(OpenSessionResponse { message: Some(down) })).await;
    sent.map_err(|_| Status::cancelled("the session is closed"))
}

/// Turns the messages of a stream into unary calls until one of them fails or the session drops its side.
async fn translate(
    client: SessionServiceClient<Channel>,
    open: SessionOpen,
    mut requests: mpsc::Receiver<OpenSessionRequest>,
    answers: Answers,
) {
    let (window, windows) = watch::channel(open.window.clone().unwrap_or_default());
    let leases = Mutex::new(PolledLeases::new(&open.held));
    let worker_id = open.worker.as_ref().map(|worker| worker.worker_id.clone()).unwrap_or_default();
    let calls = async {
        while let Some(OpenSessionRequest { message }) = requests.recv().await {
            if let Some(up) = message {
                call(&mut client.clone(), &worker_id, up, &window, &leases, &answers).await?;
            }
        }
        Ok(())
    };
    let ended: Result<(), Status> = tokio::select! {
        ended = calls => ended,
        ended = poll(client.clone(), &open, windows, &leases, &answers) => ended,
    };
    if let Err(status) = ended {
        let _ = answers.send(Err(status)).await;
    }
}

/// One message as a call, its answer as a message.
async fn call(
    client: &mut SessionServiceClient<Channel>,
    worker_id: &str,
    up: Up,
    window: &watch::Sender<Window>,
    leases: &Mutex<PolledLeases>,
    answers: &Answers,
) -> Result<(), Status> {
    let worker_id = worker_id.to_owned();
    match up {
        Up::Window(new) => {
            window.send_replace(new);
        }
        Up::Starts(starts) => {
            lock(leases).reported(&starts.leases);
            let answer = client.confirm_starts(ConfirmStartsRequest { worker_id, starts: Some(starts) }).await?.into_inner();
            send(answers, Down::Extended(answer.result.unwrap_or_default())).await?;
        }
        Up::Heartbeat(report) => {
            lock(leases).reported(&report.leases);
            let answer = client.extend_leases(ExtendLeasesRequest { worker_id, heartbeat: Some(report) }).await?.into_inner();
            send(answers, Down::Extended(answer.result.unwrap_or_default())).await?;
            for cancel in answer.cancels {
                send(answers, Down::Cancel(cancel)).await?;
            }
        }
        Up::Failures(failures) => {
            let answer = client.report_failures(ReportFailuresRequest { worker_id, failures: Some(failures) }).await?.into_inner();
            send(answers, Down::Verdicts(answer.verdicts.unwrap_or_default())).await?;
        }
        Up::Settle(settle) => {
            // Not held from now on: should the call fail, the connection ends, and the next one begins with what is held then.
            lock(leases).settled(&settle.settles);
            let answer = client.settle_leases(SettleLeasesRequest { worker_id, settle: Some(settle) }).await?.into_inner();
            send(answers, Down::Settled(answer.result.unwrap_or_default())).await?;
        }
        // Polls carry no status, and whoever stops polling has left.
        Up::Open(_) | Up::Status(_) | Up::Goodbye(_) => {}
    }
    Ok(())
}

/// Polls for grants and notices, for ever. A closed window still polls: cancels come this way.
async fn poll(
    mut client: SessionServiceClient<Channel>,
    open: &SessionOpen,
    mut windows: watch::Receiver<Window>,
    leases: &Mutex<PolledLeases>,
    answers: &Answers,
) -> Result<(), Status> {
    let mut opened = false;
    loop {
        let window = windows.borrow_and_update().clone();
        let (held, unnamed) = lock(leases).held();
        // The first poll is answered at once, since everybody waits for the settings in it.
        let max_wait = if opened { Duration::from_secs(10) } else { Duration::from_millis(1) };
        let request = PollGrantsRequest {
            protocol_version: open.protocol_version,
            worker: open.worker.clone(),
            window: Some(window),
            held_leases: oxcart_proto::convert::scalar::to_count(unnamed),
            held,
            max_wait: Some(oxcart_proto::convert::scalar::to_duration(max_wait)),
        };
        // A call that is given up might carry grants: they would be reaped and cost a delay, so it is waited for.
        let answer = client.poll_grants(request).await?.into_inner();
        if !opened {
            opened = true;
            let mut settings = answer.settings.unwrap_or_default();
            if !open.held.is_empty() {
                let heartbeat = LeaseReport { sequence: 0, leases: open.held.clone() };
                let worker_id = open.worker.as_ref().map(|worker| worker.worker_id.clone()).unwrap_or_default();
                let held = client.extend_leases(ExtendLeasesRequest { worker_id, heartbeat: Some(heartbeat) }).await?.into_inner();
                settings.held = held.result;
            }
            send(answers, Down::Opened(settings)).await?;
        }
        for grants in answer.grants {
            lock(leases).granted(&grants);
            send(answers, Down::Grants(grants)).await?;
        }
        for cancel in answer.cancels {
            send(answers, Down::Cancel(cancel)).await?;
        }
        for lost in answer.lost {
            send(answers, Down::Lost(lost)).await?;
        }
        if let Some(control) = answer.control {
            send(answers, Down::Control(control)).await?;
        }
    }
}
