//! Settings of queues: SQL has them, and the dispatcher hears of every change at once. What it missed, or lost with Redis, the
//! sweeper brings.

use std::sync::Arc;

use oxcart_store::{Pause, QueueRow};
use oxcart_types::QueueName;

use crate::{core::Core, error::Error};

impl Core {
    /// Pauses a queue. Goes on when the caller goes away.
    pub(crate) async fn pause_queue(self: &Arc<Self>, queue: QueueName, by: String, reason: String) -> Result<QueueRow, Error> {
        let core = Arc::clone(self);
        self.detached(async move {
            let pause = Pause { since: core.clock.now(), by, reason };
            let row = core.store.pause_queue(&queue, &pause).await?;
            core.push_settings(&row).await;
            Ok(row)
        })
        .await
    }

    /// Ends a pause; `None` when the queue has no settings. Goes on when the caller goes away.
    pub(crate) async fn resume_queue(self: &Arc<Self>, queue: QueueName) -> Result<Option<QueueRow>, Error> {
        let core = Arc::clone(self);
        self.detached(async move {
            let row = core.store.resume_queue(&queue, core.clock.now()).await?;
            if let Some(row) = &row {
                core.push_settings(row).await;
            }
            Ok(row)
        })
        .await
    }

    /// Tells the dispatcher; best effort.
    async fn push_settings(&self, row: &QueueRow) {
        if let Err(error) = self.dispatcher.configure(std::slice::from_ref(row)).await {
            let error = oxcart_service::status::chain(&error);
            tracing::warn!(queue = %row.queue, error, "the dispatcher has not heard of a setting; the sweeper tells it again");
        }
    }
}
