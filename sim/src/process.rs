//! A process: its own runtime with its own clock. A crash drops the runtime, and with it all of its tasks wherever they are.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use futures_util::StreamExt as _;
use oxcart_service::{Component, Metrics};
use oxcart_store::Store;
use oxcart_types::{IdSource as _, WorkerId};
use oxcart_worker::config::{LeaseUncertain, LinkMode};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;

use crate::{
    double::Doubling,
    engine::EngineHost,
    handler::{self, Manners},
    log::Pid,
    net::Net,
    rng::Rng,
    shared::Shared,
    sql::SqlWire,
    time::{Ids, ProcessClock, ProcessTime},
};

const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// What a process is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Submission.
    Submission,
    /// Dispatcher.
    Dispatcher,
    /// Worker.
    Worker,
    /// Monitor.
    Monitor,
    /// The clients.
    Client,
}

/// What processes are made from.
pub struct Site {
    pub(crate) shared: Arc<Shared>,
    pub(crate) net: Arc<Net>,
    pub(crate) engine: Arc<EngineHost>,
    pub(crate) store: Store,
    pub(crate) settings: Settings,
    pub(crate) submissions: Vec<Pid>,
    pub(crate) dispatchers: Vec<Pid>,
}

/// What differs from world to world in how services are set.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Entries of a partition.
    pub window: u64,
    /// Slots of a worker.
    pub slots: u32,
    /// Queues that workers serve.
    pub queues: &'static [&'static str],
    /// How handlers behave.
    pub manners: Manners,
    /// How workers talk to dispatchers.
    pub link: LinkMode,
    /// What workers do about uncertain leases.
    pub uncertain: LeaseUncertain,
    /// What is switched off.
    pub without: Without,
}

/// Parts that are switched off, so that what they hide shows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Without {
    /// The audit.
    pub audit: bool,
}

/// What runs in a process that is up.
pub struct Up {
    runtime: Runtime,
    pub(crate) time: Arc<ProcessTime>,
    shutdown: CancellationToken,
    left: Arc<AtomicBool>,
    /// Of a worker.
    pub(crate) worker: Option<WorkerId>,
}

impl Up {
    /// An empty process.
    ///
    /// # Errors
    /// The runtime cannot be made.
    pub fn boot(now: Duration, skew_ms: i64) -> anyhow::Result<Self> {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().context("a runtime")?;
        let time = {
            let _inside = runtime.enter();
            ProcessTime::begin(now, skew_ms)
        };
        Ok(Self { runtime, time, shutdown: CancellationToken::new(), left: Arc::default(), worker: None })
    }

    /// Runs something within the process.
    pub fn within<T>(&self, run: impl Future<Output = T>) -> T {
        self.time.clone().within(|| self.runtime.block_on(run))
    }

    /// Lets the process run until a time, in as many steps as it has things to do until then.
    pub fn run_until(&self, until: Duration) {
        let until = self.time.instant(until);
        self.within(async { tokio::time::sleep_until(until).await });
    }

    /// Lets the process find that so much time has passed at once.
    pub fn jump_to(&self, now: Duration) {
        let behind = now.saturating_sub(self.within(async { self.time.now() }));
        self.within(tokio::time::advance(behind));
    }

    /// Asks the service to leave.
    pub fn stop(&self) {
        self.within(async { self.shutdown.cancel() });
    }

    /// The service has left.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.left.load(Ordering::Relaxed)
    }

    /// Ends the process as it stands.
    pub fn kill(self) {
        let Self { runtime, time, .. } = self;
        time.within(|| drop(runtime));
    }
}

/// Starts a service in a process of its own.
///
/// # Errors
/// A setting is out of bounds.
pub fn serve(site: &Site, at: Pid, role: Role, skew_ms: i64, rng: &mut Rng) -> anyhow::Result<Up> {
    let mut up = Up::boot(site.shared.now(), skew_ms)?;
    let clock = ProcessClock(Arc::clone(&up.time));
    let ids = Arc::new(Ids::new(clock.clone(), rng.split()));
    let incoming = site.net.listen(at);
    up.worker = (role == Role::Worker).then(|| ids.worker_id());
    let (shutdown, left, handle) = (up.shutdown.clone(), Arc::clone(&up.left), up.runtime.handle().clone());
    up.within(async {
        let component = component(site, at, role, clock, ids, handle)?;
        let mut routes = RoutesBuilder::default();
        component.register(&mut routes);
        let server = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .layer(Doubling(Arc::clone(&site.shared)))
            .add_routes(routes.routes());
        tokio::spawn(server.serve_with_incoming(UnboundedReceiverStream::new(incoming).map(Ok::<_, std::io::Error>)));
        tokio::spawn(async move {
            let _ = component.run(shutdown).await;
            left.store(true, Ordering::Relaxed);
        });
        anyhow::Ok(())
    })?;
    Ok(up)
}

fn component(
    site: &Site,
    at: Pid,
    role: Role,
    clock: ProcessClock,
    ids: Arc<Ids>,
    handle: Handle,
) -> anyhow::Result<Box<dyn Component>> {
    let store = || site.store.over(Arc::new(SqlWire { shared: Arc::clone(&site.shared), by: at }));
    let dispatcher = || site.net.channel(at, site.dispatchers.clone());
    let (clock, metrics) = (Arc::new(clock), Metrics::new());
    Ok(match role {
        Role::Submission => {
            let deps = oxcart_submission::Deps { store: store(), dispatcher: dispatcher(), clock, ids, metrics };
            Box::new(oxcart_submission::Submission::new(submission(&site.settings), deps))
        }
        Role::Dispatcher => {
            let deps = oxcart_dispatcher::Deps { engine: site.engine.of(at), clock, ids, metrics };
            Box::new(oxcart_dispatcher::Dispatcher::new(dispatcher_config(&site.settings), deps))
        }
        Role::Worker => {
            let handlers = handler::handlers(&site.shared, site.settings.manners)?;
            let deps = oxcart_worker::Deps { store: Arc::new(store()), dispatcher: dispatcher(), handlers, clock, ids, metrics };
            Box::new(oxcart_worker::WorkerService::with_handlers_on(handle, worker(&site.settings), deps)?)
        }
        Role::Monitor => {
            let deps = oxcart_monitor::Deps { store: store(), dispatcher: dispatcher(), clock, ids, metrics };
            Box::new(oxcart_monitor::Monitor::new(oxcart_monitor::Config::default(), deps))
        }
        Role::Client => anyhow::bail!("clients are no service"),
    })
}

const NEVER: Duration = Duration::from_secs(100 * 24 * 3600);

fn submission(settings: &Settings) -> oxcart_submission::Config {
    let mut config = oxcart_submission::Config { horizon: Duration::from_secs(60), ..Default::default() };
    if settings.without.audit {
        config.sweep.audit_step_period = NEVER;
        config.sweep.audit_min_age = NEVER;
    }
    config
}

fn dispatcher_config(settings: &Settings) -> oxcart_dispatcher::Config {
    oxcart_dispatcher::Config { window: settings.window, ..Default::default() }
}

fn worker(settings: &Settings) -> oxcart_worker::Config {
    oxcart_worker::Config {
        slots: settings.slots,
        queues: settings.queues.iter().map(|queue| ((*queue).to_owned(), 1)).collect::<BTreeMap<_, _>>(),
        link: settings.link,
        lease_uncertain: settings.uncertain,
        drain_timeout: Duration::from_secs(10),
        ..Default::default()
    }
}
