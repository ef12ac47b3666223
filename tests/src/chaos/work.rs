//! What a task asks of its handler.

use std::time::Duration;

use oxcart_sdk::{TaskContext, TaskError, TaskResult};
use oxcart_types::Payload;
use serde::{Deserialize, Serialize};

use super::record::Recorder;

/// Name of the handler.
pub const TASK_NAME: &str = "chaos.work";

/// What a task asks of its handler: the payload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Work {
    /// Number of the task in its load.
    pub n: u64,
    /// Milliseconds that each run takes.
    pub ms: u64,
    /// So many attempts fail.
    pub fails: u32,
    /// So many runs are given back.
    pub releases: u32,
    /// It does not listen when it is asked to stop.
    pub deaf: bool,
    /// It harms the process that it runs in.
    pub poison: Option<Poison>,
}

/// How a handler harms its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Poison {
    /// Ends the process at once.
    Abort,
    /// Calls itself until the stack is used up.
    Overflow,
    /// Panics, which harms nobody else.
    Panic,
    /// Keeps a thread of the executor for as long as it runs.
    Block,
}

/// Delay of a run that is given back.
const RELEASED_FOR: Duration = Duration::from_millis(200);

/// Does the work, and notes what it sees.
///
/// # Errors
/// As the work asks.
pub async fn run(recorder: Recorder, ctx: TaskContext, payload: Payload) -> TaskResult<Payload> {
    let stay = recorder.enter(&ctx);
    let work: Work = serde_json::from_slice(payload.as_bytes()).map_err(TaskError::fatal)?;
    harm(work);
    let pause = tokio::time::sleep(Duration::from_millis(work.ms));
    let stopped = if work.deaf {
        pause.await;
        Ok(())
    } else {
        ctx.or_cancelled(pause).await
    };
    let ended = stopped.and_then(|()| {
        if ctx.run().get() <= work.releases {
            Err(ctx.release(RELEASED_FOR, "not yet"))
        } else if ctx.attempt() <= work.fails {
            Err(TaskError::retryable("as it was asked to"))
        } else {
            // Differs from run to run: the ledger tells by it whose result stands.
            Ok(format!(r#"{{"n":{},"run":{},"worker":"{}"}}"#, work.n, ctx.run(), ctx.worker_id()))
        }
    });
    match ended {
        Ok(result) => {
            stay.returns(&result);
            Ok(Payload::json(result, &oxcart_types::Limits::default()).map_err(TaskError::fatal)?)
        }
        Err(error) => {
            stay.fails();
            Err(error)
        }
    }
}

/// Does the harm that is asked for.
#[expect(clippy::panic, reason = "what it is for")]
fn harm(work: Work) {
    match work.poison {
        None => {}
        Some(Poison::Abort) => std::process::abort(),
        Some(Poison::Overflow) => drop(overflow(work.n)),
        Some(Poison::Panic) => panic!("as it was asked to"),
        #[expect(clippy::disallowed_methods, reason = "what it is for")]
        Some(Poison::Block) => std::thread::sleep(Duration::from_millis(work.ms)),
    }
}

/// Never returns, and is no tail call.
#[expect(unconditional_recursion, reason = "what it is for")]
#[inline(never)]
fn overflow(n: u64) -> u64 {
    let frame = std::hint::black_box([n; 64]);
    overflow(n.wrapping_add(1)).wrapping_add(frame[1])
}

#[cfg(test)]
mod tests {
    use oxcart_types::Limits;

    use super::*;

    async fn result(work: Work) -> TaskResult<Payload> {
        let folder = tempfile::tempdir().unwrap();
        let recorder = Recorder::open(&folder.path().join("notes")).unwrap();
        let payload = Payload::json(serde_json::to_string(&work).unwrap(), &Limits::default()).unwrap();
        run(recorder, TaskContext::detached().0, payload).await
    }

    #[tokio::test]
    async fn it_does_as_it_is_asked() {
        let result_of = |work| async move { result(work).await.map_err(|error| error.kind_str().to_owned()) };
        assert!(result_of(Work { n: 7, ms: 1, ..Work::default() }).await.unwrap().as_bytes().starts_with(br#"{"n":7,"run":1,"#));
        assert!(result_of(Work { fails: 1, ..Work::default() }).await.is_err());
        assert!(result_of(Work { releases: 1, ..Work::default() }).await.is_err());
    }
}
