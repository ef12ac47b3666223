//! GetServerInfo.

use oxcart_proto::pb::monitor::v1::GetServerInfoResponse;
use oxcart_types::{Limits, filter};

use crate::service::Core;

pub(super) fn server_info(core: &Core) -> GetServerInfoResponse {
    let limits: [(&str, usize); 12] = [
        ("max_payload_bytes", Limits::PAYLOAD_HARD_BYTES),
        ("max_message_bytes", Limits::MESSAGE_BYTES),
        ("max_batch_tasks", Limits::BATCH_ITEMS),
        ("max_tags", Limits::TAGS),
        ("max_metadata_pairs", Limits::METADATA_PAIRS),
        ("max_metadata_bytes", Limits::METADATA_BYTES),
        ("max_attempts", usize::try_from(Limits::MAX_ATTEMPTS).unwrap_or(usize::MAX)),
        ("max_idempotency_key_bytes", Limits::IDEMPOTENCY_KEY_BYTES),
        ("max_page_size", Limits::PAGE_ROWS),
        ("max_filter_bytes", filter::MAX_BYTES),
        ("max_filter_comparisons", filter::MAX_COMPARISONS),
        ("max_watchers", core.config.max_watchers),
    ];
    GetServerInfoResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        build: option_env!("OXCART_BUILD").unwrap_or_default().to_owned(),
        features: Vec::new(),
        limits: limits.into_iter().map(|(name, limit)| (name.to_owned(), i64::try_from(limit).unwrap_or(i64::MAX))).collect(),
    }
}
