//! A network of byte streams between processes: slow, sometimes cut, sometimes broken off.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
    time::Sleep,
};
use tonic::transport::{Channel, Endpoint, Uri, server::Connected};
use tower::service_fn;

use crate::{
    log::{Bytes, Event, Pid},
    shared::{Shared, pass},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// The network.
pub struct Net {
    shared: Arc<Shared>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    listeners: BTreeMap<Pid, mpsc::UnboundedSender<SimStream>>,
    /// Nothing arrives from the first at the second before the time.
    partitions: Vec<(Pid, Pid, Duration)>,
    connections: Vec<(Pid, Pid, [Weak<Pipe>; 2])>,
}

/// How a direction of a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Closed,
    Reset,
}

/// One direction of a connection.
#[derive(Default)]
struct Pipe(Mutex<PipeState>);

#[derive(Default)]
struct PipeState {
    chunks: VecDeque<(Duration, VecDeque<u8>)>,
    /// When the newest of them arrives: bytes do not overtake each other.
    last: Duration,
    end: Option<(Duration, End)>,
    reader: Option<Waker>,
}

impl Net {
    /// A network without anybody.
    #[must_use]
    pub fn new(shared: Arc<Shared>) -> Arc<Self> {
        Arc::new(Self { shared, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connections for a process that listens from now on.
    pub fn listen(&self, at: Pid) -> mpsc::UnboundedReceiver<SimStream> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.state().listeners.insert(at, sender);
        receiver
    }

    /// The process is gone.
    pub fn gone(&self, at: Pid) {
        self.state().listeners.remove(&at);
    }

    /// From now until then nothing arrives at `to` from `from`; what is sent meanwhile arrives after that.
    pub fn part(&self, from: Pid, to: Pid, until: Duration) {
        self.shared.note(Event::Fault(format!("nothing from {from} to {to} until {until:?}")));
        self.state().partitions.push((from, to, until));
    }

    /// All can reach each other again.
    pub fn heal(&self) {
        self.state().partitions.clear();
    }

    /// When something that is sent now from one to the other may arrive, if there is a partition between them.
    fn parted(&self, from: Pid, to: Pid, now: Duration) -> Option<Duration> {
        let state = self.state();
        state.partitions.iter().filter(|(a, b, until)| *a == from && *b == to && *until > now).map(|(.., until)| *until).max()
    }

    /// Breaks every connection between two processes.
    pub fn cut(&self, one: Pid, other: Pid) {
        let pipes: Vec<Weak<Pipe>> = {
            let mut state = self.state();
            state.connections.retain(|(.., pipes)| pipes.iter().any(|pipe| pipe.strong_count() > 0));
            let between = state.connections.iter().filter(|(a, b, _)| (*a, *b) == (one, other) || (*a, *b) == (other, one));
            between.flat_map(|(.., pipes)| pipes.clone()).collect()
        };
        self.shared.note(Event::Cut { from: one, to: other });
        let now = self.shared.now();
        for pipe in pipes.iter().filter_map(Weak::upgrade) {
            pipe.end(now, End::Reset, true);
        }
    }

    /// A channel of a process to any of these: each time it connects it picks one.
    pub fn channel(self: &Arc<Self>, from: Pid, targets: Vec<Pid>) -> Channel {
        let net = Arc::clone(self);
        Endpoint::from_static("http://oxcart")
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .connect_with_connector_lazy(service_fn(move |_: Uri| {
                let net = Arc::clone(&net);
                let to = *net.shared.rng().pick(&targets);
                async move { net.connect(from, to).await.map(TokioIo::new) }
            }))
    }

    async fn connect(self: Arc<Self>, from: Pid, to: Pid) -> io::Result<SimStream> {
        pass(self.shared.latency() + Duration::from_millis(1)).await;
        let parted = |a, b| self.parted(a, b, self.shared.now());
        while let Some(until) = parted(from, to).max(parted(to, from)) {
            // Given up by the timeout when it takes too long.
            pass(until.saturating_sub(self.shared.now()) + Duration::from_millis(1)).await;
        }
        let pipes = [Arc::new(Pipe::default()), Arc::new(Pipe::default())];
        let [there, back] = &pipes;
        let far = SimStream::new(&self, (to, from), Arc::clone(there), Arc::clone(back));
        let listening = self.state().listeners.get(&to).cloned();
        let made = listening.is_some_and(|listening| listening.send(far).is_ok());
        self.shared.note(Event::Connected { from, to, made });
        if !made {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        self.state().connections.push((from, to, pipes.each_ref().map(Arc::downgrade)));
        let [there, back] = pipes;
        Ok(SimStream::new(&self, (from, to), back, there))
    }
}

impl Pipe {
    fn state(&self) -> MutexGuard<'_, PipeState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, arrives: Duration, bytes: &[u8]) {
        let mut state = self.state();
        if state.end.is_some() {
            return;
        }
        let arrives = arrives.max(state.last);
        state.last = arrives;
        state.chunks.push_back((arrives, bytes.iter().copied().collect()));
        wake(&mut state);
    }

    /// Nothing comes after what is under way, which is lost if `lose`.
    fn end(&self, at: Duration, how: End, lose: bool) {
        let mut state = self.state();
        if state.end.is_some_and(|(_, end)| end == End::Reset) {
            return;
        }
        if lose {
            state.chunks.retain(|(arrives, _)| *arrives <= at);
        }
        let at = if lose { at } else { at.max(state.last) };
        state.end = Some((at, how));
        wake(&mut state);
    }
}

fn wake(state: &mut PipeState) {
    if let Some(reader) = state.reader.take() {
        reader.wake();
    }
}

/// One end of a connection.
pub struct SimStream {
    net: Arc<Net>,
    from: Pid,
    to: Pid,
    read: Arc<Pipe>,
    write: Arc<Pipe>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl SimStream {
    fn new(net: &Arc<Net>, (from, to): (Pid, Pid), read: Arc<Pipe>, write: Arc<Pipe>) -> Self {
        Self { net: Arc::clone(net), from, to, read, write, sleep: None }
    }

    /// When something sent now arrives.
    fn arrival(&self) -> Duration {
        let now = self.net.shared.now();
        let sent = self.net.parted(self.from, self.to, now).unwrap_or(now);
        sent + self.net.shared.latency()
    }
}

impl AsyncRead for SimStream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let now = self.net.shared.now();
        let next = {
            let mut state = self.read.state();
            match state.chunks.front_mut() {
                Some((arrives, bytes)) if *arrives <= now => {
                    let count = bytes.len().min(buffer.remaining());
                    let (head, _) = bytes.make_contiguous().split_at(count);
                    buffer.put_slice(head);
                    bytes.drain(..count);
                    if bytes.is_empty() {
                        state.chunks.pop_front();
                    }
                    return Poll::Ready(Ok(()));
                }
                Some((arrives, _)) => Some(*arrives),
                None => match state.end {
                    Some((at, End::Closed)) if at <= now => return Poll::Ready(Ok(())),
                    Some((at, End::Reset)) if at <= now => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                    Some((at, _)) => Some(at),
                    None => None,
                },
            }
        };
        self.read.state().reader = Some(context.waker().clone());
        self.sleep = next.map(|at| Box::pin(tokio::time::sleep(at.saturating_sub(now))));
        if let Some(sleep) = &mut self.sleep
            && sleep.as_mut().poll(context).is_ready()
        {
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let shared = &self.net.shared;
        let now = shared.now();
        if self.write.state().end.is_some() || self.read.state().end.is_some_and(|(at, end)| end == End::Reset && at <= now) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        shared.count_sent();
        shared.note(Event::Sent { from: self.from, to: self.to, bytes: Bytes(bytes.len()) });
        let arrives = self.arrival();
        let cut = shared.faults().rates.cut;
        if shared.rng().chance(cut) {
            shared.note(Event::Cut { from: self.from, to: self.to });
            // The bytes arrive or do not; the sender cannot know.
            if shared.rng().percent(50) {
                self.write.push(arrives, bytes);
                self.write.end(arrives, End::Reset, false);
            } else {
                self.write.end(now, End::Reset, true);
            }
            self.read.end(now, End::Reset, true);
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        self.write.push(arrives, bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write.end(self.arrival(), End::Closed, false);
        Poll::Ready(Ok(()))
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        if self.net.shared.faults().silent {
            return;
        }
        let arrives = self.arrival();
        self.write.end(arrives, End::Closed, false);
        // What the other end still sends is refused.
        self.read.end(self.net.shared.now(), End::Reset, true);
    }
}

/// Says nothing of the other end.
#[derive(Debug, Clone)]
pub struct Peer;

impl Connected for SimStream {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        Peer
    }
}
