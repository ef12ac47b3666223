//! WatchEvents.

use std::{pin::Pin, sync::Arc};

use futures_util::Stream;
use oxcart_proto::pb::monitor::v1::{WatchEventsRequest, WatchEventsResponse};
use oxcart_types::filter::FilterError;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::{error::MonitorError, event_filter::EventFilter, service::Core, watch::Watcher};

/// The stream of a watcher.
pub(super) type Events = Pin<Box<dyn Stream<Item = Result<WatchEventsResponse, Status>> + Send>>;

/// Messages that wait for a watcher to read. Few: what it does not read is kept, and bounded, by the dispatcher.
const WAITING_MESSAGES: usize = 4;

pub(super) async fn watch_events(core: &Arc<Core>, request: WatchEventsRequest) -> Result<Events, MonitorError> {
    let filter = EventFilter::parse(&request.filter).map_err(FilterError::into_violations)?;
    let max = core.config.max_watchers;
    let permit = Arc::clone(&core.watchers).try_acquire_owned().map_err(|_| MonitorError::TooManyWatchers(max))?;
    let watcher = Watcher::open(core.dispatcher.clone(), filter, request.after_cursor, core.metrics.watch_gaps.clone()).await?;
    let (sender, receiver) = mpsc::channel(WAITING_MESSAGES);
    let (clock, shutdown, watching) = (Arc::clone(&core.clock), core.stopping.clone(), core.metrics.watching());
    tokio::spawn(async move {
        watcher.run(sender, || clock.now(), shutdown).await;
        drop((permit, watching));
    });
    Ok(Box::pin(ReceiverStream::new(receiver)))
}
