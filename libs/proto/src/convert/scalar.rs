//! Ids, times and numbers.

use std::time::Duration;

use oxcart_types::{LeaseToken, Run, Timestamp, violation::Invalid};

/// Reads a duration that may not be negative.
///
/// # Errors
/// Negative, or nanoseconds out of range or of the other sign.
pub fn duration(value: prost_types::Duration) -> Result<Duration, Invalid> {
    // prost normalizes silently when it converts; a malformed value is a caller's mistake and is told.
    if !(-999_999_999..=999_999_999).contains(&value.nanos) || (value.seconds > 0 && value.nanos < 0) {
        return Err(Invalid::value(format!("has {} s and {} ns, which is no duration", value.seconds, value.nanos)));
    }
    match (u64::try_from(value.seconds), u32::try_from(value.nanos)) {
        (Ok(seconds), Ok(nanos)) => Ok(Duration::new(seconds, nanos)),
        _ => Err(Invalid::value(format!("is negative ({} s, {} ns)", value.seconds, value.nanos))),
    }
}

/// Reads a duration of at most `max`.
///
/// # Errors
/// As [`duration`], or above the limit.
pub fn duration_up_to(value: prost_types::Duration, max: Duration) -> Result<Duration, Invalid> {
    let read = duration(value)?;
    if read > max { Err(Invalid::value(format!("is {read:?}; at most {max:?} are allowed"))) } else { Ok(read) }
}

/// Reads an optional duration on an internal path, where a malformed one means none.
#[must_use]
pub fn duration_or_zero(value: Option<prost_types::Duration>) -> Duration {
    value.and_then(|value| duration(value).ok()).unwrap_or_default()
}

/// Writes a duration; one beyond the contract's range is cut to it.
#[must_use]
pub fn to_duration(value: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(value.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(value.subsec_nanos()).unwrap_or_default(),
    }
}

/// Reads an instant between the years 1 and 9999, cut to microseconds.
///
/// # Errors
/// Out of range.
pub fn timestamp(value: prost_types::Timestamp) -> Result<Timestamp, Invalid> {
    let read = u32::try_from(value.nanos).ok().and_then(|nanos| Timestamp::from_timestamp(value.seconds, nanos));
    match read {
        Some(time) if (-62_135_596_800..253_402_300_800).contains(&value.seconds) && value.nanos < 1_000_000_000 => {
            Ok(oxcart_types::clock::to_micros(time))
        }
        _ => Err(Invalid::value(format!(
            "has {} s and {} ns, which is no instant between the years 1 and 9999",
            value.seconds, value.nanos
        ))),
    }
}

/// Writes an instant.
#[must_use]
pub fn to_timestamp(value: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: value.timestamp(), nanos: i32::try_from(value.timestamp_subsec_nanos()).unwrap_or_default() }
}

/// Reads the number of a run.
///
/// # Errors
/// Below 1.
pub fn run(number: i32) -> Result<Run, Invalid> {
    u32::try_from(number).ok().and_then(Run::new).ok_or_else(|| Invalid::value(format!("is {number}; runs count from 1")))
}

/// Writes the number of a run.
#[must_use]
pub fn to_run(run: Run) -> i32 {
    to_count(run.get())
}

/// Writes a small count; one beyond the contract's range is cut to it.
#[must_use]
pub fn to_count(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// Reads a small count.
///
/// # Errors
/// Negative.
pub fn count(count: i32) -> Result<u32, Invalid> {
    u32::try_from(count).map_err(|_| Invalid::value(format!("is {count}; it cannot be negative")))
}

/// Reads a lease token.
///
/// # Errors
/// Not 16 bytes.
pub fn lease_token(bytes: &[u8]) -> Result<LeaseToken, Invalid> {
    LeaseToken::try_from(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn malformed_times_are_refused() {
        for (seconds, nanos) in [(-1, 0), (0, -1), (1, -1), (0, 1_000_000_000), (0, i32::MIN)] {
            assert!(duration(prost_types::Duration { seconds, nanos }).is_err(), "{seconds} {nanos}");
        }
        for (seconds, nanos) in [(i64::MAX, 0), (253_402_300_800, 0), (-62_135_596_801, 0), (0, -1), (0, 1_000_000_000)] {
            assert!(timestamp(prost_types::Timestamp { seconds, nanos }).is_err(), "{seconds} {nanos}");
        }
    }

    proptest! {
        #[test]
        fn no_value_panics_and_good_ones_read_back(seconds: i64, nanos: i32) {
            if let Ok(read) = duration(prost_types::Duration { seconds, nanos }) {
                prop_assert_eq!(to_duration(read), prost_types::Duration { seconds, nanos });
            }
            if let Ok(read) = timestamp(prost_types::Timestamp { seconds, nanos }) {
                prop_assert_eq!(to_timestamp(read).seconds, seconds);
            }
        }
    }
}
