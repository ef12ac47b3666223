//! What waits becomes one batch.
//!
//! While one batch is in flight the next collects; a lone item goes at once, and no timer delays anything. Every hop of the
//! system takes its work like this.

use std::{fmt, sync::Arc};

use tokio::sync::{Semaphore, mpsc, oneshot};
use tracing::Instrument as _;

/// Why an item was not taken, or has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// Too much is waiting already: tell the caller to come back.
    #[error("too much is waiting")]
    Busy,
    /// The batcher is gone, or the batch with this item ended without an answer. Whether it took effect is unknown.
    #[error("no answer; the outcome is unknown")]
    Unanswered,
}

/// Bounds of a [`Batcher`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatcherOptions {
    /// Items in one batch.
    pub max_batch: usize,
    /// Items that may wait, beyond those in flight.
    pub max_waiting: usize,
    /// Batches in flight at once. More than one lets an item overtake another.
    pub lanes: usize,
}

struct Item<I, O> {
    input: I,
    answer: oneshot::Sender<O>,
}

/// Takes items from many callers to a function over batches. Clones share one queue; the loop ends with the last of them, after
/// what was taken is done.
pub struct Batcher<I, O> {
    sender: mpsc::Sender<Item<I, O>>,
}

impl<I, O> Clone for Batcher<I, O> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone() }
    }
}

impl<I, O> fmt::Debug for Batcher<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batcher").field("free", &self.sender.capacity()).finish()
    }
}

impl<I: Send + 'static, O: Send + 'static> Batcher<I, O> {
    /// Starts the loop. `work` gets the inputs of a batch in order of arrival, at least one, and returns one answer for each, in
    /// the same order.
    pub fn spawn<F, Fut>(options: BatcherOptions, work: F) -> Self
    where
        F: Fn(Vec<I>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Vec<O>> + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel(options.max_waiting.max(1));
        tokio::spawn(run(receiver, options, Arc::new(work)).in_current_span());
        Self { sender }
    }

    /// Hands over an item and waits for its answer. Dropping the returned future takes nothing away from others, and does not
    /// undo the item once it was taken.
    ///
    /// # Errors
    /// [`SubmitError::Busy`] when the queue is full: nothing was done.
    pub async fn submit(&self, input: I) -> Result<O, SubmitError> {
        let (answer, answered) = oneshot::channel();
        self.sender.try_send(Item { input, answer }).map_err(refused)?;
        answered.await.map_err(|_| SubmitError::Unanswered)
    }

    /// As [`Batcher::submit`], but waits for room instead of answering busy: for callers that are bounded themselves.
    ///
    /// # Errors
    /// [`SubmitError::Unanswered`] only.
    pub async fn submit_waiting(&self, input: I) -> Result<O, SubmitError> {
        let (answer, answered) = oneshot::channel();
        self.sender.send(Item { input, answer }).await.map_err(|_| SubmitError::Unanswered)?;
        answered.await.map_err(|_| SubmitError::Unanswered)
    }

    /// Items that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.sender.max_capacity() - self.sender.capacity()
    }
}

fn refused<T>(error: mpsc::error::TrySendError<T>) -> SubmitError {
    match error {
        mpsc::error::TrySendError::Full(_) => SubmitError::Busy,
        mpsc::error::TrySendError::Closed(_) => SubmitError::Unanswered,
    }
}

async fn run<I, O, F, Fut>(mut receiver: mpsc::Receiver<Item<I, O>>, options: BatcherOptions, work: Arc<F>)
where
    I: Send + 'static,
    O: Send + 'static,
    F: Fn(Vec<I>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Vec<O>> + Send + 'static,
{
    let lanes = Arc::new(Semaphore::new(options.lanes.max(1)));
    let mut items = Vec::new();
    // The lane comes before the items: what arrives while all lanes are taken joins the batch.
    while let Ok(lane) = Arc::clone(&lanes).acquire_owned().await {
        if receiver.recv_many(&mut items, options.max_batch.max(1)).await == 0 {
            return;
        }
        // A caller that has gone away while its item waited does not want it done any more.
        let (inputs, answers): (Vec<_>, Vec<_>) =
            items.drain(..).filter(|item| !item.answer.is_closed()).map(|item| (item.input, item.answer)).unzip();
        if inputs.is_empty() {
            continue;
        }
        let work = Arc::clone(&work);
        // A task of its own: a panic costs this batch its answers and nothing else.
        let batch = async move {
            let outputs = work(inputs).await;
            debug_assert_eq!(outputs.len(), answers.len(), "one answer for each item");
            for (answer, output) in answers.into_iter().zip(outputs) {
                // The caller may have gone away meanwhile.
                let _ = answer.send(output);
            }
            drop(lane);
        };
        tokio::spawn(batch.in_current_span());
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Mutex, time::Duration};

    use futures_util::future::join_all;

    use super::*;

    const OPTIONS: BatcherOptions = BatcherOptions { max_batch: 4, max_waiting: 8, lanes: 1 };

    type Seen = Arc<Mutex<Vec<Vec<u32>>>>;

    /// A batcher that doubles, waits for a permit per batch, and notes each batch.
    fn gated(options: BatcherOptions) -> (Batcher<u32, u32>, Arc<Semaphore>, Seen) {
        let gate = Arc::new(Semaphore::new(0));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (held, noted) = (Arc::clone(&gate), Arc::clone(&seen));
        let batcher = Batcher::spawn(options, move |inputs: Vec<u32>| {
            let held = Arc::clone(&held);
            noted.lock().unwrap().push(inputs.clone());
            async move {
                held.acquire().await.unwrap().forget();
                assert!(!inputs.contains(&666), "told to panic");
                inputs.iter().map(|input| input * 2).collect()
            }
        });
        (batcher, gate, seen)
    }

    async fn until(mut condition: impl FnMut() -> bool) {
        let met = async {
            while !condition() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), met).await.unwrap();
    }

    fn submit(batcher: &Batcher<u32, u32>, input: u32) -> tokio::task::JoinHandle<Result<u32, SubmitError>> {
        let batcher = batcher.clone();
        tokio::spawn(async move { batcher.submit(input).await })
    }

    #[tokio::test]
    async fn what_waits_becomes_one_batch() {
        let (batcher, gate, seen) = gated(OPTIONS);
        let first = submit(&batcher, 1);
        until(|| seen.lock().unwrap().len() == 1).await;
        let rest: Vec<_> = (2..8).map(|input| submit(&batcher, input)).collect();
        until(|| batcher.waiting() == 6).await;
        gate.add_permits(3);
        assert_eq!(first.await.unwrap(), Ok(2));
        let answers: Vec<_> = join_all(rest).await.into_iter().map(|answer| answer.unwrap().unwrap()).collect();
        assert_eq!(answers, [4, 6, 8, 10, 12, 14]);
        assert_eq!(*seen.lock().unwrap(), [vec![1], vec![2, 3, 4, 5], vec![6, 7]]);
    }

    #[tokio::test]
    async fn a_full_queue_says_busy() {
        let (batcher, gate, seen) = gated(OPTIONS);
        let first = submit(&batcher, 0);
        until(|| seen.lock().unwrap().len() == 1).await;
        let waiting: Vec<_> = (1..9).map(|input| submit(&batcher, input)).collect();
        until(|| batcher.waiting() == 8).await;
        assert_eq!(batcher.submit(9).await, Err(SubmitError::Busy));
        gate.add_permits(10);
        assert!(first.await.unwrap().is_ok());
        assert!(join_all(waiting).await.into_iter().all(|answer| answer.unwrap().is_ok()));
    }

    #[tokio::test]
    async fn callers_that_go_away_cost_others_nothing() {
        let (batcher, gate, seen) = gated(OPTIONS);
        let taken = submit(&batcher, 1);
        until(|| seen.lock().unwrap().len() == 1).await;
        let dropped = submit(&batcher, 2);
        until(|| batcher.waiting() == 1).await;
        let kept = submit(&batcher, 3);
        until(|| batcher.waiting() == 2).await;
        taken.abort();
        dropped.abort();
        let _ = (taken.await, dropped.await);
        gate.add_permits(2);
        assert_eq!(kept.await.unwrap(), Ok(6));
        assert_eq!(*seen.lock().unwrap(), [vec![1], vec![3]]);
    }

    #[tokio::test]
    async fn lanes_bound_the_batches_in_flight() {
        let (batcher, gate, seen) = gated(BatcherOptions { lanes: 2, ..OPTIONS });
        let mut answers = Vec::new();
        for input in 0..2 {
            answers.push(submit(&batcher, input));
            until(|| seen.lock().unwrap().len() == input as usize + 1).await;
        }
        answers.push(submit(&batcher, 2));
        until(|| batcher.waiting() == 1).await;
        assert_eq!(seen.lock().unwrap().len(), 2);
        gate.add_permits(3);
        assert!(join_all(answers).await.into_iter().all(|answer| answer.unwrap().is_ok()));
    }

    #[tokio::test]
    async fn a_panic_costs_its_own_batch_only() {
        let (batcher, gate, _) = gated(OPTIONS);
        gate.add_permits(2);
        assert_eq!(batcher.submit(666).await, Err(SubmitError::Unanswered));
        assert_eq!(batcher.submit(1).await, Ok(2));
    }
}
