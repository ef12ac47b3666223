//! All services in this process: the embedded system.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use oxcart_sdk::{Client, Handlers};
use oxcart_service::{
    Server, ServiceError,
    config::Secret,
    local::{self, LocalConnector},
    telemetry::propagation,
};
use oxcart_store::{Store, StoreError};
use oxcart_worker::WorkerError;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    compose::{self, Shared},
    config::Config,
    storage::{LockError, Storage, StorageLock},
};

/// Why an embedded system could not start, or failed.
#[derive(Debug, thiserror::Error)]
pub enum SystemError {
    /// The file.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The database.
    #[error("cannot use the database")]
    Store(#[from] StoreError),
    /// A handler or a setting of the worker.
    #[error("cannot set up the worker")]
    Worker(#[from] WorkerError),
    /// A socket.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The services ended with an error.
    #[error("the services failed")]
    Service(#[from] ServiceError),
    /// The services panicked.
    #[error("the services panicked")]
    Panicked,
}

/// What is set before a [`System`] starts.
#[must_use = "nothing runs before `start`"]
pub struct SystemBuilder {
    storage: Storage,
    handlers: Handlers,
    config: Config,
    grpc: SocketAddr,
    admin: Option<SocketAddr>,
}

/// A running system: the four services on one gRPC port, SQLite, and the queue in memory. The services reach each other
/// through their contracts, as they do when each is a process of its own.
///
/// Dropping it stops the services without waiting for what runs; [`System::stop`] waits.
pub struct System {
    connector: LocalConnector,
    addresses: Addresses,
    shutdown: CancellationToken,
    served: Option<JoinHandle<Result<(), ServiceError>>>,
}

/// Where a system listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// gRPC.
    pub grpc: SocketAddr,
    /// Liveness, readiness and metrics over HTTP, when asked for.
    pub admin: Option<SocketAddr>,
}

impl System {
    /// A system that keeps its tasks in `storage`, to be configured.
    pub fn embedded(storage: impl Into<Storage>) -> SystemBuilder {
        SystemBuilder {
            storage: storage.into(),
            handlers: Handlers::new(),
            config: Config::default(),
            grpc: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            admin: None,
        }
    }

    /// A client that reaches the services without a port. Traces of the caller go on in the handlers.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::builder(self.channel()).propagator(Arc::new(propagation::inject_map)).build()
    }

    /// A channel to all services that needs no port.
    #[must_use]
    pub fn channel(&self) -> tonic::transport::Channel {
        self.connector.channel()
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Waits until the services end by themselves, which they only do when something is wrong, or are told to by `shutdown`;
    /// then they finish what they have.
    ///
    /// # Errors
    /// What ended them, or what kept them from finishing.
    pub async fn run_until(mut self, shutdown: CancellationToken) -> Result<(), SystemError> {
        let Some(mut served) = self.served.take() else { return Ok(()) };
        let ended = tokio::select! {
            ended = &mut served => ended,
            () = shutdown.cancelled() => {
                self.shutdown.cancel();
                served.await
            }
        };
        Ok(ended.map_err(|_| SystemError::Panicked)??)
    }

    /// Stops: takes nothing new, lets running handlers finish within the time for draining, gives the rest back. With a file,
    /// the next start goes on where this one was.
    ///
    /// # Errors
    /// What kept it from stopping in time.
    pub async fn stop(self) -> Result<(), SystemError> {
        let now = CancellationToken::new();
        now.cancel();
        self.run_until(now).await
    }
}

impl Drop for System {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl SystemBuilder {
    /// Runs tasks with these handlers.
    pub fn handlers(mut self, handlers: Handlers) -> Self {
        self.handlers = handlers;
        self
    }

    /// Takes the settings of the services from here; `store`, `redis` and `server` addresses are not used.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Listens here for gRPC; a free port on the loopback interface when not set.
    pub fn grpc(mut self, address: SocketAddr) -> Self {
        self.grpc = address;
        self
    }

    /// Listens here for liveness, readiness and metrics; not at all when not set.
    pub fn admin(mut self, address: SocketAddr) -> Self {
        self.admin = Some(address);
        self
    }

    /// Brings the schema up to date and starts the services.
    ///
    /// # Errors
    /// The database or an address cannot be used.
    pub async fn start(self) -> Result<System, SystemError> {
        let Self { storage, handlers, mut config, grpc, admin } = self;
        config.store.url = Secret::new(storage.url());
        // SQLite has one writer: a second commit in flight would only wait for the first.
        config.submission.commit_lanes = 1;
        // The queue is empty at every start: the first cycle of the audit offers all that waits, however young.
        config.submission.sweep.audit_min_age = Duration::ZERO;
        let lock = match &storage {
            Storage::File(path) => Some(StorageLock::take(path)?),
            Storage::InMemory => None,
        };
        // Before the database: who cannot listen leaves no file behind.
        let grpc = bind(grpc).await?;
        let admin = match admin {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        let addresses = Addresses { grpc: local_address(&grpc)?, admin: admin.as_ref().map(local_address).transpose()? };

        let shared = Shared::default();
        if lock.is_some() {
            Store::migrate(&config.store.options()).await?;
        }
        let store = compose::measured_store(&config, &shared).await?;
        if lock.is_some() {
            // Whoever held the file before is gone: what it was running goes on at once, not when its leases would run out.
            oxcart_submission::end_orphans(&store, &*shared.ids, shared.clock.now()).await?;
        }
        let (connector, incoming) = local::transport();
        let engine = compose::memory_engine(&config, &shared);
        // What is added last drains first: the worker settles with the dispatcher, so the dispatcher stays longest.
        let server = Server::new(compose::server_options(&config, &shared))
            .with(compose::dispatcher(&config, engine, &shared))
            .with(compose::submission(&config, store.clone(), connector.channel(), &shared))
            .with(compose::monitor(&config, store.clone(), connector.channel(), &shared))
            .with(compose::worker(&config, store, connector.channel(), handlers, &shared)?)
            .with_local(incoming);
        let shutdown = CancellationToken::new();
        let serving = Box::pin(server.serve(grpc, admin, shutdown.clone()));
        let served = tokio::spawn(async move {
            let served = serving.await;
            drop(lock);
            served
        });
        Ok(System { connector, addresses, shutdown, served: Some(served) })
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, SystemError> {
    TcpListener::bind(address).await.map_err(|source| SystemError::Listen { address, source })
}

fn local_address(listener: &TcpListener) -> Result<SocketAddr, SystemError> {
    let unknown = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    listener.local_addr().map_err(|source| SystemError::Listen { address: unknown, source })
}
