//! One direction of one connection.

use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::tcp::{OwnedReadHalf, OwnedWriteHalf},
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    conditions::{Conditions, Flow},
    dice::Dice,
};

/// Bytes read in one go: what is delayed, and lost, together.
const CHUNK_BYTES: usize = 16 * 1024;
/// Chunks on their way at once, as in the buffers of a network; the sender waits when they are full.
const CHUNKS_ON_THE_WAY: usize = 64;
/// A direction with a rate passes so many slices in a second.
const SLICES_PER_SECOND: u32 = 20;

/// Bytes on their way.
struct Chunk {
    bytes: Vec<u8>,
    read_at: Instant,
}

/// What a pump needs to know.
#[derive(Clone)]
pub(super) struct Pump {
    /// Which direction of the conditions counts.
    pub(super) of: fn(&Conditions) -> Flow,
    pub(super) conditions: watch::Receiver<Conditions>,
    pub(super) dice: Arc<Dice>,
    /// Resets the connection.
    pub(super) reset: CancellationToken,
}

impl Pump {
    /// Carries bytes until either side closes; then says so to the other.
    pub(super) async fn run(self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let (tx, rx) = mpsc::channel(CHUNKS_ON_THE_WAY);
        let reading = async move {
            loop {
                let mut bytes = vec![0; CHUNK_BYTES];
                match from.read(&mut bytes).await {
                    Ok(0) | Err(_) => return,
                    Ok(read) => bytes.truncate(read),
                }
                if tx.send(Chunk { bytes, read_at: Instant::now() }).await.is_err() {
                    return;
                }
            }
        };
        let reset = self.reset.clone();
        let writing = self.write(rx, &mut to);
        tokio::select! {
            () = reset.cancelled() => {}
            // Reading first ends its channel, then writing has written the rest and ends.
            ((), ()) = async { tokio::join!(reading, writing) } => {
                let _closed_already = to.shutdown().await;
                return;
            }
        }
        let _gone_already = to.as_ref().set_zero_linger();
        // Dropping it would say goodbye first.
        to.forget();
    }

    async fn write(mut self, mut chunks: mpsc::Receiver<Chunk>, to: &mut OwnedWriteHalf) {
        while let Some(chunk) = chunks.recv().await {
            let severs = (self.of)(&self.conditions.borrow()).sever_one_in;
            if severs.is_some_and(|one_in| self.dice.one_in(one_in.get())) {
                self.reset.cancel();
                return;
            }
            let late = self.dice.share();
            self.arrive(&chunk, late).await;
            if !self.deliver(&chunk.bytes, to).await {
                return;
            }
        }
    }

    /// Waits until a chunk arrives under the conditions as they change.
    async fn arrive(&mut self, chunk: &Chunk, late: f64) {
        loop {
            let flow = (self.of)(&self.conditions.borrow_and_update());
            let at = chunk.read_at + flow.delay + flow.jitter.mul_f64(late);
            if !flow.hold && at <= Instant::now() {
                return;
            }
            let arrival = async {
                match flow.hold {
                    true => std::future::pending().await,
                    false => sleep_until(at).await,
                }
            };
            tokio::select! {
                () = arrival => {}
                changed = self.conditions.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Writes bytes, in slices where there is a rate; false when the other side is gone.
    async fn deliver(&mut self, bytes: &[u8], to: &mut OwnedWriteHalf) -> bool {
        let mut rest = bytes;
        while !rest.is_empty() {
            let flow = (self.of)(&self.conditions.borrow_and_update());
            if flow.hold {
                if self.conditions.changed().await.is_err() {
                    return false;
                }
                continue;
            }
            let slice = match flow.bytes_per_second {
                Some(rate) => usize::try_from(rate.get() / SLICES_PER_SECOND).unwrap_or(usize::MAX).clamp(1, rest.len()),
                None => rest.len(),
            };
            if to.write_all(&rest[..slice]).await.is_err() {
                return false;
            }
            rest = &rest[slice..];
            if let Some(rate) = flow.bytes_per_second {
                let pause = std::time::Duration::from_secs_f64(slice as f64 / f64::from(rate.get()));
                tokio::select! {
                    () = sleep(pause) => {}
                    // A change of conditions counts at once.
                    changed = self.conditions.changed() => if changed.is_err() { return false },
                }
            }
        }
        true
    }
}
