//! A clock for measuring, which goes on while the machine sleeps.
//!
//! `std::time::Instant` stops in a suspend: a worker that was suspended for an hour would take its claims for fresh. So ages
//! of claims and leases are read from `CLOCK_BOOTTIME`.

use std::{ops::Add, time::Duration};

/// A point on the clock, comparable within this boot of the machine only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(Duration);

impl Moment {
    /// Now.
    pub(crate) fn now() -> Self {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Self(Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default()))
    }

    /// How long ago it was; zero when it lies ahead.
    pub(crate) fn elapsed(self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }

    /// How far ahead it lies; zero when it is past.
    pub(crate) fn remaining(self) -> Duration {
        self.0.saturating_sub(Self::now().0)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_forward() {
        let start = Moment::now();
        let later = start + Duration::from_secs(60);
        assert!(Moment::now() >= start);
        assert_eq!(later.elapsed(), Duration::ZERO);
        assert!(later.remaining() > Duration::from_secs(50));
        assert_eq!(start.remaining(), Duration::ZERO);
    }
}
