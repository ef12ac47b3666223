//! Names: of handlers, queues, tags, fairness keys.

use std::{fmt, str::FromStr, sync::Arc};

use crate::{id::clip, violation::Invalid};

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $max:expr, $check:expr, $allowed:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Longest length in bytes.
            pub const MAX_BYTES: usize = $max;

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                if text.is_empty() {
                    return Err(Invalid::required());
                }
                if text.len() > Self::MAX_BYTES {
                    return Err(Invalid::value(format!("{:?} has {} bytes; at most {} are allowed", clip(text), text.len(), Self::MAX_BYTES)));
                }
                let check: fn(&str) -> bool = $check;
                if !check(text) {
                    return Err(Invalid::value(format!("{:?} is not allowed: {}", clip(text), $allowed)));
                }
                Ok(Self(text.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

fn is_handler_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-:/".contains(c))
}

fn is_queue_name(text: &str) -> bool {
    let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(lower) && text.chars().all(|c| lower(c) || "._-".contains(c))
}

fn is_printable(text: &str) -> bool {
    text.trim() == text && !text.chars().any(char::is_control)
}

name! {
    /// Which handler runs a task, for example `email.send`.
    TaskName, 128, is_handler_name, "use letters, digits and . _ - : /, beginning with a letter or digit"
}
name! {
    /// A queue. It becomes part of Redis keys and metric labels, so its alphabet is small.
    QueueName, 63, is_queue_name, "use a-z, 0-9 and . _ -, beginning with a letter or digit"
}
name! {
    /// A free tag for search and bulk actions.
    Tag, 64, is_printable, "no control characters, no space at the ends"
}
name! {
    /// Tenant or the like; tasks of one priority are handed out fairly among these.
    FairnessKey, 64, is_printable, "no control characters, no space at the ends"
}

impl QueueName {
    /// The queue of tasks that name none.
    #[must_use]
    pub fn default_queue() -> Self {
        Self("default".into())
    }
}

impl FairnessKey {
    /// The key as the 32-bit number that the queue engine keeps (FNV-1a). Two keys that collide share one turn.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.as_str().bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_to_their_alphabets() {
        assert!("email.send".parse::<TaskName>().is_ok());
        assert!("Ünïcode".parse::<TaskName>().is_err());
        assert!("mail-1".parse::<QueueName>().is_ok());
        for bad in ["", "Mail", "{x}", "a*", "a\n", "-a", &"a".repeat(64)] {
            assert!(bad.parse::<QueueName>().is_err(), "{bad:?}");
        }
        assert!("vip kunde".parse::<Tag>().is_ok());
        assert!(" vip".parse::<Tag>().is_err());
    }
}
