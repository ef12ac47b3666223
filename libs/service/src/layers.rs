//! What happens around every call: a span that continues the caller's trace, metrics, panics turned into errors, and details on
//! statuses that the library made.

mod body;
mod whole;

use std::{
    collections::HashSet,
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::{FutureExt as _, future::BoxFuture};
use http::{Request, Response};
use tonic::{Code, Status, body::Body, metadata::MetadataMap};
use tower::{Layer, Service};
use tracing::{Instrument as _, field::Empty};

use crate::{metrics::Metrics, status, telemetry::propagation};
use body::{Call, ObservedBody};
use whole::WholeMessages;

/// Label of what callers make up: labels must not grow with outside input.
const UNKNOWN: &str = "unknown";

/// Wraps every call of a server.
#[derive(Debug, Clone)]
pub(crate) struct CallLayer {
    metrics: Metrics,
    services: Arc<HashSet<String>>,
}

impl CallLayer {
    /// `services` are the full names of those that are served.
    pub(crate) fn new(metrics: Metrics, services: HashSet<String>) -> Self {
        Self { metrics, services: Arc::new(services) }
    }
}

impl<S> Layer<S> for CallLayer {
    type Service = CallService<S>;

    fn layer(&self, inner: S) -> CallService<S> {
        CallService { inner, layer: self.clone() }
    }
}

/// See [`CallLayer`].
#[derive(Debug, Clone)]
pub(crate) struct CallService<S> {
    inner: S,
    layer: CallLayer,
}

impl<S> Service<Request<Body>> for CallService<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (service, method) = split(request.uri().path());
        let (service, method) = if self.layer.services.contains(service) { (service, method) } else { (UNKNOWN, UNKNOWN) };
        let span = tracing::info_span!(
            "call",
            otel.name = %format_args!("{service}/{method}"),
            otel.kind = "server",
            rpc.system = "grpc",
            rpc.service = service,
            rpc.method = method,
            rpc.grpc.status_code = Empty,
        );
        if !span.is_disabled() {
            propagation::continue_from_metadata(&span, &MetadataMap::from_headers(request.headers().clone()));
        }
        let mut call = Call::begin(self.layer.metrics.clone(), service, method, span.clone());
        let request = request.map(|body| Body::new(WholeMessages::new(body)));
        let answer = AssertUnwindSafe(self.inner.call(request)).catch_unwind();
        let observed = async move {
            let response = match answer.await {
                Ok(Ok(response)) => response,
                Err(_) => status::internal(&HandlerPanicked).into_http(),
            };
            let Some(status) = Status::from_header_map(response.headers()) else {
                return Ok(response.map(|body| Body::new(ObservedBody::new(body, call))));
            };
            // A status in the head is the whole answer.
            if status.code() == Code::Unimplemented {
                call.method_is_unknown();
            }
            call.end(status.code());
            Ok(if status.code() != Code::Ok && status.details().is_empty() {
                status::explained(status).into_http()
            } else {
                response
            })
        };
        Box::pin(observed.instrument(span))
    }
}

#[derive(Debug, thiserror::Error)]
#[error("a handler panicked")]
struct HandlerPanicked;

/// `/service/method`.
fn split(path: &str) -> (&str, &str) {
    path.strip_prefix('/').and_then(|path| path.split_once('/')).unwrap_or((UNKNOWN, UNKNOWN))
}
