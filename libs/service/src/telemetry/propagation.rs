//! W3C trace context: from a span into maps and metadata, and back.
//!
//! A context is passed on also where no spans are exported: a service in the middle must not cut a trace that its neighbours
//! record.

use std::collections::BTreeMap;

use opentelemetry::{
    Context, SpanId, TraceId,
    propagation::{Extractor, Injector, TextMapPropagator as _},
    trace::{SpanContext, TraceContextExt as _},
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
/// What must be passed on of a trace state, as W3C has it; a longer one is dropped, since it would be stored with each task.
const MAX_TRACESTATE_BYTES: usize = 512;

/// A place in a trace, for spans that begin elsewhere or later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext(SpanContext);

impl TraceContext {
    /// That of a span; none when its trace is not exported from here.
    #[must_use]
    pub fn of(span: &Span) -> Option<Self> {
        Self::of_context(&span.context())
    }

    /// That of a call which is being served: of its span, or what the caller sent.
    #[must_use]
    pub fn of_call(metadata: &MetadataMap) -> Option<Self> {
        Self::of(&Span::current()).or_else(|| Self::read(&MetadataReader(metadata)))
    }

    /// What a map holds; none when it holds nothing valid.
    #[must_use]
    pub fn from_map(map: &BTreeMap<String, String>) -> Option<Self> {
        Self::read(&MapReader(map))
    }

    /// Writes it into a map; a state of an earlier context goes.
    pub fn write(&self, map: &mut BTreeMap<String, String>) {
        map.remove(TRACESTATE);
        TraceContextPropagator::new().inject_context(&self.to_context(), &mut MapCarrier(map));
        if map.get(TRACESTATE).is_some_and(|state| state.len() > MAX_TRACESTATE_BYTES) {
            map.remove(TRACESTATE);
        }
    }

    /// Makes it the parent of a span that has not been entered.
    pub fn continue_in(&self, span: &Span) {
        adopt(span, self.to_context());
    }

    /// Says that a span of another trace has to do with this place.
    pub fn link_from(&self, span: &Span) {
        span.add_link(self.0.clone());
    }

    /// The trace.
    #[must_use]
    pub fn trace_id(&self) -> TraceId {
        self.0.trace_id()
    }

    /// The span.
    #[must_use]
    pub fn span_id(&self) -> SpanId {
        self.0.span_id()
    }

    /// Whether its trace is recorded.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.0.is_sampled()
    }

    fn read(from: &dyn Extractor) -> Option<Self> {
        Self::of_context(&TraceContextPropagator::new().extract_with_context(&Context::new(), from))
    }

    fn of_context(context: &Context) -> Option<Self> {
        let found = context.span().span_context().clone();
        found.is_valid().then_some(Self(found))
    }

    fn to_context(&self) -> Context {
        Context::new().with_remote_span_context(self.0.clone())
    }
}

/// Writes the context of the current span into a map, such as the metadata of a task.
pub fn inject_map(map: &mut BTreeMap<String, String>) {
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut MapCarrier(map));
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

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_context_is_passed_on_where_nothing_is_exported() {
        let mut metadata = MetadataMap::new();
        metadata.insert(TRACEPARENT, PARENT.parse().unwrap());
        metadata.insert(TRACESTATE, "vendor=1".parse().unwrap());
        let context = TraceContext::of_call(&metadata).unwrap();
        let mut written = map(&[("user", "u")]);
        context.write(&mut written);
        assert_eq!(written, map(&[("user", "u"), (TRACEPARENT, PARENT), (TRACESTATE, "vendor=1")]));
        assert_eq!(TraceContext::from_map(&written), Some(context));
    }

    #[test]
    fn what_is_no_context_is_none() {
        for bad in [
            "",
            "00-1",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(TraceContext::from_map(&map(&[(TRACEPARENT, bad)])), None, "{bad}");
        }
        assert_eq!(TraceContext::of_call(&MetadataMap::new()), None);
    }

    #[test]
    fn a_state_that_is_too_long_is_dropped() {
        let context =
            TraceContext::from_map(&map(&[(TRACEPARENT, PARENT), (TRACESTATE, &format!("v={}", "x".repeat(600)))])).unwrap();
        let mut written = BTreeMap::new();
        context.write(&mut written);
        assert_eq!(written, map(&[(TRACEPARENT, PARENT)]));
    }
}
