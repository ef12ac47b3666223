//! W3C trace context: from a span into maps and metadata, and back.

use std::collections::BTreeMap;

use opentelemetry::{
    Context,
    propagation::{Extractor, Injector, TextMapPropagator as _},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tonic::{
    Request, Status,
    metadata::{KeyRef, MetadataKey, MetadataMap},
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// Key of the trace and span ids.
pub const TRACEPARENT: &str = "traceparent";
/// Key of what vendors add.
pub const TRACESTATE: &str = "tracestate";

/// Writes the context of the current span into a map, such as the metadata of a task.
pub fn inject_map(map: &mut BTreeMap<String, String>) {
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut MapCarrier(map));
}

/// Makes the context in `map` the parent of `span`. Without a valid one the span begins a trace of its own.
pub fn continue_from_map(span: &Span, map: &BTreeMap<String, String>) {
    adopt(span, TraceContextPropagator::new().extract_with_context(&Context::new(), &MapReader(map)));
}

/// Writes the context of the current span into the metadata of a call.
pub fn inject_metadata(metadata: &mut MetadataMap) {
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut MetadataCarrier(metadata));
}

/// Makes the context in the metadata of a call the parent of `span`.
pub fn continue_from_metadata(span: &Span, metadata: &MetadataMap) {
    adopt(span, TraceContextPropagator::new().extract_with_context(&Context::new(), &MetadataReader(metadata)));
}

/// The interceptor of clients: calls carry the current span's context.
///
/// # Errors
/// Never; interceptors are fallible.
pub fn interceptor(mut request: Request<()>) -> Result<Request<()>, Status> {
    inject_metadata(request.metadata_mut());
    Ok(request)
}

fn adopt(span: &Span, context: Context) {
    use opentelemetry::trace::TraceContextExt as _;
    if context.span().span_context().is_valid() {
        // Refused where no exporter is set up: then there is no trace to continue.
        let _ = span.set_parent(context);
    }
}

struct MapCarrier<'a>(&'a mut BTreeMap<String, String>);

impl Injector for MapCarrier<'_> {
    fn set(&mut self, key: &str, value: String) {
        // An empty trace state says nothing.
        if !value.is_empty() {
            self.0.insert(key.to_owned(), value);
        }
    }
}

struct MapReader<'a>(&'a BTreeMap<String, String>);

impl Extractor for MapReader<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }
}

struct MetadataCarrier<'a>(&'a mut MetadataMap);

impl Injector for MetadataCarrier<'_> {
    fn set(&mut self, key: &str, value: String) {
        if value.is_empty() {
            return;
        }
        if let (Ok(key), Ok(value)) = (MetadataKey::from_bytes(key.as_bytes()), value.parse()) {
            self.0.insert(key, value);
        }
    }
}

struct MetadataReader<'a>(&'a MetadataMap);

impl Extractor for MetadataReader<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0
            .keys()
            .filter_map(|key| match key {
                KeyRef::Ascii(key) => Some(key.as_str()),
                KeyRef::Binary(_) => None,
            })
            .collect()
    }
}
