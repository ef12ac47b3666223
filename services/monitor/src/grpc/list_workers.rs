//! ListWorkers.

use oxcart_proto::pb::{
    common::v1::WorkerInfo,
    monitor::v1::{ListWorkersRequest, ListWorkersResponse},
};
use oxcart_service::page::{self, Query};
use oxcart_types::{Limits, WorkerId};

use crate::{
    error::MonitorError,
    registry::{earlier, worker},
    service::Core,
};

const PAGING: Query<'_> = Query { rpc: "ListWorkers", parameters: "" };
/// Workers looked at for the numbers of queues.
const MAX_WORKERS: usize = 10 * Limits::PAGE_ROWS;

pub(super) async fn list_workers(core: &Core, request: ListWorkersRequest) -> Result<ListWorkersResponse, MonitorError> {
    let size = page::size(request.page_size, 100)?;
    let after = match core.tokens.read(&PAGING, &request.page_token)? {
        None => None,
        Some(position) => Some(position.as_slice().try_into().map(WorkerId::from_bytes).map_err(|_| page::invalid())?),
    };
    let now = core.clock.now();
    let mut rows = core.store.workers(after, earlier(now, core.config.registry.forget_after), size + 1).await?;
    let more = rows.len() > size;
    rows.truncate(size);
    let last = rows.last().filter(|_| more).map(|row| row.id);
    let workers = rows.iter().map(|row| worker(row, now, core.config.registry.lost_after)).collect::<Result<_, _>>()?;
    let next_page_token = last.map(|id| core.tokens.write(&PAGING, id.as_bytes())).unwrap_or_default();
    Ok(ListWorkersResponse { workers, next_page_token })
}

/// The workers that were heard of lately.
pub(super) async fn all_workers(core: &Core) -> Result<Vec<WorkerInfo>, MonitorError> {
    let now = core.clock.now();
    let lost_after = core.config.registry.lost_after;
    let rows = core.store.workers(None, earlier(now, lost_after), MAX_WORKERS).await?;
    rows.iter().map(|row| worker(row, now, lost_after)).collect()
}
