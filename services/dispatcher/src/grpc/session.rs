//! `SessionService`: leases for workers, over a stream or over unary calls.

use std::sync::Arc;

use oxcart_proto::pb::dispatcher::v1::{self as pb, session_service_server::SessionService};
use oxcart_queue::ExtendCause;
use oxcart_types::LeaseToken;
use tonic::{Request, Response, Status, Streaming};

use super::decode::worker_id;
use crate::{core::Core, session};

/// Serves sessions.
#[derive(Clone)]
pub(crate) struct Service(pub(crate) Arc<Core>);

#[tonic::async_trait]
impl SessionService for Service {
    type OpenSessionStream = session::Outbound;

    async fn open_session(
        &self,
        request: Request<Streaming<pb::OpenSessionRequest>>,
    ) -> Result<Response<Self::OpenSessionStream>, Status> {
        Ok(Response::new(session::open(Arc::clone(&self.0), request.into_inner()).await?))
    }

    async fn poll_grants(&self, request: Request<pb::PollGrantsRequest>) -> Result<Response<pb::PollGrantsResponse>, Status> {
        Ok(Response::new(session::poll(Arc::clone(&self.0), request.into_inner()).await?))
    }

    async fn confirm_starts(
        &self,
        request: Request<pb::ConfirmStartsRequest>,
    ) -> Result<Response<pb::ConfirmStartsResponse>, Status> {
        let request = request.into_inner();
        worker_id("worker_id", &request.worker_id)?;
        let result = session::extend(&self.0, None, ExtendCause::Started, request.starts.unwrap_or_default()).await?;
        Ok(Response::new(pb::ConfirmStartsResponse { result: Some(result) }))
    }

    async fn extend_leases(&self, request: Request<pb::ExtendLeasesRequest>) -> Result<Response<pb::ExtendLeasesResponse>, Status> {
        let request = request.into_inner();
        worker_id("worker_id", &request.worker_id)?;
        let report = request.heartbeat.unwrap_or_default();
        let leases = report.leases.iter().filter_map(|held| held.lease.as_ref());
        let tokens: Vec<_> = leases.filter_map(|key| LeaseToken::try_from(&key.lease_token[..]).ok()).collect();
        let result = session::extend(&self.0, None, ExtendCause::Heartbeat, report).await?;
        Ok(Response::new(pb::ExtendLeasesResponse { result: Some(result), cancels: self.0.unheard.take(&tokens) }))
    }

    async fn report_failures(
        &self,
        request: Request<pb::ReportFailuresRequest>,
    ) -> Result<Response<pb::ReportFailuresResponse>, Status> {
        let request = request.into_inner();
        worker_id("worker_id", &request.worker_id)?;
        let verdicts = session::verdicts(&self.0, request.failures.unwrap_or_default())?;
        Ok(Response::new(pb::ReportFailuresResponse { verdicts: Some(verdicts) }))
    }

    async fn settle_leases(&self, request: Request<pb::SettleLeasesRequest>) -> Result<Response<pb::SettleLeasesResponse>, Status> {
        let request = request.into_inner();
        let worker = worker_id("worker_id", &request.worker_id)?;
        let result = session::settle(&self.0, worker, request.settle.unwrap_or_default()).await?;
        Ok(Response::new(pb::SettleLeasesResponse { result: Some(result) }))
    }
}
