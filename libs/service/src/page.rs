//! Pages of lists. Page tokens: opaque to clients, bound to their query, refused when changed.

use oxcart_types::{Violations, violation::reason};
use sha2::{Digest as _, Sha256};

/// Bytes of the authentication code in a token.
const CODE_BYTES: usize = 16;
/// Bytes of a position at most: a queue name is the longest.
const POSITION_BYTES: usize = 64;

/// Makes and reads page tokens.
///
/// A token is a position and a code over the query and the position, in hexadecimal. It grants nothing that its holder could
/// not ask for anyway; the code is there so that a token that was edited, or belongs to another query, is refused instead of
/// answered with the wrong rows.
#[derive(Clone)]
pub struct PageTokens {
    key: [u8; 32],
}

impl PageTokens {
    /// With a key that all replicas share, so that any of them reads the tokens of the others.
    #[must_use]
    pub fn new(key: &str) -> Self {
        Self { key: Sha256::digest(key.as_bytes()).into() }
    }

    /// The token that goes on at `position` of `query`.
    #[must_use]
    pub fn write(&self, query: &Query<'_>, position: &[u8]) -> String {
        let code = self.code(query, position);
        let mut token = String::with_capacity(2 * (code.len() + position.len()));
        for byte in code.iter().chain(position) {
            for nibble in [byte >> 4, byte & 15] {
                token.extend(char::from_digit(u32::from(nibble), 16));
            }
        }
        token
    }

    /// The position in a token of `query`; `None` for an empty token, which asks for the first page.
    ///
    /// # Errors
    /// PAGE_TOKEN_INVALID: malformed, changed, or of another query.
    pub fn read(&self, query: &Query<'_>, token: &str) -> Result<Option<Vec<u8>>, Violations> {
        if token.is_empty() {
            return Ok(None);
        }
        let position = decode(token).and_then(|bytes| {
            let (code, position) = bytes.split_at_checked(CODE_BYTES)?;
            same(code, &self.code(query, position)).then(|| position.to_vec())
        });
        position.map(Some).ok_or_else(invalid)
    }

    fn code(&self, query: &Query<'_>, position: &[u8]) -> [u8; CODE_BYTES] {
        // The key goes in twice, as in HMAC, so that a longer message cannot be made from the code of a shorter one.
        let mut inner = Sha256::new();
        inner.update(self.key);
        for part in [query.rpc.as_bytes(), query.parameters.as_bytes(), position] {
            inner.update((part.len() as u64).to_le_bytes());
            inner.update(part);
        }
        let outer = Sha256::new().chain_update(self.key).chain_update(inner.finalize()).finalize();
        let mut code = [0; CODE_BYTES];
        code.copy_from_slice(&outer[..CODE_BYTES]);
        code
    }
}

/// What a token is bound to.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// The RPC.
    pub rpc: &'static str,
    /// What decides which rows there are, for example the filter; the page size may change between pages.
    pub parameters: &'a str,
}

/// The refusal of a token.
#[must_use]
pub fn invalid() -> Violations {
    let mut violations = Violations::new();
    violations.add("page_token", reason::PAGE_TOKEN_INVALID, "is malformed or belongs to another query; begin again without it");
    violations
}

fn decode(token: &str) -> Option<Vec<u8>> {
    if !token.len().is_multiple_of(2) || token.len() > 2 * (CODE_BYTES + POSITION_BYTES) {
        return None;
    }
    let nibble = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    token.as_bytes().chunks_exact(2).map(|pair| Some(nibble(*pair.first()?)? << 4 | nibble(*pair.get(1)?)?)).collect()
}

/// Compares in a time that does not tell where the difference is.
fn same(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |difference, (l, r)| difference | (l ^ r)) == 0
}

/// The size of a page: `default` when unset, at most [`oxcart_types::Limits::PAGE_ROWS`].
///
/// # Errors
/// Negative.
pub fn size(asked: i32, default: usize) -> Result<usize, Violations> {
    match usize::try_from(asked) {
        Ok(0) => Ok(default),
        Ok(size) => Ok(size.min(oxcart_types::Limits::PAGE_ROWS)),
        Err(_) => {
            let mut violations = Violations::new();
            violations.add("page_size", reason::FIELD_INVALID, format!("is {asked}; it cannot be negative"));
            Err(violations)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QUERY: Query<'_> = Query { rpc: "ListTasks", parameters: "state = FAILED" };

    #[test]
    fn a_token_is_bound_to_its_query_and_key() {
        let tokens = PageTokens::new("key");
        let token = tokens.write(&QUERY, b"position");
        assert_eq!(tokens.read(&QUERY, &token), Ok(Some(b"position".to_vec())));
        assert_eq!(tokens.read(&QUERY, ""), Ok(None));
        for other in [Query { parameters: "", ..QUERY }, Query { rpc: "ListWorkers", ..QUERY }] {
            let refused = tokens.read(&other, &token).expect_err("of another query");
            assert_eq!(refused.as_slice()[0].reason, reason::PAGE_TOKEN_INVALID);
        }
        assert!(PageTokens::new("other").read(&QUERY, &token).is_err());
    }

    #[test]
    fn page_sizes_are_bounded() {
        assert_eq!(size(0, 50), Ok(50));
        assert_eq!(size(7, 50), Ok(7));
        assert_eq!(size(i32::MAX, 50), Ok(1000));
        assert!(size(-1, 50).is_err());
    }

    proptest! {
        #[test]
        fn positions_read_back_and_changes_are_refused(position in prop::collection::vec(any::<u8>(), 0..=POSITION_BYTES), at: prop::sample::Index) {
            let tokens = PageTokens::new("key");
            let token = tokens.write(&QUERY, &position);
            prop_assert_eq!(tokens.read(&QUERY, &token), Ok(Some(position)));
            let mut changed = token.into_bytes();
            let at = at.index(changed.len());
            changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
            prop_assert!(tokens.read(&QUERY, std::str::from_utf8(&changed).expect("ASCII")).is_err());
        }

        #[test]
        fn no_text_panics(token in "\\PC*") {
            let _ = PageTokens::new("key").read(&QUERY, &token);
        }
    }
}
