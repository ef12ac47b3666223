//! A worker process: the real worker service, with handlers that note what they see, and with a clock that a test can move.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use oxcart::{
    Config,
    compose::{self, Shared},
};
use oxcart_sdk::Handlers;
use oxcart_service::{Server, channel, shutdown, telemetry};
use oxcart_types::{Clock, SystemClock, Timestamp};
use tokio::net::TcpListener;

use super::{record::Recorder, work};

/// The file that moves the clock is read this often.
const CLOCK_PERIOD: Duration = Duration::from_millis(50);

/// How a worker process is started.
#[derive(Debug, Clone, clap::Args)]
pub struct WorkerArgs {
    /// Configuration file
    #[arg(long)]
    config: PathBuf,
    /// Where it listens for gRPC
    #[arg(long)]
    grpc: std::net::SocketAddr,
    /// Where it listens for probes
    #[arg(long)]
    admin: std::net::SocketAddr,
    /// Where the notes of its handlers go
    #[arg(long)]
    notes: PathBuf,
    /// File with the milliseconds by which its clock is wrong; right while there is none
    #[arg(long)]
    clock: PathBuf,
}

/// Runs until it is asked to end.
///
/// # Errors
/// It cannot start, or does not end in order.
pub async fn run(args: WorkerArgs) -> Result<()> {
    let config = Config::load(Some(&args.config))?;
    config.check().map_err(anyhow::Error::msg)?;
    let _telemetry = telemetry::init(&config.telemetry, "oxcart-worker")?;
    let shutdown = shutdown::on_signal()?;
    let (grpc, admin) = (TcpListener::bind(args.grpc).await?, TcpListener::bind(args.admin).await?);
    let recorder = Recorder::open(&args.notes).with_context(|| args.notes.display().to_string())?;
    let handlers = Handlers::new().handle_raw(work::TASK_NAME, move |ctx, payload| work::run(recorder.clone(), ctx, payload))?;
    let clock = Arc::new(WrongClock::default());
    tokio::spawn(follow(args.clock, Arc::clone(&clock)));
    let shared = Shared { clock, ..Shared::default() };
    let store = compose::store(&config).await?;
    let dispatcher = channel::connect(config.server.dispatcher_addresses.as_slice())?;
    let worker = compose::worker(&config, store, dispatcher, handlers, &shared)?;
    let server = Server::new(compose::server_options(&config, &shared)).with(worker);
    Ok(Box::pin(server.serve(grpc, Some(admin), shutdown)).await?)
}

/// A clock that is wrong by some milliseconds.
#[derive(Debug, Default)]
struct WrongClock(AtomicI64);

impl Clock for WrongClock {
    fn now(&self) -> Timestamp {
        let now = SystemClock.now();
        let offset = chrono::TimeDelta::milliseconds(self.0.load(Ordering::Relaxed));
        now.checked_add_signed(offset).unwrap_or(now)
    }
}

async fn follow(file: PathBuf, clock: Arc<WrongClock>) {
    loop {
        clock.0.store(offset(&file), Ordering::Relaxed);
        tokio::time::sleep(CLOCK_PERIOD).await;
    }
}

fn offset(file: &Path) -> i64 {
    std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_as_wrong_as_the_file_says() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("clock");
        assert_eq!(offset(&file), 0);
        std::fs::write(&file, "-3600000\n").unwrap();
        let clock = WrongClock::default();
        clock.0.store(offset(&file), Ordering::Relaxed);
        let behind = SystemClock.now().signed_duration_since(clock.now());
        assert!((3_599_000..=3_601_000).contains(&behind.num_milliseconds()), "{behind}");
    }
}
