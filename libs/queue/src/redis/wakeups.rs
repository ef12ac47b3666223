//! Announcements between engines on one Redis.
//!
//! A script that made something ready or wrote to the journal publishes the name of its partition. Each engine hears the
//! others through one subscription and its own calls directly, by their replies.

use std::{collections::HashMap, time::Duration};

use deadpool_redis::redis::{
    Client, Msg, RedisResult,
    aio::{PubSubSink, PubSubStream},
};
use futures_util::StreamExt as _;
use tokio::{sync::broadcast, time::timeout};

use super::keys;
use crate::engine::{Partition, Wakeup};

/// Messages taken at once; several for one partition become one announcement.
const TAKEN_AT_ONCE: usize = 256;
const PATIENCE: Patience = Patience { quiet: Duration::from_secs(5), answer: Duration::from_secs(5) };
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How long a subscription may say nothing.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// After so much silence the server is asked whether it is still there: a connection can die without a word.
    quiet: Duration,
    /// It must answer within this.
    answer: Duration,
}

/// Listens until it is aborted; connects again when the connection breaks.
pub(super) async fn listen(client: Client, channel: String, me: String, wakeups: broadcast::Sender<Wakeup>) {
    let mut pause = FIRST_PAUSE;
    loop {
        match timeout(PATIENCE.answer, subscribe(&client, &channel)).await {
            Ok(Ok((sink, messages))) => {
                pause = FIRST_PAUSE;
                forward(sink, messages, PATIENCE, &me, &wakeups).await;
                tracing::warn!("the subscription to wake-ups ended; connecting again");
            }
            Ok(Err(error)) => tracing::warn!(%error, "cannot subscribe to wake-ups; trying again"),
            Err(_) => tracing::warn!("no answer to a subscription to wake-ups; trying again"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn subscribe(client: &Client, channel: &str) -> RedisResult<(PubSubSink, PubSubStream)> {
    let mut pubsub = client.get_async_pubsub().await?;
    pubsub.subscribe(channel).await?;
    Ok(pubsub.split())
}

/// Passes announcements on until the connection ends or no longer answers.
async fn forward(mut sink: PubSubSink, messages: PubSubStream, patience: Patience, me: &str, wakeups: &broadcast::Sender<Wakeup>) {
    let mut chunks = messages.ready_chunks(TAKEN_AT_ONCE);
    loop {
        match timeout(patience.quiet, chunks.next()).await {
            Ok(Some(chunk)) => announce(&chunk, me, wakeups),
            Ok(None) => return,
            Err(_) => match timeout(patience.answer, sink.ping::<()>()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return,
            },
        }
    }
}

fn announce(messages: &[Msg], me: &str, wakeups: &broadcast::Sender<Wakeup>) {
    let mut news: HashMap<Partition, bool> = HashMap::new();
    for Wakeup { partition, ready } in messages.iter().filter_map(|message| parse(message.get_payload_bytes(), me)) {
        *news.entry(partition).or_default() |= ready;
    }
    for (partition, ready) in news {
        // Fails only when nobody listens.
        let _ = wakeups.send(Wakeup { partition, ready });
    }
}

/// What a message announces: sender, `ready` or `news`, partition. `None` when I sent it, or when it is not one of ours.
fn parse(message: &[u8], me: &str) -> Option<Wakeup> {
    let (sender, rest) = std::str::from_utf8(message).ok()?.split_once(' ')?;
    let (what, name) = rest.split_once(' ')?;
    let ready = match what {
        "ready" => true,
        "news" => false,
        _ => return None,
    };
    if sender == me { None } else { keys::parse(name).map(|partition| Wakeup { partition, ready }) }
}

#[cfg(test)]
mod tests {
    use oxcart_testkit::RedisServer;

    use super::*;

    async fn subscribed(server: &RedisServer) -> (PubSubSink, PubSubStream) {
        subscribe(&Client::open(server.url()).unwrap(), "channel").await.unwrap()
    }

    async fn pings(server: &RedisServer) -> u64 {
        let count = "return tonumber(string.match(redis.call('INFO','commandstats'),'cmdstat_ping:calls=(%d+)') or 0)";
        server.command(&format!("EVAL \"{count}\" 0")).await.unwrap().parse().unwrap()
    }

    #[tokio::test]
    async fn a_quiet_subscription_stays_while_the_server_answers() {
        let server = RedisServer::start(Default::default()).await.unwrap();
        let (sink, messages) = subscribed(&server).await;
        let (wakeups, mut heard) = broadcast::channel(8);
        let patience = Patience { quiet: Duration::from_millis(1), answer: Duration::from_secs(20) };
        let before = pings(&server).await;
        let asked_often = async { while pings(&server).await < before + 5 {} };
        tokio::select! {
            () = forward(sink, messages, patience, "me", &wakeups) => panic!("gave up"),
            heard = async {
                asked_often.await;
                server.command("PUBLISH channel \"them ready mail:0\"").await.unwrap();
                heard.recv().await
            } => assert_eq!(heard.unwrap().partition.number, 0),
        }
    }

    #[tokio::test]
    async fn a_subscription_to_a_server_that_hangs_ends() {
        let server = RedisServer::start(Default::default()).await.unwrap();
        let (sink, messages) = subscribed(&server).await;
        let (wakeups, _) = broadcast::channel(8);
        server.process().pause().unwrap();
        let patience = Patience { quiet: Duration::from_millis(1), answer: Duration::from_millis(50) };
        let ends = forward(sink, messages, patience, "me", &wakeups);
        timeout(Duration::from_secs(20), ends).await.expect("it gives up");
    }

    #[test]
    fn own_and_foreign_messages_are_ignored() {
        let ready = |message: &[u8]| parse(message, "me").map(|wakeup| wakeup.ready);
        assert_eq!((ready(b"them ready mail:0"), ready(b"them news mail:0")), (Some(true), Some(false)));
        for ignored in [&b"me ready mail:0"[..], b"them mail:0", b"them other mail:0", b"them", b"them news Mail", b"\xff \xff"] {
            assert_eq!(parse(ignored, "me"), None);
        }
    }
}
