//! ConfigureQueues.

use std::sync::Arc;

use oxcart_proto::pb::dispatcher::v1 as pb;
use oxcart_queue::{Partition, Settings};
use oxcart_types::{Limits, QueueName, Violations, violation::reason};
use tokio::time::Instant;

use crate::{core::Core, error::DispatcherError};

pub(super) async fn configure(core: &Arc<Core>, request: pb::ConfigureQueuesRequest) -> Result<(), DispatcherError> {
    for (partition, settings) in read(request.queues)? {
        let lane = core.lane(&partition)?;
        // Known before the engine has them: a grant that is made meanwhile obeys them already.
        lane.learn(settings);
        let began = Instant::now();
        let result = core.engine.configure(&partition, settings).await;
        core.observe("configure", 1, began, &result);
        lane.learn(result.map_err(DispatcherError::Engine)?);
        lane.wake.notify_one();
    }
    Ok(())
}

fn read(queues: Vec<pb::QueueConfig>) -> Result<Vec<(Partition, Settings)>, DispatcherError> {
    let (count, max) = (queues.len(), Limits::BATCH_ITEMS);
    if count == 0 || count > max {
        return Err(DispatcherError::invalid("queues", format!("has {count} items; 1 to {max} are allowed")));
    }
    let mut bad = Violations::new();
    let mut all = Vec::with_capacity(count);
    for (i, config) in queues.into_iter().enumerate() {
        let queue = bad.take(&format!("queues[{i}].queue"), config.queue.parse::<QueueName>());
        let revision = u64::try_from(config.revision).ok().filter(|revision| *revision > 0);
        if revision.is_none() {
            let description = format!("is {}; revisions count from 1", config.revision);
            bad.add(format!("queues[{i}].revision"), reason::FIELD_INVALID, description);
        }
        if let (Some(queue), Some(revision)) = (queue, revision) {
            all.push((Partition::first(queue), Settings { revision, paused: config.paused }));
        }
    }
    bad.check()?;
    Ok(all)
}
