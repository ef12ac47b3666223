//! Column types, and the checks of values on their way in and out.

use std::time::Duration;

use chrono::{NaiveDateTime, TimeZone as _, Utc};
use diesel::{
    backend::Backend,
    deserialize::{self, FromSql, FromSqlRow},
    expression::AsExpression,
    serialize::{self, Output, ToSql},
    sql_types::Binary,
};
use oxcart_types::{
    CancelRuleId, HandoffId, LeaseToken, OperationId, RequestId, Run, TaskId, Timestamp, WorkerId, clock::to_micros,
};

use crate::StoreError;

/// Ids and tokens: 16 bytes, in the order of the id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, AsExpression, FromSqlRow)]
#[diesel(sql_type = Binary)]
pub(crate) struct Id16(pub(crate) [u8; 16]);

impl<DB: Backend> ToSql<Binary, DB> for Id16
where
    [u8]: ToSql<Binary, DB>,
{
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, DB>) -> serialize::Result {
        self.0.as_slice().to_sql(out)
    }
}

impl<DB: Backend> FromSql<Binary, DB> for Id16
where
    Vec<u8>: FromSql<Binary, DB>,
{
    fn from_sql(bytes: DB::RawValue<'_>) -> deserialize::Result<Self> {
        let bytes = Vec::<u8>::from_sql(bytes)?;
        Ok(Self(bytes.as_slice().try_into().map_err(|_| format!("an id of {} bytes", bytes.len()))?))
    }
}

macro_rules! id16 {
    ($($id:ty),*) => {
        $(
            impl From<$id> for Id16 {
                fn from(id: $id) -> Self {
                    Self(*id.as_bytes())
                }
            }

            impl From<Id16> for $id {
                fn from(id: Id16) -> Self {
                    Self::from_bytes(id.0)
                }
            }
        )*
    };
}
id16!(TaskId, WorkerId, HandoffId, LeaseToken, OperationId, CancelRuleId, RequestId);

/// A value does not fit into its column. Steps insert with "ignore", which would cut such a value without a word, so each is
/// checked before it is sent.
#[derive(Debug, thiserror::Error)]
#[error("{column}: {problem}")]
struct DoesNotFit {
    column: &'static str,
    problem: String,
}

/// Refuses a value.
pub(crate) fn refuse(column: &'static str, problem: impl Into<String>) -> StoreError {
    StoreError::Refused(Box::new(DoesNotFit { column, problem: problem.into() }))
}

/// Largest result, payload, checkpoint or id list: what a MEDIUMBLOB holds.
pub(crate) const BLOB_BYTES: usize = (1 << 24) - 1;
/// Largest TEXT.
pub(crate) const TEXT_BYTES: usize = (1 << 16) - 1;

/// A text or blob that fits its column.
pub(crate) fn fit<T: AsRef<[u8]>>(column: &'static str, value: T, max_bytes: usize) -> Result<T, StoreError> {
    let bytes = value.as_ref().len();
    if bytes <= max_bytes { Ok(value) } else { Err(refuse(column, format!("{bytes} bytes; at most {max_bytes} fit"))) }
}

/// A count as a column.
pub(crate) fn count(column: &'static str, number: u32) -> Result<i32, StoreError> {
    i32::try_from(number).map_err(|_| refuse(column, format!("{number} is too large")))
}

/// A count from a column.
pub(crate) fn read_count(number: i32) -> Result<u32, StoreError> {
    u32::try_from(number).map_err(|_| StoreError::Corrupt(format!("{number} is not a count")))
}

/// A run as a column.
pub(crate) fn run(run: Run) -> Result<i32, StoreError> {
    count("run", run.get())
}

/// A run from a column.
pub(crate) fn read_run(number: i32) -> Result<Run, StoreError> {
    read_count(number).ok().and_then(Run::new).ok_or_else(|| StoreError::Corrupt(format!("{number} is not a run")))
}

/// A time as a column, in whole microseconds: both databases would cut the rest.
pub(crate) fn time(time: Timestamp) -> NaiveDateTime {
    to_micros(time).naive_utc()
}

/// A time from a column.
pub(crate) fn read_time(time: NaiveDateTime) -> Timestamp {
    Utc.from_utc_datetime(&time)
}

/// A duration as a column of nanoseconds.
pub(crate) fn nanos(column: &'static str, duration: Duration) -> Result<i64, StoreError> {
    i64::try_from(duration.as_nanos()).map_err(|_| refuse(column, format!("{duration:?} is too long")))
}

/// A duration from a column of nanoseconds.
pub(crate) fn read_nanos(nanos: i64) -> Result<Duration, StoreError> {
    u64::try_from(nanos).map(Duration::from_nanos).map_err(|_| StoreError::Corrupt(format!("{nanos} ns is not a duration")))
}

/// A name from a column.
pub(crate) fn read_name<T: std::str::FromStr>(text: &str) -> Result<T, StoreError>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error: T::Err| StoreError::Corrupt(error.to_string()))
}

/// Ids one after another, 16 bytes each.
pub(crate) fn join_ids(ids: &[TaskId]) -> Vec<u8> {
    ids.iter().flat_map(|id| *id.as_bytes()).collect()
}

/// Ids from [`join_ids`].
pub(crate) fn split_ids(bytes: &[u8]) -> Result<Vec<TaskId>, StoreError> {
    let (ids, rest) = bytes.as_chunks::<16>();
    if rest.is_empty() {
        Ok(ids.iter().map(|id| TaskId::from_bytes(*id)).collect())
    } else {
        Err(StoreError::Corrupt(format!("a list of ids of {} bytes", bytes.len())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(fit("x", "abc", 3).is_ok());
        assert!(matches!(fit("x", "abcd", 3), Err(StoreError::Refused(error)) if error.to_string() == "x: 4 bytes; at most 3 fit"));
        assert!(count("x", u32::MAX).is_err());
        assert!(nanos("x", Duration::MAX).is_err());
        assert!(read_run(0).is_err());
        assert!(read_count(-1).is_err());
        assert!(read_nanos(-1).is_err());
        assert!(split_ids(&[0; 17]).is_err());
    }

    #[test]
    fn lists_of_ids_read_back() {
        let ids = [TaskId::from_bytes([1; 16]), TaskId::from_bytes([2; 16])];
        assert_eq!(split_ids(&join_ids(&ids)).expect("ids"), ids);
    }
}
