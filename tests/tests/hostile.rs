//! Clients that mean harm, or are broken: each gets the answer that the contract has for it, takes a bounded part of the process,
//! and gives it back when it goes; meanwhile the service goes on serving others.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use oxcart_proto::pb::{
    common::v1::{TaskState, Window, WorkerInfo},
    dispatcher::v1::{
        LeaseReport, OpenSessionRequest, SessionOpen, open_session_request::Message, session_service_client::SessionServiceClient,
    },
    monitor::v1::{WatchEventsRequest, monitor_service_client::MonitorServiceClient},
    submission::v1::{
        GetTaskRequest, StreamSubmitTasksRequest, SubmitTaskRequest, submission_service_client::SubmissionServiceClient,
    },
};
use oxcart_testkit::wait_for;
use oxcart_tests::{
    client::{PATIENCE, spec},
    dev::Dev,
    h2::{Connection, END_STREAM, kind, message},
};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Status,
    codec::CompressionEncoding,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;

const MIB: u64 = 1 << 20;
const SUBMIT: &str = "/oxcart.submission.v1.SubmissionService/SubmitTask";
const STREAM: &str = "/oxcart.submission.v1.SubmissionService/StreamSubmitTasks";
const SESSION: &str = "/oxcart.dispatcher.v1.SessionService/OpenSession";
/// What a service may keep of a connection that is gone: allocators give back late.
const SLACK_BYTES: u64 = 64 * MIB;

/// A task of somebody else is done as ever.
async fn assert_serves(dev: &Dev) -> Result<()> {
    let clients = dev.clients()?;
    let id = clients.submit(spec("echo", "1")).await?;
    let task = clients.wait(&id).await?;
    ensure!(task.state() == TaskState::Succeeded, "{task:?}");
    Ok(())
}

/// Descriptors are back where they were.
async fn assert_gives_back(dev: &Dev, before: usize) -> Result<()> {
    let room = before + 4;
    let back = || async { dev.descriptors().ok().filter(|now| *now <= room) };
    wait_for("the connections to be closed", PATIENCE, back).await?;
    Ok(())
}

async fn channel(dev: &Dev) -> Result<Channel> {
    Ok(Endpoint::from_shared(format!("http://{}", dev.address()))?.connect().await?)
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

async fn closed(connection: &mut Connection) -> Result<()> {
    tokio::time::timeout(PATIENCE, connection.read_to_end()).await.context("the connection stays open")?.ok();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_http2_is_closed() -> Result<()> {
    let dev = Dev::start("").await?;
    assert_serves(&dev).await?;
    let before = dev.descriptors()?;
    let preface = oxcart_tests::h2::PREFACE;
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let begun = |rest: &[u8]| [preface, &settings[..], rest].concat();
    let garbage: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        vec![0xff; 5000],
        // A frame longer than was agreed.
        begun(&[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]),
        // A head that cannot be unpacked.
        begun(&[0, 0, 3, 1, 4, 0, 0, 0, 1, 0xff, 0xff, 0xff]),
        // A body without a head.
        begun(&[0, 0, 1, 0, 0, 0, 0, 0, 1, 0]),
        // Settings of a wrong length.
        begun(&[0, 0, 1, 4, 0, 0, 0, 0, 0, 9]),
        // More window than there can be.
        begun(&[0, 0, 4, 8, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 4, 8, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff]),
    ];
    for bytes in garbage {
        let mut connection = Connection::silent(dev.address()).await?;
        // The server may have closed before all is written.
        let _ = connection.write(&bytes).await;
        closed(&mut connection).await.with_context(|| format!("{:?}", &bytes[..bytes.len().min(40)]))?;
    }
    assert_serves(&dev).await?;
    assert_gives_back(&dev, before).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_or_packed_is_refused_and_the_connection_lives() -> Result<()> {
    let dev = Dev::start("").await?;
    let channel = channel(&dev).await?;
    let mut client = SubmissionServiceClient::new(channel.clone());
    let request = |json: String| SubmitTaskRequest { task: Some(spec("echo", &json)), ..Default::default() };
    let large = client.submit_task(request(format!("\"{}\"", "a".repeat(5 << 20)))).await.err().context("5 MiB")?;
    ensure!(large.code() == Code::OutOfRange && reason(&large) == "MESSAGE_TOO_LARGE", "{large:?}");
    // Nothing is unpacked, so nothing can burst.
    let mut packing = SubmissionServiceClient::new(channel).send_compressed(CompressionEncoding::Gzip);
    let bomb = packing.submit_task(request(format!("\"{}\"", "a".repeat(100 << 20)))).await.err().context("a bomb")?;
    ensure!(bomb.code() == Code::Unimplemented && !reason(&bomb).is_empty(), "{bomb:?}");
    ensure!(dev.resident_bytes()? < 512 * MIB, "{} bytes", dev.resident_bytes()?);
    let answer = client.submit_task(request("1".to_owned())).await?.into_inner();
    ensure!(answer.result.is_some(), "the connection serves on");
    assert_serves(&dev).await
}

/// Connections that say nothing, or begin and stop; calls that announce the largest message and send none of it.
#[tokio::test(flavor = "multi_thread")]
async fn what_stays_half_open_takes_little_and_gives_it_back() -> Result<()> {
    let dev = Dev::start("").await?;
    assert_serves(&dev).await?;
    let (descriptors, bytes) = (dev.descriptors()?, dev.resident_bytes()?);
    let mut open = Vec::new();
    for number in 0..300 {
        let mut connection = Connection::silent(dev.address()).await?;
        if number % 3 == 1 {
            connection.write(&oxcart_tests::h2::PREFACE[..10]).await?;
        } else if number % 3 == 2 {
            connection = Connection::open(dev.address(), 65_535).await?;
        }
        open.push(connection);
    }
    let mut connection = Connection::open(dev.address(), 65_535).await?;
    for call in 0..200 {
        let stream = 2 * call + 1;
        connection.call(stream, if call % 2 == 0 { SUBMIT } else { SESSION }).await?;
        if call % 4 < 2 {
            connection.data(stream, 0, &message(4 << 20, b"a")).await?;
        }
    }
    open.push(connection);
    assert_serves(&dev).await?;
    let taken = dev.resident_bytes()?.saturating_sub(bytes);
    ensure!(taken < SLACK_BYTES, "{taken} bytes");
    drop(open);
    assert_gives_back(&dev, descriptors).await?;
    assert_serves(&dev).await
}

/// A request of which a byte comes at a time is answered like any other.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_call_is_served_and_holds_nobody_up() -> Result<()> {
    let dev = Dev::start("").await?;
    let bytes = SubmitTaskRequest { task: Some(spec("echo", "1")), ..Default::default() }.encode_to_vec();
    let mut connection = Connection::open(dev.address(), 65_535).await?;
    connection.call(1, SUBMIT).await?;
    for byte in message(u32::try_from(bytes.len())?, &bytes) {
        connection.data(1, 0, &[byte]).await?;
        if byte == 0 {
            assert_serves(&dev).await?;
        }
    }
    connection.data(1, END_STREAM, &[]).await?;
    let answered = async {
        while let Some(frame) = connection.read().await? {
            if frame.stream == 1 && frame.kind == kind::DATA {
                return Ok(frame.payload.len());
            }
        }
        anyhow::bail!("closed without an answer")
    };
    let length = tokio::time::timeout(PATIENCE, answered).await.context("no answer")??;
    ensure!(length > 36, "an answer with the id of the task");
    Ok(())
}

/// Calls that are given up as soon as they are made, and questions whose answers nobody reads.
#[tokio::test(flavor = "multi_thread")]
async fn floods_of_frames_end_or_are_swallowed() -> Result<()> {
    let dev = Dev::start("").await?;
    assert_serves(&dev).await?;
    let (descriptors, bytes) = (dev.descriptors()?, dev.resident_bytes()?);
    let flood = async |what: u8| -> Result<()> {
        let mut connection = Connection::open(dev.address(), 65_535).await?;
        for number in 0..20_000_u32 {
            let sent = async {
                match what {
                    0 => {
                        connection.call(2 * number + 1, SUBMIT).await?;
                        connection.frame(kind::RST_STREAM, 0, 2 * number + 1, &8_u32.to_be_bytes()).await
                    }
                    1 => connection.frame(kind::PING, 0, 0, &[0; 8]).await,
                    _ => connection.frame(kind::SETTINGS, 0, 0, &[]).await,
                }
            };
            // A server that ends the connection, or reads no further, has had enough.
            match tokio::time::timeout(Duration::from_secs(2), sent).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => break,
            }
        }
        assert_serves(&dev).await
    };
    for what in 0..3 {
        flood(what).await.with_context(|| format!("flood {what}"))?;
    }
    let taken = dev.resident_bytes()?.saturating_sub(bytes);
    ensure!(taken < SLACK_BYTES, "{taken} bytes");
    assert_gives_back(&dev, descriptors).await
}

fn opening(worker: u8) -> OpenSessionRequest {
    let info = WorkerInfo { worker_id: format!("0190f3c5-7b1e-7cc3-98c4-dc0c0c0739{worker:02x}"), ..Default::default() };
    let window = Window { sequence: 1, ..Default::default() };
    let open = SessionOpen { protocol_version: 1, worker: Some(info), window: Some(window), held: Vec::new() };
    OpenSessionRequest { message: Some(Message::Open(open)) }
}

/// One session more than there may be is refused; when one goes there is room again.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_sessions_is_refused() -> Result<()> {
    // One is the worker's own.
    let dev = Dev::start("[dispatcher]\nmax_sessions = 4\n").await?;
    assert_serves(&dev).await?;
    let channel = channel(&dev).await?;
    let mut client = SessionServiceClient::new(channel);
    let mut sessions = Vec::new();
    for worker in 0..3 {
        let (sender, receiver) = mpsc::channel(1);
        sender.send(opening(worker)).await?;
        let answers = client.open_session(ReceiverStream::new(receiver)).await?.into_inner();
        sessions.push((sender, answers));
    }
    for worker in 3..50 {
        let refused = client.open_session(tokio_stream::iter([opening(worker)])).await.err().context("a fifth session")?;
        ensure!(refused.code() == Code::ResourceExhausted && reason(&refused) == "TOO_MANY_SESSIONS", "{refused:?}");
        ensure!(refused.get_details_retry_info().is_some(), "says when to try again: {refused:?}");
    }
    assert_serves(&dev).await?;
    drop(sessions);
    let again = || {
        let mut client = client.clone();
        async move { client.open_session(tokio_stream::iter([opening(60)])).await.ok().map(drop) }
    };
    wait_for("room for a session", PATIENCE, again).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_watchers_is_refused() -> Result<()> {
    let dev = Dev::start("[monitor]\nmax_watchers = 3\n").await?;
    let mut client = MonitorServiceClient::new(channel(&dev).await?);
    let mut watchers = Vec::new();
    for _ in 0..3 {
        watchers.push(client.watch_events(WatchEventsRequest::default()).await?);
    }
    for _ in 0..50 {
        let refused = client.watch_events(WatchEventsRequest::default()).await.err().context("a fourth watcher")?;
        ensure!(refused.code() == Code::ResourceExhausted && reason(&refused) == "TOO_MANY_WATCHERS", "{refused:?}");
        ensure!(refused.get_details_retry_info().is_some(), "says when to try again: {refused:?}");
    }
    assert_serves(&dev).await?;
    drop(watchers);
    let again = || {
        let mut client = client.clone();
        async move { client.watch_events(WatchEventsRequest::default()).await.ok().map(drop) }
    };
    wait_for("room for a watcher", PATIENCE, again).await?;
    Ok(())
}

/// A session that asks and never reads is ended; the place that it had is free again.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_never_reads_is_ended() -> Result<()> {
    let config = "[dispatcher]\nmax_sessions = 2\nsession_timeout = \"1s\"\nheartbeat_interval = \"200ms\"\n";
    let dev = Dev::start(config).await?;
    assert_serves(&dev).await?;
    let bytes = dev.resident_bytes()?;
    // No window: the server can send nothing of a body.
    let mut connection = Connection::open(dev.address(), 0).await?;
    connection.call(1, SESSION).await?;
    let send = |request: OpenSessionRequest| {
        let bytes = request.encode_to_vec();
        message(u32::try_from(bytes.len()).unwrap_or(u32::MAX), &bytes)
    };
    connection.data(1, 0, &send(opening(1))).await?;
    let report = LeaseReport { sequence: 1, ..Default::default() };
    let heartbeat = send(OpenSessionRequest { message: Some(Message::Heartbeat(report)) });
    let asked = async {
        // Each is answered, and nobody takes the answers: the server stops reading, or ends the stream.
        for _ in 0..2000 {
            connection.data(1, 0, &heartbeat).await?;
        }
        std::io::Result::Ok(())
    };
    let _ = tokio::time::timeout(Duration::from_secs(10), asked).await;
    let mut client = SessionServiceClient::new(channel(&dev).await?);
    let again = || {
        let mut client = client.clone();
        async move { client.open_session(tokio_stream::iter([opening(2)])).await.ok().map(drop) }
    };
    wait_for("the place of the session", PATIENCE, again).await?;
    client.open_session(tokio_stream::iter([opening(3)])).await.map(drop).or_else(|refused| match refused.code() {
        // The one before may not be gone yet.
        Code::ResourceExhausted => Ok(()),
        _ => Err(refused),
    })?;
    let taken = dev.resident_bytes()?.saturating_sub(bytes);
    ensure!(taken < SLACK_BYTES, "{taken} bytes");
    assert_serves(&dev).await
}

/// A stream that submits and never reads its answers is no longer read itself: what is taken in unanswered is bounded.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_tasks_that_never_reads_is_held_back() -> Result<()> {
    let dev = Dev::start("").await?;
    assert_serves(&dev).await?;
    let (descriptors, bytes) = (dev.descriptors()?, dev.resident_bytes()?);
    let mut connection = Connection::open(dev.address(), 0).await?;
    connection.call(1, STREAM).await?;
    let payload = format!("\"{}\"", "a".repeat(8000));
    let mut written = 0;
    let submit = async {
        for sequence in 1..100_000 {
            let batch = StreamSubmitTasksRequest { sequence, tasks: vec![spec("echo", &payload)], ..Default::default() };
            let bytes = batch.encode_to_vec();
            let bytes = message(u32::try_from(bytes.len()).unwrap_or(u32::MAX), &bytes);
            // Within the window that every server grants at the beginning, a well-behaved client would wait.
            connection.data(1, 0, &bytes).await?;
            written = sequence;
        }
        std::io::Result::Ok(())
    };
    // Either the transport stops taking, or the server ends a connection that sends beyond its window.
    let _ = tokio::time::timeout(Duration::from_secs(20), submit).await;
    ensure!(written < 20_000, "{written} batches were taken");
    let taken = dev.resident_bytes()?.saturating_sub(bytes);
    ensure!(taken < SLACK_BYTES, "{taken} bytes");
    assert_serves(&dev).await?;
    drop(connection);
    assert_gives_back(&dev, descriptors).await?;
    ensure!(dev.clients()?.submission.get_task(GetTaskRequest::default()).await.is_err(), "still refuses");
    Ok(())
}
