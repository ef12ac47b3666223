//! Bounds that outside input meets. What could not be delivered later is refused when it is submitted.

use std::time::Duration;

/// Bounds of a deployment. The ones that are fields can be configured; the constants cannot, since contracts name them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one payload or result kept inline.
    pub payload_bytes: usize,
}

impl Limits {
    /// Bytes of a payload or result that no configuration may exceed: a message of a batch must still fit in
    /// [`Self::MESSAGE_BYTES`].
    pub const PAYLOAD_HARD_BYTES: usize = 1024 * 1024;
    /// Bytes of one gRPC message, tonic's own default for decoding.
    pub const MESSAGE_BYTES: usize = 4 * 1024 * 1024;
    /// Tasks of one batch, ids of one lookup, items of one internal call.
    pub const BATCH_ITEMS: usize = 1000;
    /// Tags of one task.
    pub const TAGS: usize = 32;
    /// Metadata pairs of one task.
    pub const METADATA_PAIRS: usize = 64;
    /// Bytes of one metadata key.
    pub const METADATA_KEY_BYTES: usize = 128;
    /// Bytes of one metadata value.
    pub const METADATA_VALUE_BYTES: usize = 4096;
    /// Bytes of all metadata of one task, keys and values: lists carry it.
    pub const METADATA_BYTES: usize = 32 * 1024;
    /// Bytes of an idempotency key.
    pub const IDEMPOTENCY_KEY_BYTES: usize = 128;
    /// Bytes of a media type.
    pub const CONTENT_TYPE_BYTES: usize = 128;
    /// Counted starts of one task.
    pub const MAX_ATTEMPTS: u32 = 1000;
    /// Kinds of errors in one retry policy.
    pub const NON_RETRYABLE_KINDS: usize = 32;
    /// Bytes of an error kind.
    pub const ERROR_KIND_BYTES: usize = 64;
    /// Bytes of an error message; longer ones are cut.
    pub const ERROR_MESSAGE_BYTES: usize = 8 * 1024;
    /// Bytes of an error's detail; longer ones are cut.
    pub const ERROR_DETAIL_BYTES: usize = 32 * 1024;
    /// Bytes of a reason given with a cancel; longer ones are refused.
    pub const REASON_BYTES: usize = 1024;
    /// Longest timeout of one attempt.
    pub const TIMEOUT: Duration = Duration::from_secs(7 * 24 * 3600);
    /// Longest deadline over all attempts.
    pub const DEADLINE: Duration = Duration::from_secs(30 * 24 * 3600);
    /// Longest backoff.
    pub const BACKOFF: Duration = Duration::from_secs(7 * 24 * 3600);
    /// Farthest run time or expiry from now.
    pub const HORIZON: Duration = Duration::from_secs(366 * 24 * 3600);
    /// Longest life of an idempotency key.
    pub const IDEMPOTENCY_TTL: Duration = Duration::from_secs(90 * 24 * 3600);
    /// Bytes of the name of who asked for an operation or a rule; longer ones are cut.
    pub const ACTOR_BYTES: usize = 128;
    /// Longest life of a cancel rule.
    pub const CANCEL_RULE_TTL: Duration = Duration::from_secs(30 * 24 * 3600);
    /// Longest grace period of a cancel.
    pub const GRACE: Duration = Duration::from_secs(3600);
    /// Bytes of a small result that may travel with a settle.
    pub const SMALL_RESULT_BYTES: usize = 4 * 1024;
    /// Rows of one page.
    pub const PAGE_ROWS: usize = 1000;
}

impl Default for Limits {
    fn default() -> Self {
        Self { payload_bytes: 256 * 1024 }
    }
}
