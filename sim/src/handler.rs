//! The handler that all tasks of a world have: it takes some time, comes to something, and tells the ledger.

use std::{sync::Arc, time::Duration};

use oxcart_ledger::{Left, Observation};
use oxcart_sdk::{HandlerNameError, Handlers, TaskContext, TaskError, TaskResult};
use oxcart_types::{Payload, Run, TaskId};

use crate::{
    shared::{Shared, pass},
    time::wall,
};

/// Its name.
pub const NAME: &str = "sim";

/// How handlers behave.
#[derive(Debug, Clone, Copy)]
pub struct Manners {
    /// They fail, give back, and do not stop when they are asked to.
    pub rough: bool,
    /// The longest take about this long.
    pub longest: Duration,
}

/// The handlers of a worker.
///
/// # Errors
/// None: the name is good.
pub fn handlers(shared: &Arc<Shared>, manners: Manners) -> Result<Handlers, HandlerNameError> {
    let shared = Arc::clone(shared);
    Handlers::new().handle_raw(NAME, move |ctx, _payload: Payload| work(Arc::clone(&shared), manners, ctx))
}

/// A stay in the handler: however it ends, the ledger hears of it.
struct Stay {
    shared: Arc<Shared>,
    task: TaskId,
    run: Run,
    how: Left,
}

impl Stay {
    fn enter(shared: &Arc<Shared>, ctx: &TaskContext) -> Self {
        let (task, run) = (ctx.task_id(), ctx.run());
        shared.see(Observation::Entered { task, run, worker: ctx.worker_id(), at: wall(shared.now()) });
        Self { shared: Arc::clone(shared), task, run, how: Left::Dropped }
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        let how = std::mem::replace(&mut self.how, Left::Dropped);
        let at = wall(self.shared.now());
        self.shared.see(Observation::Left { task: self.task, run: self.run, how, at });
    }
}

/// What a handler comes to when nobody stops it.
enum Outcome {
    Succeed,
    Fail,
    FailForGood,
    Release(Duration),
}

async fn work(shared: Arc<Shared>, manners: Manners, ctx: TaskContext) -> TaskResult<Payload> {
    let mut stay = Stay::enter(&shared, &ctx);
    let (time, outcome, stops, nonce) = {
        let mut rng = shared.rng();
        let longest = u64::try_from(manners.longest.as_millis()).unwrap_or(u64::MAX);
        let time = rng.varied(0, &[0, 100, 1500, 20_000, longest]);
        let outcome = match rng.below(100) {
            0..70 => Outcome::Succeed,
            70..85 => Outcome::Fail,
            85..90 => Outcome::FailForGood,
            _ if manners.rough => Outcome::Release(rng.millis(0, 5000)),
            _ => Outcome::Fail,
        };
        (time.min(manners.longest), outcome, !manners.rough || rng.percent(75), rng.next())
    };
    if nonce.is_multiple_of(4) {
        ctx.progress(1, 2, "at work");
        ctx.checkpoint(&nonce)?;
    }
    tokio::select! {
        biased;
        () = pass(time) => {}
        () = ctx.cancellation().cancelled(), if stops => {
            stay.how = Left::Failed;
            return Err(TaskError::cancelled());
        }
    }
    let result = match outcome {
        Outcome::Succeed => {
            let text = format!("{{\"run\":{},\"nonce\":{nonce}}}", ctx.run());
            stay.how = Left::Returned(text.clone().into_bytes());
            return Ok(Payload::from_stored("application/json".to_owned(), text.into_bytes()));
        }
        Outcome::Fail => TaskError::retryable("told to fail"),
        Outcome::FailForGood => TaskError::fatal("told to fail for good"),
        Outcome::Release(delay) => ctx.release(delay, "told to give back"),
    };
    stay.how = Left::Failed;
    Err(result)
}
