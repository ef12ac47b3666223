//! Refuses a Redis that throws entries away when its memory is full.

use deadpool_redis::redis::{RedisResult, Value, aio::MultiplexedConnection, cmd, from_redis_value};

use super::connection::Connections;
use crate::engine::QueueError;

const SAFE: &str = "noeviction";

/// # Errors
/// [`QueueError::Unsafe`]: the eviction policy is not `noeviction`, or cannot be learnt.
pub(super) async fn check_eviction(connections: &Connections) -> Result<(), QueueError> {
    let policy = connections.call(eviction_policy).await?;
    match policy.as_deref() {
        Some(SAFE) => Ok(()),
        Some(other) => Err(QueueError::Unsafe(format!(
            "maxmemory-policy is {other}: entries may vanish; set it to {SAFE}, or allow eviction explicitly"
        ))),
        None => Err(QueueError::Unsafe(
            "maxmemory-policy cannot be read: allow CONFIG GET or INFO, or allow eviction explicitly".to_owned(),
        )),
    }
}

async fn eviction_policy(mut connection: MultiplexedConnection) -> RedisResult<Option<String>> {
    let config: RedisResult<Value> = cmd("CONFIG").arg("GET").arg("maxmemory-policy").query_async(&mut connection).await;
    match config {
        Ok(pair) => {
            let pair: Vec<String> = from_redis_value(pair)?;
            Ok(pair.into_iter().nth(1))
        }
        // Managed services and tight ACLs (NOPERM, unknown command) hide CONFIG; INFO often remains.
        Err(error) if error.code().is_some() => {
            let info: RedisResult<String> = cmd("INFO").arg("memory").query_async(&mut connection).await;
            match info {
                Ok(info) => {
                    Ok(info.lines().find_map(|line| line.strip_prefix("maxmemory_policy:")).map(|policy| policy.trim().to_owned()))
                }
                Err(error) if error.code().is_some() => Ok(None),
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(error),
    }
}
