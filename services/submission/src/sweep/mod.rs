//! The sweepers: each looks at what is there and does what is missing. None has a state that it cannot lose.

use std::sync::Arc;

use oxcart_service::Metrics;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::core::Core;

/// Starts all sweepers.
pub(crate) fn spawn(_core: &Arc<Core>, _tracker: &TaskTracker, _shutdown: &CancellationToken, _metrics: &Metrics) {}
