//! Where SQLite's calls run: they block.

use std::error::Error;

use diesel_async::sync_connection_wrapper::SpawnBlocking;
use futures_util::future::BoxFuture;

/// Where calls run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Executor {
    /// On the threads that the runtime keeps for what blocks: a disk may let a call wait.
    Threads,
    /// Where they are made. A database in memory never waits, and a step on it is over faster than its way to another thread
    /// and back; so it also ends where it began, at no other moment, however busy the machine is.
    Here,
}

impl SpawnBlocking for Executor {
    fn spawn_blocking<'a, R>(
        &mut self,
        task: impl FnOnce() -> R + Send + 'static,
    ) -> BoxFuture<'a, Result<R, Box<dyn Error + Send + Sync + 'static>>>
    where
        R: Send + 'static,
    {
        match self {
            Self::Threads => Box::pin(async move { tokio::task::spawn_blocking(task).await.map_err(Into::into) }),
            Self::Here => Box::pin(async move { Ok(task()) }),
        }
    }

    fn get_runtime() -> Self {
        Self::Threads
    }
}
