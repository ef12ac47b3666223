//! Digests of requests: equal for equal requests.

use sha2::{Digest as _, Sha256};

/// Parts of a request on their way into a digest. Each goes in with its length first, so that no two lists of parts run into the
/// same bytes.
#[derive(Debug, Default)]
pub(crate) struct Parts(Sha256);

impl Parts {
    /// Adds a part.
    pub(crate) fn add(&mut self, part: &[u8]) {
        self.0.update((part.len() as u64).to_le_bytes());
        self.0.update(part);
    }

    /// The digest.
    pub(crate) fn finish(self) -> [u8; 16] {
        let mut digest = [0; 16];
        digest.copy_from_slice(&self.0.finalize()[..16]);
        digest
    }
}
