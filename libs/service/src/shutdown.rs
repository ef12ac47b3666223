//! From signals to a token.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::error::ServiceError;

/// A token that is cancelled by the first SIGTERM or SIGINT. The second ends the process at once, with the status that shells
/// use for it: whoever presses Ctrl-C twice does not want to wait for a drain.
///
/// # Errors
/// When the handlers cannot be installed.
#[expect(clippy::exit, reason = "the documented meaning of a second signal")]
pub fn on_signal() -> Result<CancellationToken, ServiceError> {
    const INTERRUPTED: i32 = 130;
    let mut terminate = signal(SignalKind::terminate()).map_err(ServiceError::io("cannot handle SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServiceError::io("cannot handle SIGINT"))?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        };
        let name = next().await;
        tracing::info!(signal = name, "shutting down; a second signal ends at once");
        cancelled.cancel();
        next().await;
        std::process::exit(INTERRUPTED);
    });
    Ok(token)
}
