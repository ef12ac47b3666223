//! Makes due entries ready and takes back expired leases: one reconciler for the normal path and for recovery.

use std::time::Duration;

use oxcart_queue::{TickLimits, Ticked};
use oxcart_service::reconcile::Progress;
use tokio::time::Instant;

use super::Lane;
use crate::core::Core;

/// Shortest pause between two passes.
const MIN_PAUSE: Duration = Duration::from_millis(1);

/// One pass.
pub(super) async fn pass(core: &Core, lane: &Lane) -> Progress {
    let limits = limits(core.may_reap());
    let began = Instant::now();
    let result = core.engine.tick(&lane.partition, limits).await;
    core.observe("tick", 1, began, &result);
    let Ok(ticked) = result else { return Progress::Idle };
    core.metrics.ticked(&ticked);
    if ticked.promoted + ticked.reaped > 0 {
        lane.wake.notify_one();
    }
    Progress::Until(pause(&ticked, limits.reap > 0, core.config.tick_period))
}

fn limits(may_reap: bool) -> TickLimits {
    let limits = TickLimits::default();
    if may_reap { limits } else { TickLimits { reap: 0, ..limits } }
}

/// Until the next thing is due, at most a period. Leases that may not be taken back now are no reason to hurry.
fn pause(ticked: &Ticked, reaping: bool, period: Duration) -> Duration {
    let expiry = ticked.next_expiry.filter(|_| reaping);
    ticked.next_due.into_iter().chain(expiry).min().map_or(period, |next| next.clamp(MIN_PAUSE, period))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_pass_comes_when_something_is_due() {
        let period = Duration::from_secs(1);
        let ms = |n| Some(Duration::from_millis(n));
        let ticked = |next_due, next_expiry| Ticked { next_due, next_expiry, ..Ticked::default() };
        assert_eq!(pause(&ticked(None, None), true, period), period);
        assert_eq!(pause(&ticked(ms(40), ms(20)), true, period), Duration::from_millis(20));
        assert_eq!(pause(&ticked(ms(40), ms(0)), false, period), Duration::from_millis(40));
        assert_eq!(pause(&ticked(ms(0), None), true, period), MIN_PAUSE);
        assert_eq!(limits(false).reap, 0);
    }
}
