//! `sleep`: waits, reports progress, and stops when asked to.

use std::time::Duration;

use oxcart_sdk::{TaskContext, TaskResult};
use serde::Deserialize;
use tokio::time::Instant;

/// Progress is reported this often.
const STEP: Duration = Duration::from_secs(1);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Input {
    /// Milliseconds to wait.
    ms: u64,
}

/// Returns the milliseconds that it waited.
pub(super) async fn run(ctx: TaskContext, input: Input) -> TaskResult<u64> {
    let (start, total) = (Instant::now(), Duration::from_millis(input.ms));
    let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    loop {
        let left = total.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Ok(input.ms);
        }
        ctx.or_cancelled(tokio::time::sleep(left.min(STEP))).await?;
        ctx.progress(millis(start.elapsed().min(total)), millis(total), "sleeping");
    }
}

#[cfg(test)]
mod tests {
    use oxcart_sdk::{StopReason, TaskError};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_waits_and_reports() {
        let (ctx, detached) = TaskContext::detached();
        assert_eq!(run(ctx, Input { ms: 2500 }).await, Ok(2500));
        assert_eq!(detached.progress(), Some((2500, 2500, "sleeping".to_owned())));
    }

    #[tokio::test(start_paused = true)]
    async fn it_stops_when_asked() {
        let (ctx, detached) = TaskContext::detached();
        detached.stop(StopReason::Shutdown);
        assert_eq!(run(ctx, Input { ms: 60_000 }).await, Err(TaskError::cancelled()));
    }
}
