//! Expired idempotency keys and request ids are forgotten.

use std::sync::Arc;

use oxcart_service::reconcile::Progress;

use super::SweepError;
use crate::core::Core;

/// Keys of one statement.
const KEYS: usize = 1000;

pub(super) async fn pass(core: Arc<Core>) -> Result<Progress, SweepError> {
    let forgotten = core.store.forget_keys(core.clock.now(), KEYS).await?;
    core.meters.swept("keys", "forget", forgotten);
    Ok(if forgotten >= KEYS { Progress::More } else { Progress::Idle })
}
