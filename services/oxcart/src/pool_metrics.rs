//! The pools of connections to SQL as metrics.

use std::fmt;

use oxcart_service::Metrics;
use oxcart_store::{PoolUsage, Store};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};

/// Connections that a pool may have.
const SIZE: &str = "pool_size";
/// Connections at work.
const IN_USE: &str = "pool_in_use";
/// Steps that wait for a connection.
const WAITING: &str = "pool_waiting";
/// Steps that got a connection.
const ACQUIRED: &str = "pool_acquired";
/// Steps that got none in time; their calls were refused.
const TIMEOUTS: &str = "pool_timeouts";
/// Time that steps waited for a connection.
const WAITED_SECONDS: &str = "pool_waited_seconds";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabels {
    pool: &'static str,
}

#[derive(Debug)]
struct Pools(Store);

/// Shows the pools of a store under `oxcart_store_`.
pub(crate) fn register(store: &Store, metrics: &Metrics) {
    let pools = Box::new(Pools(store.clone()));
    metrics.sub_registry("store", |registry| registry.register_collector(pools));
}

impl Collector for Pools {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let pools = self.0.pools();
        let gauge = |value: usize| ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        write(&mut encoder, SIZE, "Connections that a pool may have", &pools, |pool| gauge(pool.size))?;
        write(&mut encoder, IN_USE, "Connections at work", &pools, |pool| gauge(pool.in_use))?;
        write(&mut encoder, WAITING, "Steps that wait for a connection", &pools, |pool| gauge(pool.waiting))?;
        write(&mut encoder, ACQUIRED, "Steps that got a connection", &pools, |pool| ConstCounter::new(pool.acquired))?;
        write(&mut encoder, TIMEOUTS, "Steps that got no connection in time", &pools, |pool| ConstCounter::new(pool.timed_out))?;
        write(&mut encoder, WAITED_SECONDS, "Time that steps waited for a connection", &pools, |pool| {
            ConstCounter::new(pool.waited.as_secs_f64())
        })
    }
}

fn write<M: EncodeMetric>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    pools: &[PoolUsage],
    metric: impl Fn(&PoolUsage) -> M,
) -> Result<(), fmt::Error> {
    let Some(first) = pools.first() else { return Ok(()) };
    let mut family = encoder.encode_descriptor(name, help, None, metric(first).metric_type())?;
    for pool in pools {
        metric(pool).encode(family.encode_family(&PoolLabels { pool: pool.pool })?)?;
    }
    Ok(())
}
