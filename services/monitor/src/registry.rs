//! The worker registry: who runs tasks, kept in SQL so that every replica of monitor shows all of them.
//!
//! A dispatcher knows the sessions on its own replica only. The channel goes to another replica with each call, so the
//! registry sees all of them within a few rounds; a worker counts as lost only after a time that is longer than that.

use std::time::Duration;

use oxcart_proto::{
    convert::scalar,
    pb::{
        common::v1::{WorkerInfo, WorkerState},
        dispatcher::v1::{ListSessionsRequest, SessionInfo, dispatcher_service_client::DispatcherServiceClient},
    },
};
use oxcart_store::{Store, model::WorkerRow};
use oxcart_types::{Limits, Timestamp, WorkerId};
use prost::Message as _;
use tonic::transport::Channel;

use crate::error::MonitorError;

/// Pages of sessions read in one round at most.
const MAX_PAGES: usize = 100;

/// Copies the sessions of a dispatcher into the registry; how many there were.
pub(crate) async fn refresh(
    store: &Store,
    dispatcher: &DispatcherServiceClient<Channel>,
    now: Timestamp,
    forget_after: Duration,
) -> Result<usize, MonitorError> {
    let mut page_token = String::new();
    let mut seen = 0;
    for _ in 0..MAX_PAGES {
        let page_size = i32::try_from(Limits::PAGE_ROWS).unwrap_or(i32::MAX);
        let request = ListSessionsRequest { page_size, page_token };
        let page = dispatcher
            .clone()
            .list_sessions(request)
            .await
            .map_err(|status| MonitorError::Dispatcher(Box::new(status)))?
            .into_inner();
        let rows: Vec<_> = page.sessions.into_iter().filter_map(|session| row(session, now)).collect();
        if !rows.is_empty() {
            store.put_workers(&rows).await?;
        }
        seen += rows.len();
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    if let Some(before) = earlier(now, forget_after) {
        store.forget_workers(before).await?;
    }
    Ok(seen)
}

/// The row of a session; `None` when it names no worker.
fn row(session: SessionInfo, now: Timestamp) -> Option<WorkerRow> {
    let mut info = session.worker?;
    let id: WorkerId = info.worker_id.parse().ok()?;
    // What the dispatcher counts is of this moment; what the worker reports of its load may be minutes old.
    info.used_slots = session.counted_leases;
    let stopped = info.state() == WorkerState::Stopped;
    // A dispatcher drops a session that is silent, so one that is listed is alive.
    Some(WorkerRow { id, seen_at: now, first_seen_at: now, stopped, info: info.encode_to_vec() })
}

/// The worker of a row, with the state that follows from when it was last heard of.
///
/// # Errors
/// The row was not written by this program.
pub(crate) fn worker(row: &WorkerRow, now: Timestamp, lost_after: Duration) -> Result<WorkerInfo, MonitorError> {
    let mut info = WorkerInfo::decode(row.info.as_slice())
        .map_err(|error| MonitorError::Store(oxcart_store::StoreError::Corrupt(format!("worker {}: {error}", row.id))))?;
    let silent = earlier(now, lost_after).is_some_and(|limit| row.seen_at < limit);
    let state = match info.state() {
        _ if row.stopped => WorkerState::Stopped,
        _ if silent => WorkerState::Lost,
        WorkerState::Unspecified | WorkerState::Lost | WorkerState::Stopped => WorkerState::Active,
        state @ (WorkerState::Active | WorkerState::Paused | WorkerState::Draining) => state,
    };
    info.set_state(state);
    info.heartbeat_time = Some(scalar::to_timestamp(row.seen_at));
    Ok(info)
}

/// That long before; `None` beyond the range of times.
pub(crate) fn earlier(now: Timestamp, by: Duration) -> Option<Timestamp> {
    chrono::TimeDelta::from_std(by).ok().and_then(|by| now.checked_sub_signed(by))
}

#[cfg(test)]
mod tests {
    use oxcart_types::clock::Clock as _;

    use super::*;

    const LOST: Duration = Duration::from_secs(30);

    fn session(state: WorkerState) -> SessionInfo {
        let worker = WorkerInfo {
            worker_id: "6f6f6f6f-7b1e-4cc3-98c4-dc0c0c073981".to_owned(),
            state: state.into(),
            slots: 8,
            ..Default::default()
        };
        SessionInfo { worker: Some(worker), counted_leases: 3, ..Default::default() }
    }

    #[test]
    fn state_follows_from_the_last_sign_of_life() {
        let now = oxcart_types::SystemClock.now();
        let later = now + LOST + Duration::from_secs(1);
        let state = |told, at| worker(&row(session(told), now).expect("a row"), at, LOST).expect("a worker").state();
        assert_eq!(state(WorkerState::Active, now), WorkerState::Active);
        assert_eq!(state(WorkerState::Unspecified, now), WorkerState::Active);
        assert_eq!(state(WorkerState::Draining, now), WorkerState::Draining);
        assert_eq!(state(WorkerState::Draining, later), WorkerState::Lost);
        assert_eq!(state(WorkerState::Stopped, later), WorkerState::Stopped);
    }

    #[test]
    fn rows_carry_the_load_and_bad_ones_are_told() {
        let now = oxcart_types::SystemClock.now();
        let mut row = row(session(WorkerState::Active), now).expect("a row");
        assert_eq!(worker(&row, now, LOST).expect("a worker").used_slots, 3);
        row.info = vec![0xff];
        assert!(matches!(worker(&row, now, LOST), Err(MonitorError::Store(_))));
        assert!(super::row(SessionInfo::default(), now).is_none());
    }
}
