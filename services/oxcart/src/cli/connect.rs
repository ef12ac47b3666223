//! Reaching a running system.

use std::time::Duration;

use oxcart_proto::pb::{
    monitor::v1::monitor_service_client::MonitorServiceClient, submission::v1::submission_service_client::SubmissionServiceClient,
};
use oxcart_types::Limits;
use tonic::transport::{Channel, Endpoint};

use super::{CliError, Global};

/// Room above what may be submitted: a page of tasks, or a task with its result, is larger.
const MAX_ANSWER_BYTES: usize = 16 * Limits::MESSAGE_BYTES;

impl Global {
    /// A channel to the system, opened when first used.
    pub(super) fn channel(&self) -> Result<Channel, CliError> {
        open(&self.address)
    }

    /// The submission service.
    pub(super) fn submission(&self) -> Result<SubmissionServiceClient<Channel>, CliError> {
        Ok(SubmissionServiceClient::new(self.channel()?).max_decoding_message_size(MAX_ANSWER_BYTES))
    }

    /// The monitor service.
    pub(super) fn monitor(&self) -> Result<MonitorServiceClient<Channel>, CliError> {
        let channel = open(self.monitor_address.as_ref().unwrap_or(&self.address))?;
        Ok(MonitorServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES))
    }
}

/// Not the balanced channel of the services: a command is to fail, not to wait, when nobody is there.
fn open(address: &str) -> Result<Channel, CliError> {
    let full = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    let endpoint = Endpoint::from_shared(full).map_err(|error| CliError::Usage(format!("{address:?} is no address: {error}")))?;
    Ok(endpoint.connect_timeout(Duration::from_secs(5)).tcp_nodelay(true).connect_lazy())
}
