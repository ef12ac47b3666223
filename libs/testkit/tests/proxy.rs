//! The proxy does to bytes what it says, and nothing else.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "what fails here fails a test")]

use std::time::Duration;

use oxcart_testkit::{Conditions, FaultProxy, Flow, wait_for};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

const SOON: Duration = Duration::from_secs(20);
/// Long enough that nothing arrives while a test looks.
const LATE: Duration = Duration::from_secs(3600);
/// How long a test looks for what must not come.
const LOOK: Duration = Duration::from_millis(100);
const SEED: u64 = 7;

/// A server that gives back what it hears, in front of which there is a proxy.
async fn echo() -> FaultProxy {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ended = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    FaultProxy::start(address, SEED).await.unwrap()
}

async fn connect(proxy: &FaultProxy) -> TcpStream {
    TcpStream::connect(proxy.address()).await.unwrap()
}

async fn read(stream: &mut TcpStream, bytes: usize) -> Vec<u8> {
    let mut read = vec![0; bytes];
    tokio::time::timeout(SOON, stream.read_exact(&mut read)).await.expect("bytes in time").expect("an open connection");
    read
}

async fn is_silent(stream: &mut TcpStream) -> bool {
    tokio::time::timeout(LOOK, stream.read_u8()).await.is_err()
}

/// Proves that the connection works.
async fn greet(stream: &mut TcpStream) {
    stream.write_all(b"hello").await.unwrap();
    assert_eq!(read(stream, 5).await, b"hello");
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| (n % 251) as u8).collect()
}

/// Sends much while reading it back, since neither side buffers all of it.
async fn exchange(stream: TcpStream, sent: Vec<u8>) -> Vec<u8> {
    let (mut from, mut to) = stream.into_split();
    let length = sent.len();
    let writing = tokio::spawn(async move {
        to.write_all(&sent).await.unwrap();
        to
    });
    let mut received = vec![0; length];
    tokio::time::timeout(SOON, from.read_exact(&mut received)).await.expect("all in time").expect("an open connection");
    writing.await.unwrap();
    received
}

#[tokio::test]
async fn passes_everything_and_the_end() {
    let proxy = echo().await;
    let mut stream = connect(&proxy).await;
    greet(&mut stream).await;
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    tokio::time::timeout(SOON, stream.read_to_end(&mut rest)).await.expect("the end").unwrap();
    assert!(rest.is_empty());
    let sent = pattern(3_000_000);
    assert_eq!(exchange(connect(&proxy).await, sent.clone()).await, sent);
    assert_eq!(proxy.accepted(), 2);
}

#[tokio::test]
async fn a_black_hole_keeps_what_it_took_until_it_heals() {
    let proxy = echo().await;
    let mut stream = connect(&proxy).await;
    greet(&mut stream).await;
    proxy.set(Conditions::BLACK_HOLE);
    stream.write_all(b"later").await.unwrap();
    assert!(is_silent(&mut stream).await);
    proxy.heal();
    assert_eq!(read(&mut stream, 5).await, b"later");
}

#[tokio::test]
async fn each_direction_is_cut_by_itself() {
    // A server that speaks first tells the directions apart: it does not wait to hear anything.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = FaultProxy::start(listener.local_addr().unwrap(), SEED).await.unwrap();
    let mut client = connect(&proxy).await;
    let (mut server, _) = listener.accept().await.unwrap();

    proxy.set(Conditions::DEAF);
    client.write_all(b"up").await.unwrap();
    server.write_all(b"down").await.unwrap();
    assert_eq!(read(&mut client, 4).await, b"down");
    assert!(is_silent(&mut server).await);

    proxy.set(Conditions::MUTE);
    server.write_all(b"more").await.unwrap();
    assert_eq!(read(&mut server, 2).await, b"up");
    assert!(is_silent(&mut client).await);
    proxy.heal();
    assert_eq!(read(&mut client, 4).await, b"more");
}

#[tokio::test]
async fn who_is_refused_is_reset() {
    let proxy = echo().await;
    let mut open = connect(&proxy).await;
    greet(&mut open).await;
    proxy.set(Conditions::REFUSE);
    let ended = tokio::time::timeout(SOON, open.read_u8()).await.expect("the end");
    assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    let mut refused = connect(&proxy).await;
    assert!(tokio::time::timeout(SOON, refused.read_u8()).await.expect("the end").is_err());
    proxy.heal();
    greet(&mut connect(&proxy).await).await;
}

#[tokio::test]
async fn a_reset_ends_what_is_open_and_nothing_else() {
    let proxy = echo().await;
    let mut open = connect(&proxy).await;
    greet(&mut open).await;
    proxy.reset();
    let ended = tokio::time::timeout(SOON, open.read_u8()).await.expect("the end");
    assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    let mut next = connect(&proxy).await;
    greet(&mut next).await;
    proxy.reset();
    assert!(tokio::time::timeout(SOON, next.read_u8()).await.expect("the end").is_err());
}

#[tokio::test]
async fn delayed_bytes_are_overtaken_and_keep_their_order() {
    let (slow, fast) = (echo().await, echo().await);
    let (mut late, mut prompt) = (connect(&slow).await, connect(&fast).await);
    greet(&mut late).await;
    slow.set(Conditions::slow(LATE, LATE));
    late.write_all(b"first").await.unwrap();
    greet(&mut prompt).await;
    assert!(is_silent(&mut late).await);
    slow.heal();
    assert_eq!(read(&mut late, 5).await, b"first");

    slow.set(Conditions::slow(Duration::from_millis(1), Duration::from_millis(3)));
    let sent = pattern(500_000);
    assert_eq!(exchange(late, sent.clone()).await, sent);
}

#[tokio::test]
async fn a_rate_lets_some_pass() {
    let proxy = echo().await;
    let mut stream = connect(&proxy).await;
    greet(&mut stream).await;
    let one_a_second = Flow { bytes_per_second: std::num::NonZeroU32::new(1), ..Flow::PASS };
    proxy.set(Conditions { down: one_a_second, ..Conditions::PASS });
    let sent = pattern(10_000);
    stream.write_all(&sent).await.unwrap();
    // A byte passes at once, and the rest would take hours.
    assert_eq!(read(&mut stream, 1).await, sent[..1]);
    assert!(is_silent(&mut stream).await);
    proxy.heal();
    assert_eq!(read(&mut stream, 9_999).await, sent[1..]);
}

#[tokio::test]
async fn a_lost_reply_is_lost_after_its_request_arrived() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = FaultProxy::start(listener.local_addr().unwrap(), SEED).await.unwrap();
    proxy.set(Conditions::lose_replies(1));
    let mut client = connect(&proxy).await;
    let (mut server, _) = listener.accept().await.unwrap();
    client.write_all(b"do it").await.unwrap();
    assert_eq!(read(&mut server, 5).await, b"do it");
    server.write_all(b"done").await.unwrap();
    let heard = tokio::time::timeout(SOON, client.read_u8()).await.expect("the end");
    assert_eq!(heard.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert!(tokio::time::timeout(SOON, server.read_u8()).await.expect("the end").is_err());
}

#[tokio::test]
async fn a_failover_moves_clients_to_the_other_server() {
    let (proxy, other) = (echo().await, TcpListener::bind("127.0.0.1:0").await.unwrap());
    let mut open = connect(&proxy).await;
    greet(&mut open).await;
    proxy.redirect(other.local_addr().unwrap());
    assert!(tokio::time::timeout(SOON, open.read_u8()).await.expect("the end").is_err());
    let mut moved = connect(&proxy).await;
    let (mut server, _) = other.accept().await.unwrap();
    server.write_all(b"moved").await.unwrap();
    assert_eq!(read(&mut moved, 5).await, b"moved");
}

#[tokio::test]
async fn without_a_server_connections_end() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let proxy = FaultProxy::start(gone, SEED).await.unwrap();
    let mut stream = connect(&proxy).await;
    assert!(tokio::time::timeout(SOON, stream.read_u8()).await.expect("the end").is_err());
}

#[tokio::test]
async fn connections_end_with_the_proxy() {
    let proxy = echo().await;
    let address = proxy.address();
    let mut stream = connect(&proxy).await;
    greet(&mut stream).await;
    drop(proxy);
    assert!(tokio::time::timeout(SOON, stream.read_u8()).await.expect("the end").is_err());
    wait_for("the port to close", SOON, || async { TcpStream::connect(address).await.is_err().then_some(()) }).await.unwrap();
}
