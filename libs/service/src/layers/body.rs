//! A call ends when its body does.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;
use tonic::{Code, Status, body::Body};
use tracing::Span;

use super::UNKNOWN;
use crate::metrics::Metrics;

/// A call under way. Dropped before its end it counts as cancelled.
#[derive(Debug)]
pub(super) struct Call {
    metrics: Metrics,
    service: String,
    method: String,
    span: Span,
    begun: Instant,
    ended: bool,
}

impl Call {
    pub(super) fn begin(metrics: Metrics, service: &str, method: &str, span: Span) -> Self {
        Self { metrics, service: service.to_owned(), method: method.to_owned(), span, begun: Instant::now(), ended: false }
    }

    pub(super) fn method_is_unknown(&mut self) {
        UNKNOWN.clone_into(&mut self.method);
    }

    pub(super) fn end(&mut self, code: Code) {
        if !std::mem::replace(&mut self.ended, true) {
            self.span.record("rpc.grpc.status_code", code as i32);
            self.metrics.call_ended(&self.service, &self.method, name(code), self.begun.elapsed());
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

/// Reads the status of a call from the trailers of its body.
#[derive(Debug)]
pub(super) struct ObservedBody {
    inner: Body,
    call: Call,
}

impl ObservedBody {
    pub(super) const fn new(inner: Body, call: Call) -> Self {
        Self { inner, call }
    }
}

impl HttpBody for ObservedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        // The work of a stream happens here, so its events belong to the call.
        let frame = this.call.span.in_scope(|| Pin::new(&mut this.inner).poll_frame(context));
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(status) = frame.trailers_ref().and_then(Status::from_header_map) {
                    this.call.end(status.code());
                }
            }
            Poll::Ready(Some(Err(status))) => this.call.end(status.code()),
            Poll::Ready(None) => this.call.end(Code::Unknown),
            Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// As the specification of gRPC writes it.
const fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
