//! A dispatcher that grants what the test says and remembers what it hears.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use oxcart_proto::{
    convert::{scalar, value},
    pb::{
        common::v1::{LeaseKey, TaskState},
        dispatcher::v1::{
            session_service_server::{SessionService, SessionServiceServer},
            *,
        },
    },
};
use oxcart_types::{TaskId, Verdict as Decision};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

type Down = mpsc::Sender<Result<OpenSessionResponse, Status>>;

/// What was heard, and how to answer.
#[derive(Default)]
pub struct Heard {
    pub opens: Vec<SessionOpen>,
    pub settles: Vec<Settle>,
    pub confirmed: Vec<LeaseKey>,
    pub heartbeats: usize,
    /// Leases named in heartbeats, each time again.
    pub extended: Vec<LeaseKey>,
    pub slots: i32,
    pub goodbyes: usize,
    /// Settles are heard and not answered.
    pub keep_settle_answers: bool,
    /// Streams are refused.
    pub refuse_streams: bool,
    /// Heartbeats are answered with LOST.
    pub say_lost: bool,
    down: Option<Down>,
    waiting: Vec<GrantBatch>,
    granted: u8,
}

/// Cheap to clone; all are the same dispatcher.
#[derive(Clone, Default)]
pub struct Dispatcher(Arc<Mutex<Heard>>);

impl Dispatcher {
    pub async fn start(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let service = SessionServiceServer::new(self.clone());
        let server = tonic::transport::Server::builder().tcp_nodelay(true).add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        address
    }

    pub fn heard(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().expect("not poisoned")
    }

    /// Grants a run; returns the grant, so that it can be sent again.
    pub fn grant(&self, task: TaskId, run: i32) -> Grant {
        let mut heard = self.heard();
        heard.granted += 1;
        let grant = Grant { task_id: task.to_string(), run, lease_token: vec![heard.granted; 16], deliveries: 1, priority: 4 };
        drop(heard);
        self.send_grant(grant.clone());
        grant
    }

    pub fn send_grant(&self, grant: Grant) {
        let expires_in = Some(scalar::to_duration(Duration::from_secs(4)));
        let batch = GrantBatch { queue: "default".to_owned(), grants: vec![grant], expires_in };
        let mut heard = self.heard();
        let grants = || Ok(message(open_session_response::Message::Grants(batch.clone())));
        let is_sent = heard.down.as_ref().is_some_and(|down| down.try_send(grants()).is_ok());
        if !is_sent {
            heard.waiting.push(batch);
        }
    }

    pub fn tell(&self, told: open_session_response::Message) {
        let down = self.heard().down.clone().expect("a session");
        down.try_send(Ok(message(told))).expect("an open session");
    }

    /// Breaks the stream that is open.
    pub fn break_stream(&self) {
        let down = self.heard().down.take().expect("a session");
        down.try_send(Err(Status::unavailable("broken by the test"))).expect("an open session");
    }

    fn settings() -> SessionOpened {
        let millis = |ms| Some(scalar::to_duration(Duration::from_millis(ms)));
        SessionOpened {
            protocol_version: 1,
            heartbeat_interval: millis(100),
            session_timeout: millis(5000),
            claim_ttl: millis(4000),
            lease_ttl: millis(1500),
            max_result_bytes: 4096,
            ..Default::default()
        }
    }

    fn verdicts(report: FailureReport) -> VerdictBatch {
        let verdict = |failure: Failure| {
            let lease = failure.lease.expect("a lease");
            let policy = value::retry_policy(failure.retry_policy.expect("a policy")).expect("a good policy");
            let error = value::failure(failure.error.expect("an error"));
            let attempt = u32::try_from(failure.attempt).expect("not negative");
            let decision = match policy.verdict(attempt, &error, None, 0.5) {
                Decision::Retry(backoff) => verdict::Decision::RetryIn(scalar::to_duration(backoff)),
                Decision::Fail(_) => verdict::Decision::Fail(FailCause::AttemptsUsedUp.into()),
            };
            Verdict { task_id: lease.task_id, run: lease.run, decision: Some(decision) }
        };
        VerdictBatch { sequence: report.sequence, verdicts: report.failures.into_iter().map(verdict).collect() }
    }

    /// Remembers settles, and grants the runs that follow soon.
    fn settled(&self, report: SettleReport) -> Option<SettleResult> {
        for settle in &report.settles {
            let (next, delay) = match settle.outcome.clone().expect("an outcome") {
                settle::Outcome::Failed(failed) => (failed.next_run, failed.retry_in),
                settle::Outcome::Released(released) => (released.next_run, released.delay),
                _ => (0, None),
            };
            let delay = scalar::duration_or_zero(delay);
            if next > 0 && delay < Duration::from_secs(2) {
                let task = settle.lease.as_ref().and_then(|lease| lease.task_id.parse().ok()).expect("an id");
                let this = self.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    // A closed window is granted nothing.
                    if this.heard().slots > 0 {
                        this.grant(task, next);
                    }
                });
            }
        }
        let mut heard = self.heard();
        heard.settles.extend(report.settles);
        (!heard.keep_settle_answers).then_some(SettleResult { sequence: report.sequence, exceptions: Vec::new() })
    }

    fn extended(&self, report: LeaseReport) -> LeaseReportResult {
        let lost = self.heard().say_lost;
        let exception = |lease: &HeldLease| {
            let key = lease.lease.clone().unwrap_or_default();
            LeaseResult { task_id: key.task_id, run: key.run, status: LeaseStatus::Lost.into() }
        };
        let exceptions = if lost { report.leases.iter().map(exception).collect() } else { Vec::new() };
        LeaseReportResult { sequence: report.sequence, exceptions, ..Default::default() }
    }

    fn hear(&self, up: open_session_request::Message) -> Option<open_session_response::Message> {
        use open_session_request::Message as Up;
        use open_session_response::Message as Down;
        match up {
            Up::Open(open) => {
                let mut heard = self.heard();
                heard.slots = open.window.as_ref().map_or(0, |window| window.slots);
                heard.opens.push(open);
                Some(Down::Opened(Self::settings()))
            }
            Up::Window(window) => {
                self.heard().slots = window.slots;
                None
            }
            Up::Starts(report) => {
                self.heard().confirmed.extend(report.leases.iter().filter_map(|lease| lease.lease.clone()));
                Some(Down::Extended(self.extended(report)))
            }
            Up::Heartbeat(report) => {
                let mut heard = self.heard();
                heard.heartbeats += 1;
                heard.extended.extend(report.leases.iter().filter_map(|lease| lease.lease.clone()));
                drop(heard);
                Some(Down::Extended(self.extended(report)))
            }
            Up::Failures(report) => Some(Down::Verdicts(Self::verdicts(report))),
            Up::Settle(report) => self.settled(report).map(Down::Settled),
            Up::Status(_) => None,
            Up::Goodbye(_) => {
                self.heard().goodbyes += 1;
                None
            }
        }
    }
}

fn message(message: open_session_response::Message) -> OpenSessionResponse {
    OpenSessionResponse { message: Some(message) }
}

/// How a settle ended a lease, in short.
pub fn outcome(settle: &Settle) -> String {
    match settle.outcome.as_ref().expect("an outcome") {
        settle::Outcome::Done(_) => "done".to_owned(),
        settle::Outcome::Failed(failed) => {
            format!("failed {} next {}", failed.error.as_ref().expect("an error").kind, failed.next_run)
        }
        settle::Outcome::Released(released) => format!("released next {} uncounted {}", released.next_run, released.uncounted),
        settle::Outcome::Cancelled(_) => "cancelled".to_owned(),
        settle::Outcome::Dropped(dropped) => {
            format!("dropped {}", TaskState::try_from(dropped.task_state).expect("a state").as_str_name())
        }
    }
}

#[async_trait]
impl SessionService for Dispatcher {
    type OpenSessionStream = ReceiverStream<Result<OpenSessionResponse, Status>>;

    async fn open_session(
        &self,
        request: Request<Streaming<OpenSessionRequest>>,
    ) -> Result<Response<Self::OpenSessionStream>, Status> {
        if self.heard().refuse_streams {
            return Err(Status::unimplemented("no streams here"));
        }
        let (send, receive) = mpsc::channel(1000);
        let (this, mut ups) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(OpenSessionRequest { message: Some(up) })) = ups.message().await {
                let is_open = matches!(up, open_session_request::Message::Open(_));
                if let Some(answer) = this.hear(up) {
                    let _ = send.send(Ok(message(answer))).await;
                }
                if is_open {
                    let waiting = {
                        let mut heard = this.heard();
                        heard.down = Some(send.clone());
                        std::mem::take(&mut heard.waiting)
                    };
                    for batch in waiting {
                        let _ = send.send(Ok(message(open_session_response::Message::Grants(batch)))).await;
                    }
                }
            }
            let mut heard = this.heard();
            if heard.down.as_ref().is_some_and(|down| down.same_channel(&send)) {
                heard.down = None;
            }
        });
        Ok(Response::new(ReceiverStream::new(receive)))
    }

    async fn poll_grants(&self, request: Request<PollGrantsRequest>) -> Result<Response<PollGrantsResponse>, Status> {
        let PollGrantsRequest { max_wait, window, .. } = request.into_inner();
        self.heard().slots = window.map_or(0, |window| window.slots);
        let wait = scalar::duration_or_zero(max_wait).min(Duration::from_millis(20));
        tokio::time::sleep(wait).await;
        let grants = std::mem::take(&mut self.heard().waiting);
        Ok(Response::new(PollGrantsResponse { grants, settings: Some(Self::settings()), ..Default::default() }))
    }

    async fn confirm_starts(&self, request: Request<ConfirmStartsRequest>) -> Result<Response<ConfirmStartsResponse>, Status> {
        let result = self.extended(request.into_inner().starts.unwrap_or_default());
        Ok(Response::new(ConfirmStartsResponse { result: Some(result) }))
    }

    async fn extend_leases(&self, request: Request<ExtendLeasesRequest>) -> Result<Response<ExtendLeasesResponse>, Status> {
        let result = self.extended(request.into_inner().heartbeat.unwrap_or_default());
        Ok(Response::new(ExtendLeasesResponse { result: Some(result), cancels: Vec::new() }))
    }

    async fn report_failures(&self, request: Request<ReportFailuresRequest>) -> Result<Response<ReportFailuresResponse>, Status> {
        let verdicts = Self::verdicts(request.into_inner().failures.unwrap_or_default());
        Ok(Response::new(ReportFailuresResponse { verdicts: Some(verdicts) }))
    }

    async fn settle_leases(&self, request: Request<SettleLeasesRequest>) -> Result<Response<SettleLeasesResponse>, Status> {
        let result = self.settled(request.into_inner().settle.unwrap_or_default());
        Ok(Response::new(SettleLeasesResponse { result }))
    }
}
