//! Metrics: one registry a process, the names that every service has, and what `/metrics` prints.

mod process;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// Prefix of all metrics but those of the process, which have the names that dashboards expect.
pub const PREFIX: &str = "oxcart";
/// Calls that ended, by service, method and code. The exposition format adds `_total`.
pub const GRPC_SERVER_HANDLED: &str = "grpc_server_handled";
/// Time from the head of a request to the end of its response, by service and method.
pub const GRPC_SERVER_HANDLING_SECONDS: &str = "grpc_server_handling_seconds";
/// 1, with the version of the program as label.
pub const BUILD_INFO: &str = "oxcart_build_info";
/// Passes of reconcilers, by name and outcome (`ok`, `error`, `panic`). The exposition format adds `_total`.
pub const RECONCILER_PASSES: &str = "oxcart_reconciler_passes";
/// How long the last pass took, by name.
pub const RECONCILER_LAST_DURATION_SECONDS: &str = "oxcart_reconciler_last_duration_seconds";
/// When the last pass succeeded, in Unix seconds, by name; 0 before the first.
pub const RECONCILER_LAST_SUCCESS_SECONDS: &str = "oxcart_reconciler_last_success_timestamp_seconds";

/// From 100 µs to 26 s, by factors of two: calls of every kind, long polls included.
const LATENCY_BUCKETS: [f64; 19] = [
    0.0001, 0.0002, 0.0004, 0.0008, 0.0016, 0.0032, 0.0064, 0.0128, 0.0256, 0.0512, 0.1024, 0.2048, 0.4096, 0.8192, 1.6384, 3.2768,
    6.5536, 13.1072, 26.2144,
];

/// From 1 ms to 4 h: what users wait for, and what their code takes.
const LONG_BUCKETS: [f64; 20] = [
    0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 7200.0, 14400.0,
];

/// How a pass of a reconciler ends.
const PASS_OUTCOMES: [&str; 3] = ["ok", "error", "panic"];

/// A histogram for the times of calls in seconds, from 100 µs to 26 s.
#[must_use]
pub fn latency_histogram() -> Histogram {
    Histogram::new(LATENCY_BUCKETS)
}

/// A histogram for the times of tasks in seconds, from 1 ms to 4 h.
#[must_use]
pub fn long_histogram() -> Histogram {
    Histogram::new(LONG_BUCKETS)
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    grpc_service: String,
    grpc_method: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HandledLabels {
    grpc_service: String,
    grpc_method: String,
    grpc_code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReconcilerLabels {
    name: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PassLabels {
    name: &'static str,
    outcome: &'static str,
}

/// The metrics of a process. Clones share everything.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    handled: Family<HandledLabels, Counter>,
    handling: Family<CallLabels, Histogram, fn() -> Histogram>,
    passes: Family<PassLabels, Counter>,
    last_duration: Family<ReconcilerLabels, Gauge<f64, std::sync::atomic::AtomicU64>>,
    last_success: Family<ReconcilerLabels, Gauge>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// With the metrics of the chassis and of the process registered.
    #[must_use]
    pub fn new() -> Self {
        let metrics = Self {
            registry: Arc::default(),
            handled: Family::default(),
            handling: Family::new_with_constructor(latency_histogram),
            passes: Family::default(),
            last_duration: Family::default(),
            last_success: Family::default(),
        };
        let build = Family::<BuildLabels, Gauge>::default();
        build.get_or_create(&BuildLabels { version: env!("CARGO_PKG_VERSION") }).set(1);
        metrics.register_with(|registry| {
            registry.register(BUILD_INFO, "Version of the program", build);
            registry.register(GRPC_SERVER_HANDLED, "Calls that ended", metrics.handled.clone());
            registry.register(GRPC_SERVER_HANDLING_SECONDS, "Time that calls took", metrics.handling.clone());
            registry.register(RECONCILER_PASSES, "Passes of reconcilers", metrics.passes.clone());
            registry.register(RECONCILER_LAST_DURATION_SECONDS, "Duration of the last pass", metrics.last_duration.clone());
            registry.register(RECONCILER_LAST_SUCCESS_SECONDS, "Time of the last good pass", metrics.last_success.clone());
            registry.register_collector(Box::new(process::ProcessCollector));
        });
        metrics
    }

    /// Registers metrics of a service under `oxcart_<service>_`.
    pub fn sub_registry(&self, service: &str, register: impl FnOnce(&mut Registry)) {
        self.register_with(|registry| register(registry.sub_registry_with_prefix(PREFIX).sub_registry_with_prefix(service)));
    }

    /// Registers metrics under their full names.
    pub fn register_with(&self, register: impl FnOnce(&mut Registry)) {
        register(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Everything in the OpenMetrics text format.
    ///
    /// # Errors
    /// When a metric cannot be written.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry.lock().unwrap_or_else(PoisonError::into_inner))?;
        Ok(text)
    }

    pub(crate) fn call_ended(&self, service: &str, method: &str, code: &'static str, took: Duration) {
        let (grpc_service, grpc_method) = (service.to_owned(), method.to_owned());
        let labels = CallLabels { grpc_service: grpc_service.clone(), grpc_method: grpc_method.clone() };
        self.handling.get_or_create(&labels).observe(took.as_secs_f64());
        self.handled.get_or_create(&HandledLabels { grpc_service, grpc_method, grpc_code: code }).inc();
    }

    /// Shows a reconciler before its first pass, so that one that never ends a pass is seen, too.
    pub(crate) fn reconciler_started(&self, name: &'static str) {
        for outcome in PASS_OUTCOMES {
            drop(self.passes.get_or_create(&PassLabels { name, outcome }));
        }
        drop(self.last_duration.get_or_create(&ReconcilerLabels { name }));
        drop(self.last_success.get_or_create(&ReconcilerLabels { name }));
    }

    pub(crate) fn pass_ended(&self, name: &'static str, outcome: &'static str, took: Duration, succeeded_at: Option<i64>) {
        self.passes.get_or_create(&PassLabels { name, outcome }).inc();
        self.last_duration.get_or_create(&ReconcilerLabels { name }).set(took.as_secs_f64());
        if let Some(at) = succeeded_at {
            self.last_success.get_or_create(&ReconcilerLabels { name }).set(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_printed() {
        let metrics = Metrics::new();
        metrics.call_ended("a.B", "C", "OK", Duration::from_millis(1));
        let counter: Counter = Counter::default();
        metrics.sub_registry("dispatcher", |registry| registry.register("grants", "Grants", counter.clone()));
        counter.inc();
        let text = metrics.encode().unwrap();
        assert!(text.contains("grpc_server_handled_total{grpc_service=\"a.B\",grpc_method=\"C\",grpc_code=\"OK\"} 1"), "{text}");
        assert!(text.contains("oxcart_dispatcher_grants_total 1"), "{text}");
        for name in [
            "process_resident_memory_bytes",
            "process_cpu_seconds_total",
            "process_open_fds",
            "process_max_fds",
            "process_start_time_seconds",
        ] {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in {text}"));
            assert!(line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() >= 0.0, "{line}");
        }
    }
}
