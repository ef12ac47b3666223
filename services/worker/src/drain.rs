//! Leaving without anything left open: take no more, finish what runs, give back the rest without using an attempt.

use std::{sync::Arc, time::Duration};

use oxcart_sdk::StopReason;
use tokio::time::timeout;

use crate::{core::Core, run::stop};

/// Time for ends and settles that are on their way after the last handler has stopped.
const LAST_WRITES: Duration = Duration::from_secs(5);

/// Drains the worker: `patience` for running tasks to finish, then they are asked to stop and are given back.
pub(crate) async fn drain(core: &Arc<Core>, patience: Duration) {
    tracing::info!(held = core.held.len(), ?patience, "draining");
    core.gate.drain();
    core.session.window_changed();
    if timeout(patience, core.held.empty()).await.is_err() {
        core.hurry.cancel();
        for attempt in core.held.attempts() {
            stop(core, &attempt, StopReason::Shutdown, core.config.abort_grace);
        }
        if timeout(core.config.abort_grace + LAST_WRITES, core.held.empty()).await.is_err() {
            // What is left cannot be written: its leases run out, and other workers take the runs over.
            tracing::warn!(held = core.held.len(), "leaving with open runs: the database does not take their ends");
            core.give_up.cancel();
        }
    }
    core.hurry.cancel();
    core.session.leave();
    core.drained.send_replace(true);
    tracing::info!("drained");
}
