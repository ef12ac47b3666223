//! A TCP proxy on the loopback address that fails on demand: a network under the control of a test.
//!
//! Clients are given the address of the proxy instead of the server's. What happens to their bytes can be changed at any time,
//! for open connections and for new ones; see [`Conditions`].

mod conditions;
mod dice;
mod pump;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context as _, Result};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use self::conditions::{Conditions, Flow};
use self::{dice::Dice, pump::Pump};

/// A proxy in front of one server. It ends with its handle, and its connections with it.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    conditions: watch::Sender<Conditions>,
    upstream: watch::Sender<SocketAddr>,
    shared: Arc<Shared>,
    _ends: DropGuard,
}

#[derive(Debug)]
struct Shared {
    upstream: watch::Receiver<SocketAddr>,
    dice: Arc<Dice>,
    /// Parent of the tokens of all open connections; replaced when they are reset.
    connections: watch::Sender<CancellationToken>,
    accepted: AtomicU64,
}

impl FaultProxy {
    /// Starts one in front of `upstream`, which need not listen yet: connections that cannot go on are closed. What is left to
    /// chance follows from `seed`.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start(upstream: SocketAddr, seed: u64) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("no free port for a proxy")?;
        let address = listener.local_addr()?;
        let (conditions, receiver) = watch::channel(Conditions::PASS);
        let (upstream, to) = watch::channel(upstream);
        let ends = CancellationToken::new();
        let shared = Arc::new(Shared {
            upstream: to,
            dice: Arc::new(Dice::new(seed)),
            connections: watch::Sender::new(ends.child_token()),
            accepted: AtomicU64::new(0),
        });
        tokio::spawn(accept(listener, Arc::clone(&shared), receiver, ends.clone()));
        Ok(Self { address, conditions, upstream, shared, _ends: ends.drop_guard() })
    }

    /// Where clients connect to.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what happens to connections.
    pub fn set(&self, conditions: Conditions) {
        self.conditions.send_replace(conditions);
        if conditions.refuse {
            self.reset();
        }
    }

    /// Lets everything pass again; what was held goes on.
    pub fn heal(&self) {
        self.set(Conditions::PASS);
    }

    /// Puts another server behind the address, as a failover does, and resets the connections to the one before.
    pub fn redirect(&self, upstream: SocketAddr) {
        self.upstream.send_replace(upstream);
        self.reset();
    }

    /// Resets the connections that are open. New ones are not touched.
    pub fn reset(&self) {
        self.shared.connections.send_modify(|connections| {
            let next = CancellationToken::new();
            std::mem::replace(connections, next).cancel();
        });
    }

    /// Connections taken so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, conditions: watch::Receiver<Conditions>, ends: CancellationToken) {
    loop {
        let taken = tokio::select! {
            () = ends.cancelled() => break,
            taken = listener.accept() => taken,
        };
        let Ok((client, _)) = taken else { continue };
        shared.accepted.fetch_add(1, Ordering::Relaxed);
        if conditions.borrow().refuse {
            let _gone_already = client.set_zero_linger();
            continue;
        }
        let reset = shared.connections.borrow().child_token();
        tokio::spawn(carry(client, Arc::clone(&shared), conditions.clone(), reset));
    }
    shared.connections.borrow().cancel();
}

async fn carry(client: TcpStream, shared: Arc<Shared>, conditions: watch::Receiver<Conditions>, reset: CancellationToken) {
    let upstream = *shared.upstream.borrow();
    let Ok(server) = TcpStream::connect(upstream).await else { return };
    let _slower = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let pump = |of| Pump { of, conditions: conditions.clone(), dice: Arc::clone(&shared.dice), reset: reset.clone() };
    let up = pump(|conditions| conditions.up).run(from_client, to_server);
    let down = pump(|conditions| conditions.down).run(from_server, to_client);
    tokio::join!(up, down);
}
