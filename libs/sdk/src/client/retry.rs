//! Repeating calls while the service is unavailable.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// When and how often a call is repeated. Only UNAVAILABLE is: anything else would give the same answer again, or is the
/// service asking for less.
#[derive(Debug, Clone)]
pub struct RetryOptions {
    /// Calls in all, the first included.
    pub tries: u32,
    /// Wait before the second try; doubled each time.
    pub first_backoff: Duration,
    /// Longest wait.
    pub max_backoff: Duration,
}

impl Default for RetryOptions {
    /// 4 tries, 100 ms to 2 s.
    fn default() -> Self {
        Self { tries: 4, first_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(2) }
    }
}

impl RetryOptions {
    /// Wait after `tries` calls, with `dice` in 0..1 taking up to half of it away; `None` when it was the last.
    fn backoff(&self, tries: u32, asked: Option<Duration>, dice: f64) -> Option<Duration> {
        if tries >= self.tries {
            return None;
        }
        let doubled = self.first_backoff.saturating_mul(2_u32.saturating_pow(tries.saturating_sub(1)));
        let backoff = doubled.max(asked.unwrap_or_default()).min(self.max_backoff);
        Some(backoff.mul_f64(1.0 - 0.5 * dice.clamp(0.0, 1.0)))
    }
}

/// Calls until there is an answer other than UNAVAILABLE, or the tries are used up.
pub(crate) async fn with_retries<R>(options: &RetryOptions, call: impl AsyncFn() -> Result<R, Status>) -> Result<R, Status> {
    let mut tries = 0;
    loop {
        let status = match call().await {
            Err(status) if status.code() == Code::Unavailable => status,
            other => return other,
        };
        tries += 1;
        let asked = status.get_details_retry_info().and_then(|info| info.retry_delay);
        match options.backoff(tries, asked, rand::random()) {
            Some(backoff) => tokio::time::sleep(backoff).await,
            None => return Err(status),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn backoff_doubles_to_its_cap() {
        let options = RetryOptions { tries: 7, ..RetryOptions::default() };
        let waits: Vec<_> = (1..=7).map(|n| options.backoff(n, None, 0.0).map(|d| d.as_millis())).collect();
        assert_eq!(waits, [Some(100), Some(200), Some(400), Some(800), Some(1600), Some(2000), None]);
        assert_eq!(options.backoff(1, None, 1.0), Some(Duration::from_millis(50)));
        assert_eq!(options.backoff(1, Some(Duration::from_secs(1)), 0.0), Some(Duration::from_secs(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn only_unavailable_is_repeated() {
        let calls = AtomicU32::new(0);
        let count = async |status: Status| -> Result<(), Status> {
            calls.fetch_add(1, Ordering::Relaxed);
            Err(status)
        };
        let options = RetryOptions::default();
        with_retries(&options, async || count(Status::unavailable("down")).await).await.expect_err("still down");
        assert_eq!(calls.swap(0, Ordering::Relaxed), 4);
        with_retries(&options, async || count(Status::not_found("gone")).await).await.expect_err("not there");
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    }
}
