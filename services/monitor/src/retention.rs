//! Retention: what ended long ago is dropped from SQL, all that belongs to a task together.
//!
//! A walk goes over the ids of old tasks from the first, in steps that are one transaction each; ids keep the order of time, so
//! that only what is old is looked at. What is still open is met again by the next walk. Two replicas at it do no harm.

use std::time::Duration;

use oxcart_service::reconcile::Progress;
use oxcart_store::model::RetentionStep;
use oxcart_types::{TaskId, Timestamp};

use crate::{config::RetentionConfig, error::MonitorError, registry::earlier, service::Core};

/// What retention remembers between steps.
#[derive(Debug, Default)]
pub(crate) struct Retention {
    walk: Option<Walk>,
}

/// A walk under way.
#[derive(Debug, Clone, Copy)]
struct Walk {
    next: RetentionStep,
    dropped: usize,
}

impl Retention {
    /// Takes a step; the first one begins a walk.
    pub(crate) async fn pass(&mut self, core: &Core) -> Result<Progress, MonitorError> {
        let config = &core.config.retention;
        let mut walk = match self.walk {
            Some(walk) => walk,
            None => match first_step(config, core.clock.now()) {
                Some(next) => Walk { next, dropped: 0 },
                None => return Ok(Progress::Idle),
            },
        };
        let dropped = core.store.drop_finished(walk.next).await?;
        core.metrics.dropped_tasks.inc_by(dropped.tasks as u64);
        walk.dropped += dropped.tasks;
        walk.next.after = dropped.next_after;
        if dropped.next_after.is_some() {
            self.walk = Some(walk);
            return Ok(Progress::Until(config.step_period));
        }
        self.walk = None;
        if walk.dropped > 0 {
            tracing::info!(tasks = walk.dropped, "dropped tasks that ended long ago");
        }
        Ok(Progress::Idle)
    }
}

/// Where a walk begins, and what it drops; `None` when everything is kept.
fn first_step(config: &RetentionConfig, now: Timestamp) -> Option<RetentionStep> {
    let before = |age: Duration| if age.is_zero() { None } else { earlier(now, age) };
    let (succeeded_before, others_before) = (before(config.succeeded_age), before(config.other_age));
    // A task cannot have ended before its submission.
    let newest = succeeded_before.max(others_before)?;
    let limit = config.step_tasks.max(1);
    Some(RetentionStep { after: None, below: TaskId::lowest_at(newest), succeeded_before, others_before, limit })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_of_zero_keep_everything() {
        let now = Timestamp::from_timestamp(1_800_000_000, 0).expect("a time");
        let day = Duration::from_secs(24 * 3600);
        let step =
            |succeeded_age, other_age| first_step(&RetentionConfig { succeeded_age, other_age, ..RetentionConfig::default() }, now);
        assert_eq!(step(Duration::ZERO, Duration::ZERO), None);
        let some = step(Duration::ZERO, day).expect("a walk");
        assert_eq!((some.succeeded_before, some.others_before), (None, Some(now - day)));
        assert_eq!(some.below, TaskId::lowest_at(now - day));
        let both = step(day, 3 * day).expect("a walk");
        assert_eq!(both.below, TaskId::lowest_at(now - day), "as far as the shorter age goes");
    }
}
