//! Announcements between engines on one Redis.
//!
//! A script that made something ready or wrote to the journal publishes the name of its partition. Each engine hears the
//! others through one subscription and its own calls directly, by their replies.

use std::{collections::HashSet, time::Duration};

use deadpool_redis::redis::{Client, Msg, RedisResult};
use futures_util::{StreamExt as _, stream::Stream};
use tokio::sync::broadcast;

use super::keys;
use crate::engine::Partition;

/// Messages taken at once; several for one partition become one announcement.
const TAKEN_AT_ONCE: usize = 256;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Listens until it is aborted; connects again when the connection breaks.
pub(super) async fn listen(client: Client, channel: String, me: String, wakeups: broadcast::Sender<Partition>) {
    let mut pause = FIRST_PAUSE;
    loop {
        match subscribe(&client, &channel).await {
            Ok(messages) => {
                pause = FIRST_PAUSE;
                forward(messages, &me, &wakeups).await;
                tracing::warn!("the subscription to wake-ups ended; connecting again");
            }
            Err(error) => tracing::warn!(%error, "cannot subscribe to wake-ups; trying again"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn subscribe(client: &Client, channel: &str) -> RedisResult<impl Stream<Item = Msg>> {
    let mut pubsub = client.get_async_pubsub().await?;
    pubsub.subscribe(channel).await?;
    Ok(pubsub.into_on_message())
}

async fn forward(messages: impl Stream<Item = Msg>, me: &str, wakeups: &broadcast::Sender<Partition>) {
    let mut chunks = std::pin::pin!(messages.ready_chunks(TAKEN_AT_ONCE));
    while let Some(chunk) = chunks.next().await {
        let partitions: HashSet<Partition> = chunk.iter().filter_map(|message| parse(message.get_payload_bytes(), me)).collect();
        for partition in partitions {
            // Fails only when nobody listens.
            let _ = wakeups.send(partition);
        }
    }
}

/// The partition that a message names; `None` when I sent it, or when it is not one of ours.
fn parse(message: &[u8], me: &str) -> Option<Partition> {
    let (sender, name) = std::str::from_utf8(message).ok()?.split_once(' ')?;
    if sender == me { None } else { keys::parse(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_and_foreign_messages_are_ignored() {
        assert!(parse(b"them mail:0", "me").is_some());
        for ignored in [&b"me mail:0"[..], b"mail:0", b"them", b"them Mail", b"\xff \xff"] {
            assert_eq!(parse(ignored, "me"), None);
        }
    }
}
