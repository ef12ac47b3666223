//! Reaching a running system.

use std::time::Duration;

use oxcart_proto::pb::{
    monitor::v1::monitor_service_client::MonitorServiceClient,
    submission::v1::{
        operation_service_client::OperationServiceClient, queue_service_client::QueueServiceClient,
        submission_service_client::SubmissionServiceClient,
    },
};
use oxcart_types::Limits;
use tonic::transport::{Channel, Endpoint};

use super::{CliError, Global};

/// Room above what may be submitted: a page of tasks, or a task with its result, is larger.
const MAX_ANSWER_BYTES: usize = 16 * Limits::MESSAGE_BYTES;

impl Global {
    /// A channel to the system.
    pub(super) async fn channel(&self) -> Result<Channel, CliError> {
        open(&self.address).await
    }

    /// A channel to the monitor service: at `address` when that is given, else where [`Self::monitor`] is.
    pub(super) async fn monitor_channel(&self, address: Option<&str>) -> Result<Channel, CliError> {
        open(address.or(self.monitor_address.as_deref()).unwrap_or(&self.address)).await
    }

    /// The submission service.
    pub(super) async fn submission(&self) -> Result<SubmissionServiceClient<Channel>, CliError> {
        Ok(SubmissionServiceClient::new(self.channel().await?).max_decoding_message_size(MAX_ANSWER_BYTES))
    }

    /// The settings of queues.
    pub(super) async fn queues(&self) -> Result<QueueServiceClient<Channel>, CliError> {
        Ok(QueueServiceClient::new(self.channel().await?))
    }

    /// Operations on many tasks: the submission service has them.
    pub(super) async fn operations(&self) -> Result<OperationServiceClient<Channel>, CliError> {
        Ok(OperationServiceClient::new(self.channel().await?).max_decoding_message_size(MAX_ANSWER_BYTES))
    }

    /// The monitor service.
    pub(super) async fn monitor(&self) -> Result<MonitorServiceClient<Channel>, CliError> {
        Ok(MonitorServiceClient::new(self.monitor_channel(None).await?).max_decoding_message_size(MAX_ANSWER_BYTES))
    }
}

/// Not the balanced channel of the services: a command is to fail, not to wait, when nobody is there.
async fn open(address: &str) -> Result<Channel, CliError> {
    if address.starts_with("https:") {
        return Err(CliError::Usage(format!("{address}: TLS is not supported yet; use http://")));
    }
    let full = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    let endpoint =
        Endpoint::from_shared(full.clone()).map_err(|error| CliError::Usage(format!("{address:?} is no address: {error}")))?;
    let endpoint = endpoint.connect_timeout(Duration::from_secs(5)).tcp_nodelay(true);
    endpoint.connect().await.map_err(|error| CliError::Unreachable { address: full, source: error.into() })
}
