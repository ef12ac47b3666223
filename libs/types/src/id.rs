//! Identifiers.

use std::{fmt, str::FromStr};

use uuid::Uuid;

use crate::{clock::Timestamp, violation::Invalid};

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps a UUID.
            #[must_use]
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID.
            #[must_use]
            pub const fn as_uuid(&self) -> Uuid {
                self.0
            }

            /// The 16 bytes, most significant first: bytes order as ids do.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// From 16 bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl FromStr for $name {
            type Err = Invalid;

            /// Takes the hyphenated form only, in either case; the nil UUID is refused.
            fn from_str(text: &str) -> Result<Self, Invalid> {
                let refused = || Invalid::value(format!("{:?} is not a UUID like 0190f3c5-7b1e-7cc3-98c4-dc0c0c07398f", clip(text)));
                if text.len() != 36 {
                    return Err(refused());
                }
                match Uuid::try_parse(text) {
                    Ok(uuid) if !uuid.is_nil() => Ok(Self(uuid)),
                    _ => Err(refused()),
                }
            }
        }
    };
}

uuid_id! {
    /// A task. UUIDv7 when Oxcart makes it, so that ids order by time of submission.
    TaskId
}
impl TaskId {
    /// The smallest UUIDv7 of the millisecond of `time`: ids that were made before are smaller.
    #[must_use]
    pub fn lowest_at(time: Timestamp) -> Self {
        let millis = u64::try_from(time.timestamp_millis()).unwrap_or_default();
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
        bytes[6] = 0x70;
        bytes[8] = 0x80;
        Self::from_bytes(bytes)
    }
}

uuid_id! {
    /// A worker process: random, new at every start of the process, the same over its reconnects.
    WorkerId
}
uuid_id! {
    /// A row of the outbox: one commit batch of submitted tasks that the dispatcher has not confirmed yet.
    HandoffId
}
uuid_id! {
    /// An operation on many tasks. UUIDv7, so that ids order by time.
    OperationId
}
uuid_id! {
    /// A cancel rule. UUIDv7, so that ids order by time.
    CancelRuleId
}
uuid_id! {
    /// A client's name for one submit call, so that a repeat of the call finds its first answer.
    RequestId
}

/// Proof of a lease and fence of every write of its run: 16 random bytes made per grant, never a counter, since a counter
/// would repeat after Redis rolled back.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseToken([u8; 16]);

impl LeaseToken {
    /// From 16 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl TryFrom<&[u8]> for LeaseToken {
    type Error = Invalid;

    fn try_from(bytes: &[u8]) -> Result<Self, Invalid> {
        bytes.try_into().map(Self).map_err(|_| Invalid::value(format!("a lease token has 16 bytes, not {}", bytes.len())))
    }
}

impl fmt::Debug for LeaseToken {
    /// The first bytes only: a token is a capability and does not belong in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeaseToken({:02x}{:02x}…)", self.0[0], self.0[1])
    }
}

/// The start of a text, for messages that quote what a caller sent.
pub(crate) fn clip(text: &str) -> String {
    const SHOWN: usize = 64;
    if text.chars().count() <= SHOWN { text.to_owned() } else { text.chars().take(SHOWN).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_written() {
        let id = TaskId::from_uuid(Uuid::now_v7());
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn the_lowest_id_of_a_time_lies_below_all_that_are_made_then() {
        let id = TaskId::from_uuid(Uuid::now_v7());
        let (seconds, _) = id.as_uuid().get_timestamp().expect("UUIDv7").to_unix();
        let made = Timestamp::from_timestamp(i64::try_from(seconds).expect("a time"), 0).expect("a time");
        assert!(TaskId::lowest_at(made) <= id);
        assert!(TaskId::lowest_at(made + chrono::TimeDelta::seconds(1)) > id);
    }

    #[test]
    fn other_spellings_and_nil_are_refused() {
        for text in [
            "",
            "x",
            "00000000-0000-0000-0000-000000000000",
            "0190f3c57b1e7cc398c4dc0c0c07398f",
            "{0190f3c5-7b1e-7cc3-98c4-dc0c0c07398f}",
        ] {
            assert!(text.parse::<TaskId>().is_err(), "{text}");
        }
    }
}
