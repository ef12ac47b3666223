//! Puts services together from the configuration and what they share. Used by the binary and by [`crate::System`] alike.

use std::sync::Arc;

use oxcart_dispatcher::Dispatcher;
use oxcart_monitor::Monitor;
use oxcart_queue::{MemoryEngine, QueueEngine, QueueError, RedisEngine};
use oxcart_sdk::Handlers;
use oxcart_service::{Metrics, ServerOptions};
use oxcart_store::{Store, StoreError};
use oxcart_submission::Submission;
use oxcart_types::{Clock, IdSource, SystemClock, SystemIds};
use oxcart_worker::{WorkerError, WorkerService};
use tonic::transport::Channel;

use crate::{config::Config, pool_metrics};

/// What all services of a process share.
#[derive(Clone)]
pub struct Shared {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Ids.
    pub ids: Arc<dyn IdSource>,
    /// Metrics.
    pub metrics: Metrics,
}

impl Default for Shared {
    /// Time and ids of the operating system.
    fn default() -> Self {
        Self { clock: Arc::new(SystemClock), ids: Arc::new(SystemIds), metrics: Metrics::new() }
    }
}

/// How a server runs.
#[must_use]
pub fn server_options(config: &Config, shared: &Shared) -> ServerOptions {
    ServerOptions { drain_timeout: config.server.drain_timeout, metrics: shared.metrics.clone(), ..ServerOptions::default() }
}

/// Connects to the database.
///
/// # Errors
/// It cannot be reached, or its schema is not the one this program needs.
pub async fn store(config: &Config) -> Result<Store, StoreError> {
    Store::connect(config.store.options()).await
}

/// Connects to the database for services, and shows in their metrics how the connections are used.
///
/// # Errors
/// As [`store`].
pub async fn measured_store(config: &Config, shared: &Shared) -> Result<Store, StoreError> {
    let store = store(config).await?;
    pool_metrics::register(&store, &shared.metrics);
    Ok(store)
}

/// The queue engine on Redis.
///
/// # Errors
/// Redis cannot be reached, or is set up so that entries may vanish.
pub async fn redis_engine(config: &Config) -> Result<Arc<dyn QueueEngine>, QueueError> {
    Ok(Arc::new(RedisEngine::connect(config.redis.options(), config.engine_options()).await?))
}

/// The queue engine in memory.
#[must_use]
pub fn memory_engine(config: &Config, shared: &Shared) -> Arc<dyn QueueEngine> {
    Arc::new(MemoryEngine::new(config.engine_options(), Arc::clone(&shared.clock)))
}

/// The submission service.
#[must_use]
pub fn submission(config: &Config, store: Store, dispatcher: Channel, shared: &Shared) -> Submission {
    let Shared { clock, ids, metrics } = shared.clone();
    Submission::new(config.submission.clone(), oxcart_submission::Deps { store, dispatcher, clock, ids, metrics })
}

/// The dispatcher service.
#[must_use]
pub fn dispatcher(config: &Config, engine: Arc<dyn QueueEngine>, shared: &Shared) -> Dispatcher {
    let Shared { clock, ids, metrics } = shared.clone();
    Dispatcher::new(config.dispatcher.clone(), oxcart_dispatcher::Deps { engine, clock, ids, metrics })
}

/// The worker service, with the built-in handlers besides `handlers`.
///
/// # Errors
/// A setting is out of bounds, or two handlers have one name.
pub fn worker(
    config: &Config,
    store: Store,
    dispatcher: Channel,
    handlers: Handlers,
    shared: &Shared,
) -> Result<WorkerService, WorkerError> {
    let Shared { clock, ids, metrics } = shared.clone();
    WorkerService::new(
        config.worker.clone(),
        oxcart_worker::Deps { store: Arc::new(store), dispatcher, handlers, clock, ids, metrics },
    )
}

/// The monitor service.
#[must_use]
pub fn monitor(config: &Config, store: Store, dispatcher: Channel, shared: &Shared) -> Monitor {
    let Shared { clock, ids, metrics } = shared.clone();
    Monitor::new(config.monitor.clone(), oxcart_monitor::Deps { store, dispatcher, clock, ids, metrics })
}
