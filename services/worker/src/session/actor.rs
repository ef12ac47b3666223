//! Keeps a session open, and speaks for the worker on it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use oxcart_proto::{
    convert::scalar,
    pb::{
        common::v1::{LeaseKey, QueueSubscription, Window, WorkerInfo},
        dispatcher::v1::{
            LeaseReport, LeaseReportResult, LeaseStatus, OpenSessionRequest, OpenSessionResponse, SessionCommand, SessionGoodbye,
            SessionOpen, SessionOpened, WorkerStatus, open_session_request::Message as Up, open_session_response::Message as Down,
        },
    },
};
use oxcart_types::{LeaseToken, Limits, Run, TaskId};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tonic::{Status, transport::Channel};

use super::{
    Command,
    link::{Connection, open_polls, open_stream},
    messages::held_lease,
    outbox::{Outbox, PendingLeases, message},
};
use crate::{
    attempt::Attempt,
    config::LinkMode,
    gate::Gate,
    grant::{self, Grant},
    held::{Held, newest_runs},
    load::LoadMeter,
    metrics::Meters,
    moment::Moment,
};

/// Version of the protocol that this worker speaks.
const PROTOCOL_VERSION: i32 = 1;
/// A start is confirmed when its run is still open this long after its grant: most runs are over by then, and need no lease.
const CONFIRM_AFTER: Duration = Duration::from_secs(1);
/// Failed streams in a row before long polls are tried.
const STREAM_FAILURES: u32 = 3;
/// Longest wait for a dispatcher to say something on a new connection, and at the end for the last answers.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest wait for a dispatcher to end the session after the goodbye.
const FAREWELL: Duration = Duration::from_secs(1);

/// What the dispatcher told about its times and limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Heartbeats are due this often.
    pub(crate) heartbeat_interval: Duration,
    /// Without any message for this long the connection is given up.
    pub(crate) session_timeout: Duration,
    /// Life of a claim.
    pub(crate) claim_ttl: Duration,
    /// Life of a lease.
    pub(crate) lease_ttl: Duration,
    /// Bytes of a result that may travel with a settle.
    pub(crate) max_result_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_secs(10),
            session_timeout: Duration::from_secs(15),
            claim_ttl: Duration::from_secs(10),
            lease_ttl: Duration::from_secs(30),
            max_result_bytes: Limits::SMALL_RESULT_BYTES,
        }
    }
}

impl Settings {
    fn read(opened: &SessionOpened) -> Self {
        let defaults = Self::default();
        let or = |value: Option<prost_types::Duration>, default| match scalar::duration_or_zero(value) {
            Duration::ZERO => default,
            read => read,
        };
        Self {
            heartbeat_interval: or(opened.heartbeat_interval, defaults.heartbeat_interval),
            session_timeout: or(opened.session_timeout, defaults.session_timeout),
            claim_ttl: or(opened.claim_ttl, defaults.claim_ttl),
            lease_ttl: or(opened.lease_ttl, defaults.lease_ttl),
            max_result_bytes: usize::try_from(opened.max_result_bytes).unwrap_or_default(),
        }
    }
}

/// Something that the dispatcher tells outside of any answer.
#[derive(Debug)]
pub(crate) enum Notice {
    /// These runs, and those before them, are to be cancelled.
    Cancel { runs: Vec<(TaskId, Run)>, reason: String, grace: Duration },
    /// These leases are said to be lost: SQL is asked.
    Lost(Vec<TaskId>),
    /// Leave.
    Drain,
}

/// Where the session puts what it hears.
pub(crate) struct SessionEvents {
    /// Grants; the window bounds them.
    pub(crate) grants: mpsc::UnboundedSender<Vec<Grant>>,
    /// Notices. What finds no room is dropped: SQL is asked about cancels and leases anyway, once per heartbeat.
    pub(crate) notices: mpsc::Sender<Notice>,
    /// Times and limits.
    pub(crate) settings: watch::Sender<Settings>,
    /// True while a session is open.
    pub(crate) open: watch::Sender<bool>,
}

/// The session.
pub(crate) struct Actor {
    pub(crate) channel: Channel,
    pub(crate) mode: LinkMode,
    pub(crate) commands: mpsc::UnboundedReceiver<Command>,
    pub(crate) events: SessionEvents,
    pub(crate) held: Arc<Held>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) meters: Meters,
    pub(crate) info: Arc<dyn Fn() -> WorkerInfo + Send + Sync>,
    pub(crate) queues: Vec<QueueSubscription>,
    pub(crate) slots: i32,
    pub(crate) abort_grace: Duration,
    pub(crate) state: ActorState,
}

/// What the session remembers over its connections.
pub(crate) struct ActorState {
    outbox: Outbox,
    window_sequence: i64,
    window_sent: i32,
    leaving: Option<Instant>,
    load: LoadMeter,
}

impl ActorState {
    pub(crate) fn new() -> Self {
        Self { outbox: Outbox::default(), window_sequence: 0, window_sent: -1, leaving: None, load: LoadMeter::new() }
    }
}

/// Why a connection ended.
enum Ended {
    Left,
    Broken(Status),
}

impl Actor {
    /// Keeps a session open until it is told to leave and everything is answered, or [`PATIENCE`] is over.
    pub(crate) async fn run(mut self) {
        let mut failures = 0;
        loop {
            let ended = match self.connect(failures).await {
                Ok((connection, pending)) => self.serve(connection, pending, &mut failures).await,
                Err(status) => Ended::Broken(status),
            };
            let was_open = self.events.open.send_replace(false);
            match ended {
                Ended::Left => return,
                Ended::Broken(status) if was_open => tracing::info!(%status, "the session broke; opening another"),
                Ended::Broken(status) if failures == 0 => tracing::warn!(%status, "no session with the dispatcher; trying on"),
                Ended::Broken(status) => tracing::debug!(%status, failures, "no session with the dispatcher"),
            }
            self.meters.session_failures.inc();
            failures += 1;
            if self.wait(backoff(failures, rand::random())).await {
                return;
            }
        }
    }

    /// Waits while taking up commands; true when it is time to leave for good.
    async fn wait(&mut self, duration: Duration) -> bool {
        let until = sleep(duration);
        tokio::pin!(until);
        loop {
            tokio::select! {
                () = &mut until => return self.state.leaving.is_some_and(|since| since.elapsed() > PATIENCE),
                command = self.commands.recv() => match command {
                    // Nobody is connected: the outbox keeps what it would have sent.
                    Some(command) => { self.take_up(command); }
                    None => return true,
                },
            }
        }
    }

    async fn connect(&mut self, failures: u32) -> Result<(Connection, PendingLeases), Status> {
        let attempts = newest_runs(self.held.attempts(), |attempt| (attempt.key.task, attempt.key.run));
        let held = attempts.iter().map(|attempt| held_lease(attempt, self.abort_grace)).collect();
        let pending = PendingLeases { sent: Moment::now(), leases: names(&attempts) };
        let window = Some(self.window());
        let open = SessionOpen { protocol_version: PROTOCOL_VERSION, worker: Some((self.info)()), window, held };
        let polls = match self.mode {
            LinkMode::Stream => false,
            LinkMode::Unary => true,
            // After some failures each way gets its turn, until one of them works.
            LinkMode::Auto => failures >= STREAM_FAILURES && !(failures - STREAM_FAILURES).is_multiple_of(2),
        };
        let connection = if polls {
            open_polls(self.channel.clone(), open)
        } else {
            let opening = timeout(PATIENCE, open_stream(self.channel.clone(), open)).await;
            opening.map_err(|_| Status::deadline_exceeded("the dispatcher does not answer"))??
        };
        Ok((connection, pending))
    }

    async fn serve(&mut self, mut connection: Connection, held: PendingLeases, failures: &mut u32) -> Ended {
        let first = match timeout(PATIENCE, connection.down.next()).await {
            Ok(Some(Ok(OpenSessionResponse { message: Some(Down::Opened(opened)) }))) => opened,
            Ok(Some(Err(status))) => return Ended::Broken(status),
            Ok(_) => return Ended::Broken(Status::failed_precondition("the dispatcher did not open the session")),
            Err(_) => return Ended::Broken(Status::deadline_exceeded("the dispatcher does not open the session")),
        };
        let settings = Settings::read(&first);
        self.events.settings.send_replace(settings);
        self.apply(&held, &first.held.unwrap_or_default(), settings.lease_ttl);
        self.events.open.send_replace(true);
        *failures = 0;
        let again = self.state.outbox.reconnected();
        for up in again {
            if let Err(status) = send(&connection.up, up).await {
                return Ended::Broken(status);
            }
        }
        match self.speak(&mut connection, settings).await {
            Ok(()) => {
                part(connection).await;
                Ended::Left
            }
            Err(status) => Ended::Broken(status),
        }
    }

    /// The open session; `Ok` when the worker has left.
    async fn speak(&mut self, connection: &mut Connection, settings: Settings) -> Result<(), Status> {
        let mut tick = interval((settings.heartbeat_interval / 4).clamp(Duration::from_millis(20), Duration::from_millis(500)));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut heard, mut beat) = (Instant::now(), Instant::now());
        let mut commands = Vec::new();
        loop {
            if self.state.leaving.is_some_and(|since| self.state.outbox.is_empty() || since.elapsed() > PATIENCE) {
                let goodbye = SessionGoodbye { reason: "the worker shuts down".to_owned(), reconnecting: false };
                return send(&connection.up, message(Up::Goodbye(goodbye))).await;
            }
            tokio::select! {
                received = connection.down.next() => {
                    heard = Instant::now();
                    let response = received.ok_or_else(|| Status::unavailable("the dispatcher ended the session"))??;
                    if let Some(down) = response.message {
                        for up in self.hear(down, settings)? {
                            send(&connection.up, up).await?;
                        }
                    }
                }
                count = self.commands.recv_many(&mut commands, Limits::BATCH_ITEMS) => {
                    if count == 0 {
                        self.state.leaving.get_or_insert_with(Instant::now);
                    }
                    for up in self.take_up_all(&mut commands) {
                        send(&connection.up, up).await?;
                    }
                }
                _ = tick.tick() => {
                    if heard.elapsed() > settings.session_timeout {
                        return Err(Status::deadline_exceeded("the dispatcher is silent"));
                    }
                    for up in self.state.outbox.put_off() {
                        send(&connection.up, up).await?;
                    }
                    self.report(&connection.up, self.held.unconfirmed(CONFIRM_AFTER.min(settings.claim_ttl / 4)), Up::Starts).await?;
                    if beat.elapsed() >= settings.heartbeat_interval {
                        beat = Instant::now();
                        let confirmed = self.held.confirmed();
                        if confirmed.is_empty() {
                            // A sign of life all the same.
                            send(&connection.up, message(Up::Heartbeat(LeaseReport::default()))).await?;
                        }
                        self.report(&connection.up, confirmed, Up::Heartbeat).await?;
                        let load = self.state.load.look(self.held.len());
                        let task_names = (self.info)().task_names;
                        send(&connection.up, message(Up::Status(WorkerStatus { load: Some(load), task_names }))).await?;
                    }
                    if self.window_slots() != self.state.window_sent {
                        let window = self.window();
                        send(&connection.up, message(Up::Window(window))).await?;
                    }
                }
            }
        }
    }

    /// Reports leases, in messages of their size.
    async fn report(
        &mut self,
        up: &mpsc::Sender<OpenSessionRequest>,
        attempts: Vec<Arc<Attempt>>,
        wrap: fn(LeaseReport) -> Up,
    ) -> Result<(), Status> {
        for attempts in newest_runs(attempts, |attempt| (attempt.key.task, attempt.key.run)).chunks(Limits::BATCH_ITEMS) {
            let sequence = self.state.outbox.report(PendingLeases { sent: Moment::now(), leases: names(attempts) });
            let leases = attempts.iter().map(|attempt| held_lease(attempt, self.abort_grace)).collect();
            send(up, message(wrap(LeaseReport { sequence, leases }))).await?;
        }
        Ok(())
    }

    /// Takes up a message; returns what it lets out.
    fn hear(&mut self, down: Down, settings: Settings) -> Result<Vec<OpenSessionRequest>, Status> {
        match down {
            Down::Opened(_) => return Err(Status::failed_precondition("the dispatcher opened the session twice")),
            Down::Grants(batch) => {
                let (grants, bad): (Vec<_>, Vec<_>) = grant::read(batch, Moment::now()).into_iter().partition(Result::is_ok);
                for invalid in bad.into_iter().filter_map(Result::err) {
                    tracing::warn!(%invalid, "a grant cannot be read");
                }
                let _ = self.events.grants.send(grants.into_iter().filter_map(Result::ok).collect());
            }
            Down::Extended(result) => {
                if let Some(pending) = self.state.outbox.reported(result.sequence) {
                    self.apply(&pending, &result, settings.lease_ttl);
                }
            }
            Down::Verdicts(verdicts) => self.state.outbox.judged(verdicts),
            Down::Settled(result) => return Ok(self.state.outbox.settled(&result)),
            Down::Cancel(notice) => {
                let run = |key: &LeaseKey| Some((key.task_id.parse().ok()?, scalar::run(key.run).ok()?));
                let runs = notice.leases.iter().filter_map(run).collect();
                let grace = scalar::duration_or_zero(notice.grace_period);
                self.tell(Notice::Cancel { runs, reason: notice.reason, grace });
            }
            Down::Lost(notice) => {
                self.tell(Notice::Lost(notice.leases.iter().filter_map(|key| key.task_id.parse().ok()).collect()));
            }
            Down::Control(control) => match control.command() {
                SessionCommand::Unspecified => {}
                SessionCommand::Pause => {
                    self.gate.set_paused(true);
                }
                SessionCommand::Resume => {
                    self.gate.set_paused(false);
                }
                SessionCommand::Drain => self.tell(Notice::Drain),
                SessionCommand::Reconnect => return Err(Status::unavailable("the dispatcher asks for another session")),
            },
        }
        Ok(Vec::new())
    }

    fn tell(&self, notice: Notice) {
        if self.events.notices.try_send(notice).is_err() {
            tracing::debug!("a notice found no room; SQL will be asked");
        }
    }

    /// What a report of leases came to.
    fn apply(&self, pending: &PendingLeases, result: &LeaseReportResult, lease_ttl: Duration) {
        let exceptions: HashMap<(&str, i32), LeaseStatus> =
            result.exceptions.iter().map(|r| ((r.task_id.as_str(), r.run), r.status())).collect();
        let (mut good, mut lost) = (Vec::new(), Vec::new());
        for (task, run, token) in &pending.leases {
            match exceptions.get(&(task.as_str(), *run)).copied().unwrap_or(LeaseStatus::Ok) {
                LeaseStatus::Ok | LeaseStatus::Adopted => good.push(*token),
                LeaseStatus::Lost | LeaseStatus::Unknown => lost.extend(task.parse::<TaskId>().ok()),
                // Nothing is known of these: the next heartbeat asks again.
                LeaseStatus::TryAgain | LeaseStatus::Unspecified => {}
            }
        }
        let expires_in = match scalar::duration_or_zero(result.expires_in) {
            Duration::ZERO => lease_ttl,
            told => told,
        };
        self.held.extended(&good, pending.sent + expires_in);
        if !lost.is_empty() {
            self.tell(Notice::Lost(lost));
        }
    }

    fn take_up_all(&mut self, commands: &mut Vec<Command>) -> Vec<OpenSessionRequest> {
        let mut settles = Vec::new();
        let mut ups = Vec::new();
        for command in commands.drain(..) {
            match command {
                // What several batches settled goes out as one message.
                Command::Settle(more) => settles.extend(more),
                other => ups.extend(self.take_up(other)),
            }
        }
        ups.extend(self.take_up(Command::Settle(settles)));
        ups
    }

    fn take_up(&mut self, command: Command) -> Vec<OpenSessionRequest> {
        match command {
            Command::Settle(settles) => self.state.outbox.settle(settles.into_iter().map(super::Settle::into_pb).collect()),
            Command::Judge(failures, reply) => vec![self.state.outbox.judge(failures, reply)],
            Command::Window if self.window_slots() == self.state.window_sent => Vec::new(),
            Command::Window => vec![message(Up::Window(self.window()))],
            Command::Leave => {
                self.state.leaving.get_or_insert_with(Instant::now);
                Vec::new()
            }
        }
    }

    fn window_slots(&self) -> i32 {
        if self.gate.is_open() { self.slots } else { 0 }
    }

    fn window(&mut self) -> Window {
        self.state.window_sequence += 1;
        self.state.window_sent = self.window_slots();
        Window { sequence: self.state.window_sequence, slots: self.state.window_sent, queues: self.queues.clone() }
    }
}

fn names(attempts: &[Arc<Attempt>]) -> Vec<(String, i32, LeaseToken)> {
    attempts.iter().map(|a| (a.key.task.to_string(), scalar::to_run(a.key.run), a.key.token)).collect()
}

async fn send(sender: &mpsc::Sender<OpenSessionRequest>, up: OpenSessionRequest) -> Result<(), Status> {
    match timeout(PATIENCE, sender.send(up)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Status::unavailable("the session is closed")),
        Err(_) => Err(Status::deadline_exceeded("the dispatcher takes no messages")),
    }
}

/// Ends a connection from this side and lets the other end it, too: one that is just dropped takes the goodbye with it.
async fn part(connection: Connection) {
    let Connection { up, mut down } = connection;
    drop(up);
    let rest = async { while let Some(Ok(_)) = down.next().await {} };
    if timeout(FAREWELL, rest).await.is_err() {
        tracing::debug!("the dispatcher did not end the session");
    }
}

/// Wait before the next try: 50 ms doubled to 5 s, with `dice` in 0..1 taking up to half of it away.
fn backoff(failures: u32, dice: f64) -> Duration {
    let doubled = Duration::from_millis(50).saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1).min(10)));
    doubled.min(Duration::from_secs(5)).mul_f64(1.0 - 0.5 * dice.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_to_its_cap() {
        let waits: Vec<_> = [1, 2, 5, 8, 40].into_iter().map(|n| backoff(n, 0.0).as_millis()).collect();
        assert_eq!(waits, [50, 100, 800, 5000, 5000]);
        assert_eq!(backoff(1, 1.0), Duration::from_millis(25));
    }

    #[test]
    fn unset_times_take_their_defaults() {
        assert_eq!(Settings::read(&SessionOpened { max_result_bytes: 4096, ..Default::default() }), Settings::default());
    }
}
