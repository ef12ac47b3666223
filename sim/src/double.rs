//! Unary calls that arrive twice, the second time perhaps much later: what a sender that repeats itself, or a proxy, may do.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use crate::shared::{Shared, pass};

/// Doubles calls of a server now and then.
#[derive(Clone)]
pub struct Doubling(pub(crate) Arc<Shared>);

impl<S> Layer<S> for Doubling {
    type Service = Doubled<S>;

    fn layer(&self, inner: S) -> Doubled<S> {
        Doubled { inner, shared: Arc::clone(&self.0) }
    }
}

/// See [`Doubling`].
#[derive(Clone)]
pub struct Doubled<S> {
    inner: S,
    shared: Arc<Shared>,
}

/// Streams, and calls that wait: those go through as they are.
fn is_unary(path: &str) -> bool {
    !["Stream", "Session", "Watch", "Poll", "Wait"].iter().any(|part| path.contains(part))
}

impl<S> Service<Request<Body>> for Doubled<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let spare = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, spare);
        let doubled = self.shared.faults().rates.doubled;
        if !is_unary(request.uri().path().rsplit('/').next().unwrap_or_default()) || !self.shared.rng().chance(doubled) {
            return Box::pin(inner.call(request));
        }
        let (later, mut again) = (self.shared.rng().varied(0, &[10, 1000, 20_000]), inner.clone());
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let Ok(body) = body.collect().await else { return Ok(Status::unavailable("the call broke off").into_http()) };
            let body = body.to_bytes();
            let copy = Request::from_parts(parts.clone(), Body::new(Full::new(body.clone())));
            tokio::spawn(async move {
                pass(later).await;
                // The sender has its answer from the first.
                let _ = again.call(copy).await;
            });
            inner.call(Request::from_parts(parts, Body::new(Full::new(body)))).await
        })
    }
}
