//! Waiting for conditions, never for time.

use std::{net::TcpListener, time::Duration};

use anyhow::{Context as _, Result, bail};
use tokio::time::Instant;

/// Pause between two looks: short against what tests wait for, long against the cost of a look.
const POLL_PERIOD: Duration = Duration::from_millis(10);

/// Asks `look` until it answers `Some`.
///
/// # Errors
/// When `timeout` passes first; the message names `what` was waited for.
pub async fn wait_for<T, F, Fut>(what: &str, timeout: Duration, mut look: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + timeout;
    loop {
        // A look that hangs must not outlive the deadline.
        match tokio::time::timeout_at(deadline, look()).await {
            Ok(Some(found)) => return Ok(found),
            Ok(None) if Instant::now() < deadline => tokio::time::sleep(POLL_PERIOD).await,
            Ok(None) | Err(_) => bail!("waited {timeout:?} in vain for {what}"),
        }
    }
}

/// A TCP port on the loopback address that nobody used a moment ago. Another process may take it before the caller does: whoever
/// can, binds port 0 instead.
///
/// # Errors
/// When no port can be bound.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("no free port")?;
    Ok(listener.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn finds_what_appears_later() {
        let mut looks = 0;
        let found = wait_for("the third look", Duration::from_secs(1), || {
            looks += 1;
            let seen = looks;
            async move { (seen == 3).then_some(seen) }
        });
        assert_eq!(found.await.unwrap(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn says_what_did_not_come() {
        let error = wait_for("godot", Duration::from_millis(50), || async { None::<()> }).await.unwrap_err();
        assert!(error.to_string().contains("godot"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_hangs_is_given_up() {
        let error = wait_for("a reply", Duration::from_millis(50), std::future::pending::<Option<()>>).await.unwrap_err();
        assert!(error.to_string().contains("a reply"), "{error}");
    }
}
