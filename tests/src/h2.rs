//! A client that speaks HTTP/2 frame by frame, so that it can do what no library would.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// What every connection begins with.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Kinds of frames.
pub mod kind {
    /// Bytes of a body.
    pub const DATA: u8 = 0;
    /// Head of a request or an answer, or what follows a body.
    pub const HEADERS: u8 = 1;
    /// The end of a stream before its time.
    pub const RST_STREAM: u8 = 3;
    /// Settings of the connection.
    pub const SETTINGS: u8 = 4;
    /// A question that must be answered.
    pub const PING: u8 = 6;
    /// The end of the connection.
    pub const GOAWAY: u8 = 7;
}

/// The sender ends its side of a stream.
pub const END_STREAM: u8 = 1;
/// The head is complete.
const END_HEADERS: u8 = 4;

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// See [`kind`].
    pub kind: u8,
    /// Flags.
    pub flags: u8,
    /// Stream; 0 for the connection.
    pub stream: u32,
    /// The rest.
    pub payload: Vec<u8>,
}

/// A connection.
#[derive(Debug)]
pub struct Connection {
    io: TcpStream,
}

impl Connection {
    /// Connects and says nothing.
    pub async fn silent(address: SocketAddr) -> io::Result<Self> {
        let io = TcpStream::connect(address).await?;
        io.set_nodelay(true)?;
        Ok(Self { io })
    }

    /// Connects with a window for what the server may send on a stream before it is asked for more.
    pub async fn open(address: SocketAddr, window: u32) -> io::Result<Self> {
        let mut connection = Self::silent(address).await?;
        connection.write(PREFACE).await?;
        let mut settings = vec![0, 4];
        settings.extend(window.to_be_bytes());
        connection.frame(kind::SETTINGS, 0, 0, &settings).await?;
        Ok(connection)
    }

    /// Sends bytes as they are.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.io.write_all(bytes).await
    }

    /// Sends a frame.
    pub async fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?.to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], kind, flags];
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        self.write(&bytes).await
    }

    /// Begins a gRPC call.
    pub async fn call(&mut self, stream: u32, path: &str) -> io::Result<()> {
        self.frame(kind::HEADERS, END_HEADERS, stream, &head(path)).await
    }

    /// Sends bytes of a body.
    pub async fn data(&mut self, stream: u32, flags: u8, bytes: &[u8]) -> io::Result<()> {
        self.frame(kind::DATA, flags, stream, bytes).await
    }

    /// Reads a frame; `None` when the server has closed the connection.
    pub async fn read(&mut self) -> io::Result<Option<Frame>> {
        let mut head = [0; 9];
        match self.io.read_exact(&mut head).await {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => return Ok(None),
            Err(error) => return Err(error),
        }
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.io.read_exact(&mut payload).await?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Ok(Some(Frame { kind: head[3], flags: head[4], stream, payload }))
    }

    /// Reads frames until the server closes the connection; the last one.
    pub async fn read_to_end(&mut self) -> io::Result<Option<Frame>> {
        let mut last = None;
        while let Some(frame) = self.read().await? {
            last = Some(frame);
        }
        Ok(last)
    }
}

/// A gRPC message with its prefix, which may announce another length than there is.
#[must_use]
pub fn message(announced: u32, bytes: &[u8]) -> Vec<u8> {
    let mut message = vec![0];
    message.extend(announced.to_be_bytes());
    message.extend(bytes);
    message
}

/// The head of a gRPC call: literals that nobody need remember (RFC 7541, 6.2.2).
fn head(path: &str) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            // Shorter than 127 bytes: one byte says the length.
            block.push(u8::try_from(text.len()).unwrap_or(126).min(126));
            block.extend(text.bytes().take(126));
        }
    }
    block
}
