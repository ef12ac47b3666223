//! Connections that have not begun to speak do not hold up a shutdown.
//!
//! HTTP/2 closes a connection in order once its client has said hello. A client that connected and says nothing (one that opens
//! connections ahead of its first call, a probe of a load balancer, a port scan) would keep the server waiting for that hello
//! until the time for draining is over.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::{Connected, TcpConnectInfo};

/// Length of the client's hello: `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n`.
const PREFACE_BYTES: usize = 24;

/// A connection that ends with the shutdown as long as its client has not said hello.
pub(super) struct Opening {
    stream: TcpStream,
    /// Bytes of the hello that are missing.
    missing: usize,
    /// `None` once the hello was said: then HTTP/2 closes in order.
    closing: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl Opening {
    pub(super) fn new(stream: TcpStream, closing: &CancellationToken) -> Self {
        Self { stream, missing: PREFACE_BYTES, closing: Some(Box::pin(closing.clone().cancelled_owned())) }
    }
}

impl Connected for Opening {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Opening {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let Some(closing) = &mut self.closing else { return read };
        if read.is_pending() {
            // Nothing read and no error: the end of the stream.
            return closing.as_mut().poll(context).map(Ok);
        }
        self.missing = self.missing.saturating_sub(buffer.filled().len() - before);
        if self.missing == 0 {
            self.closing = None;
        }
        read
    }
}

impl AsyncWrite for Opening {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
