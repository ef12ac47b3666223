//! Where a reader of the journal stands, over all partitions, as an opaque text.
//!
//! `1;<deployment>;<queue>:<partition>:<ms>-<seq>,…;<checksum>`. The checksum is no secret: it only tells a damaged or made-up
//! cursor from one that was given out. Positions carry no right that the call itself does not need.

use std::collections::BTreeMap;

use oxcart_queue::{JournalId, Partition};
use oxcart_types::violation::{Invalid, reason};

const VERSION: &str = "1";
/// Longest text that is looked at.
const MAX_BYTES: usize = 1024 * 1024;

/// Positions by partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cursor(pub(crate) BTreeMap<Partition, JournalId>);

impl Cursor {
    /// As a text.
    pub(crate) fn encode(&self, deployment: &str) -> String {
        let positions: Vec<_> =
            self.0.iter().map(|(partition, id)| format!("{}:{}:{}-{}", partition.queue, partition.number, id.ms, id.seq)).collect();
        let body = format!("{VERSION};{deployment};{}", positions.join(","));
        format!("{body};{:016x}", checksum(&body))
    }

    /// Reads a text.
    pub(crate) fn decode(text: &str, deployment: &str) -> Result<Self, Invalid> {
        let refused = |why: &str| Invalid::because(reason::PAGE_TOKEN_INVALID, format!("is no cursor of this deployment: {why}"));
        if text.len() > MAX_BYTES {
            return Err(refused("too long"));
        }
        let (body, sum) = text.rsplit_once(';').ok_or_else(|| refused("malformed"))?;
        if sum != format!("{:016x}", checksum(body)) {
            return Err(refused("malformed"));
        }
        let rest = body.strip_prefix(VERSION).and_then(|rest| rest.strip_prefix(';')).ok_or_else(|| refused("unknown version"))?;
        let (named, positions) = rest.rsplit_once(';').ok_or_else(|| refused("malformed"))?;
        if named != deployment {
            return Err(refused("made by another one"));
        }
        let positions = positions.split(',').filter(|position| !position.is_empty());
        positions.map(position).collect::<Option<_>>().map(Self).ok_or_else(|| refused("malformed"))
    }
}

fn position(text: &str) -> Option<(Partition, JournalId)> {
    let (rest, id) = text.rsplit_once(':')?;
    let (queue, number) = rest.rsplit_once(':')?;
    let (ms, seq) = id.split_once('-')?;
    let partition = Partition { queue: queue.parse().ok()?, number: number.parse().ok()? };
    Some((partition, JournalId { ms: ms.parse().ok()?, seq: seq.parse().ok()? }))
}

/// FNV-1a.
fn checksum(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cursor() -> Cursor {
        let partition = |queue: &str, number| Partition { queue: queue.parse().expect("name"), number };
        Cursor([(partition("a", 0), JournalId { ms: 1, seq: 2 }), (partition("b.c-d", 3), JournalId::default())].into())
    }

    #[test]
    fn a_cursor_reads_back_in_its_own_deployment_only() {
        let text = cursor().encode("prod;eu");
        assert_eq!(Cursor::decode(&text, "prod;eu"), Ok(cursor()));
        assert!(Cursor::decode(&text, "prod").is_err());
        assert!(Cursor::decode(&text.replace("1-2", "1-3"), "prod;eu").is_err());
        assert_eq!(Cursor::decode(&Cursor::default().encode("x"), "x"), Ok(Cursor::default()));
    }

    proptest! {
        #[test]
        fn nothing_made_up_is_taken(text in ".*") {
            prop_assert!(Cursor::decode(&text, "x").is_err());
        }
    }
}
