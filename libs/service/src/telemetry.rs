//! Logs and traces.

pub mod names;
mod panics;
pub mod propagation;

use std::io::{self, IsTerminal as _};

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{Sampler, SdkTracerProvider},
};
use serde::{Deserialize, Serialize};
use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, Layer, Registry, fmt::MakeWriter, layer::SubscriberExt as _, registry::LookupSpan, util::SubscriberInitExt as _,
};

pub use self::panics::log_panic;

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Pretty,
    /// For machines: one object a line.
    Json,
}

/// What is logged and where traces go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// Which events are logged, in the language of `RUST_LOG`, for example `info,oxcart_dispatcher=debug`.
    pub filter: String,
    /// How log lines look.
    pub format: LogFormat,
    /// Where spans are sent over OTLP gRPC, for example `http://localhost:4317`. Unset: nowhere.
    pub otlp_endpoint: Option<String>,
    /// Share of new traces that are recorded, 0 to 1. Traces begun by a caller follow its decision.
    pub sample_ratio: f64,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: LogFormat::Pretty, otlp_endpoint: None, sample_ratio: 1.0 }
    }
}

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter cannot be parsed.
    #[error("the log filter cannot be parsed")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The exporter cannot be built.
    #[error("the OTLP exporter cannot be built")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// Telemetry is set up already in this process.
    #[error("telemetry is set up already")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Sends what is left when dropped: keep it until the end of `main`.
#[derive(Debug)]
#[must_use = "spans that wait are lost unless the guard is kept until the end"]
pub struct TelemetryGuard {
    provider: Option<SdkTracerProvider>,
}

impl Drop for TelemetryGuard {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.provider.as_ref().map(SdkTracerProvider::shutdown) {
            tracing::warn!(%error, "spans were lost at the end");
        }
    }
}

/// Sets up logs on stderr and, if configured, the export of spans, for the whole process. Panics become log lines, with the ids of
/// the task whose handler panicked. Must be called within a runtime when spans are exported.
///
/// # Errors
/// When the configuration cannot be used, or telemetry is set up already.
pub fn init(config: &TelemetryConfig, service_name: &'static str) -> Result<TelemetryGuard, TelemetryError> {
    let (subscriber, guard) = subscriber(config, service_name, colours(), io::stderr)?;
    subscriber.try_init()?;
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !log_panic(panic) {
            before(panic);
        }
    }));
    Ok(guard)
}

/// What [`init`] sets up, with log lines going to `writer`. Must be called within a runtime when spans are exported.
///
/// # Errors
/// When the configuration cannot be used.
pub fn subscriber<W>(
    config: &TelemetryConfig,
    service_name: &'static str,
    colours: bool,
    writer: W,
) -> Result<(impl Subscriber + for<'span> LookupSpan<'span> + Send + Sync, TelemetryGuard), TelemetryError>
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(&config.filter)?;
    let lines = lines(config.format, colours, writer);
    let provider =
        config.otlp_endpoint.as_deref().map(|endpoint| provider(endpoint, config.sample_ratio, service_name)).transpose()?;
    let spans = provider.as_ref().map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer("oxcart")));
    // The filter is for both: what is not logged is not traced either, and costs nothing.
    Ok((Registry::default().with(spans).with(lines).with(filter), TelemetryGuard { provider }))
}

/// The layer that writes log lines. A JSON line has the fields of the event at its top, and those of the spans around it under
/// `span` (the innermost) and `spans` (all, outermost first): for what a handler logs, the span `run` with the ids of its task and
/// trace. `colours` are for terminals; JSON never has any.
pub fn lines<S, W>(format: LogFormat, colours: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_ansi(colours).with_writer(writer);
    match format {
        LogFormat::Pretty => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    }
}

/// Logs are coloured for people who look at them, unless they do not want it (<https://no-color.org>).
fn colours() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty())
}

/// Sends spans in batches from a thread of its own.
fn provider(endpoint: &str, sample_ratio: f64, service_name: &'static str) -> Result<SdkTracerProvider, TelemetryError> {
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).build()?;
    Ok(SdkTracerProvider::builder()
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(sample_ratio))))
        .with_resource(Resource::builder().with_service_name(service_name).build())
        .with_batch_exporter(exporter)
        .build())
}
