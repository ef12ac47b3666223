//! ListQueues.

use oxcart_proto::pb::{
    dispatcher::v1::GetQueueInfoRequest,
    monitor::v1::{ListQueuesRequest, ListQueuesResponse, QueueStats},
};

use super::list_workers::all_workers;
use oxcart_service::page::{self, Query};

use crate::{error::MonitorError, queues, service::Core};

const PAGING: Query<'_> = Query { rpc: "ListQueues", parameters: "" };

pub(super) async fn list_queues(core: &Core, request: ListQueuesRequest) -> Result<ListQueuesResponse, MonitorError> {
    let size = page::size(request.page_size, 100)?;
    let after = core.tokens.read(&PAGING, &request.page_token)?;
    let mut queues = all_queues(core).await?;
    if let Some(after) = after {
        queues.retain(|queue| queue.queue.as_bytes() > after.as_slice());
    }
    let more = queues.len() > size;
    queues.truncate(size);
    let last = queues.last().filter(|_| more);
    let next_page_token = last.map(|queue| core.tokens.write(&PAGING, queue.queue.as_bytes())).unwrap_or_default();
    Ok(ListQueuesResponse { queues, next_page_token })
}

/// The numbers of all queues, by name.
pub(crate) async fn all_queues(core: &Core) -> Result<Vec<QueueStats>, MonitorError> {
    let mut dispatcher = core.dispatcher.clone();
    let (info, agenda, settings, workers) = tokio::join!(
        dispatcher.get_queue_info(GetQueueInfoRequest::default()),
        core.store.count_agenda(core.config.max_counted_tasks),
        core.store.queues(),
        all_workers(core),
    );
    let partitions = info.map_err(|status| MonitorError::Dispatcher(Box::new(status)))?.into_inner().partitions;
    Ok(queues::stats(partitions, agenda?, settings?, &workers?))
}
