//! Waiting for conditions, never for time.

use std::{net::TcpListener, time::Duration};

use anyhow::{Context as _, Result, bail};
use rand::Rng as _;
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

/// Ports for servers: below those that systems give to outgoing connections, one of which would else take the port of a server
/// that is down for a moment.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// A TCP port on the loopback address that nobody used a moment ago. Another process may take it before the caller does: whoever
/// can, binds port 0 instead.
///
/// # Errors
/// When no port can be bound.
pub fn free_port() -> Result<u16> {
    // At a random place, so that tests that run beside each other look elsewhere.
    let tries = (0..1000).map(|_| rand::rng().random_range(PORTS));
    let mut free = tries.filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.next().context("no free port")
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

    #[test]
    fn ports_are_free_and_none_of_outgoing_connections() {
        let port = free_port().unwrap();
        assert!(PORTS.contains(&port));
        let taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
        assert!((0..100).all(|_| free_port().unwrap() != taken.local_addr().unwrap().port()));
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
