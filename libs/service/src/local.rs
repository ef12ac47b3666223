//! Services in one process reach each other through their contracts, without a port.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    sync::mpsc,
};
use tokio_stream::Stream;
use tonic::transport::{Channel, Endpoint, Uri, server::Connected};
use tower::service_fn;

/// Bytes that may be under way in one direction. Two messages at the HTTP/2 window fit.
const BUFFER_BYTES: usize = 256 * 1024;
/// Connections that may wait to be accepted: each component opens a few.
const BACKLOG: usize = 64;

/// The two ends of a transport within the process.
#[must_use]
pub fn transport() -> (LocalConnector, LocalIncoming) {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    (LocalConnector { sender }, LocalIncoming { receiver })
}

/// Opens connections to a server in this process.
#[derive(Debug, Clone)]
pub struct LocalConnector {
    sender: mpsc::Sender<LocalStream>,
}

impl LocalConnector {
    /// A channel that connects when it is first used, and again after the server went away.
    #[must_use]
    pub fn channel(&self) -> Channel {
        let sender = Arc::new(self.sender.clone());
        // The address is never resolved; it becomes the `:authority` of requests.
        Endpoint::from_static("http://localhost").connect_with_connector_lazy(service_fn(move |_: Uri| {
            let sender = Arc::clone(&sender);
            async move {
                let (near, far) = tokio::io::duplex(BUFFER_BYTES);
                sender.send(LocalStream(far)).await.map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
                Ok::<_, io::Error>(TokioIo::new(near))
            }
        }))
    }
}

/// Connections opened by [`LocalConnector`], for [`crate::Server::with_local`].
#[derive(Debug)]
pub struct LocalIncoming {
    receiver: mpsc::Receiver<LocalStream>,
}

impl Stream for LocalIncoming {
    type Item = io::Result<LocalStream>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.receiver.poll_recv(context).map(|stream| stream.map(Ok))
    }
}

/// A connection within the process, as its server sees it.
#[derive(Debug)]
pub struct LocalStream(DuplexStream);

/// Marks a request that came from within the process: found in its extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalPeer;

impl Connected for LocalStream {
    type ConnectInfo = LocalPeer;

    fn connect_info(&self) -> Self::ConnectInfo {
        LocalPeer
    }
}

impl AsyncRead for LocalStream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for LocalStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
