//! Damage to bytes and texts.

use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};

/// Bytes that parsers treat in their own ways.
const SPECIAL: &[&[u8]] = &[
    b"\0",
    b"\n",
    b"\r\n",
    b"\t",
    b" ",
    b"\"",
    b"'",
    b"\\",
    b"(",
    b")",
    b"{",
    b"}",
    b"[",
    b"]",
    b"=",
    b"!=",
    b"<",
    b">=",
    b":",
    b";",
    b",",
    b".",
    b"-",
    b"+",
    b"*",
    b"%",
    b"_",
    b"--",
    b"/*",
    b"OR",
    b"AND",
    b"NOT",
    b"null",
    b"NaN",
    b"inf",
    b"-0",
    b"1e309",
    b"18446744073709551615",
    b"18446744073709551616",
    b"-9223372036854775808",
    b"\xff",
    b"\xc3\x28",
    b"\xed\xa0\x80",
    "\u{202e}".as_bytes(),
    "\u{feff}".as_bytes(),
    "\u{10ffff}".as_bytes(),
    "é".as_bytes(),
    "İ".as_bytes(),
];
/// Bytes that an input grows to at most.
const MAX_BYTES: usize = 64 * 1024;

/// Damages bytes a few times. `others` are inputs to take parts from.
pub fn damage(random: &mut StdRng, mut bytes: Vec<u8>, others: &[Vec<u8>]) -> Vec<u8> {
    for _ in 0..random.random_range(1..=4) {
        let at = random.random_range(0..=bytes.len());
        let until = random.random_range(at..=bytes.len());
        match random.random_range(0..9) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..until)),
            2 => drop(bytes.splice(at..at, some_bytes(random))),
            3 => drop(bytes.splice(at..at, SPECIAL.choose(random).copied().unwrap_or_default().iter().copied())),
            4 => drop(bytes.splice(at..until, SPECIAL.choose(random).copied().unwrap_or_default().iter().copied())),
            5 => {
                let part = bytes[at..until].to_vec();
                let most = [1, 8, 300].choose(random).copied().unwrap_or(1);
                let times = random.random_range(1..=most);
                bytes.splice(at..at, part.repeat(times));
            }
            6 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.random_range(0..8);
                }
            }
            7 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = random.random();
                }
            }
            _ => {
                if let Some(other) = others.choose(random).filter(|other| !other.is_empty()) {
                    let from = random.random_range(0..other.len());
                    bytes.splice(at..until, other[from..].iter().copied());
                }
            }
        }
        bytes.truncate(MAX_BYTES);
    }
    bytes
}

fn some_bytes(random: &mut StdRng) -> Vec<u8> {
    (0..random.random_range(1..8)).map(|_| random.random()).collect()
}

/// Damages a text; what is not UTF-8 afterwards is replaced.
pub fn damage_text(random: &mut StdRng, text: &str, others: &[Vec<u8>]) -> String {
    String::from_utf8_lossy(&damage(random, text.as_bytes().to_vec(), others)).into_owned()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn a_seed_gives_the_same_damage_and_another_another() {
        let run = |seed| damage(&mut StdRng::seed_from_u64(seed), b"state = RUNNING".to_vec(), &[b"queue = a".to_vec()]);
        assert_eq!(run(1), run(1));
        assert!((1..9).map(run).collect::<std::collections::HashSet<_>>().len() > 4);
    }
}
