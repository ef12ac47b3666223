//! A program that tests start, kill, freeze and start again.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    process::{ChildGuard, Signal},
    wait::wait_for,
};

/// A program under the control of a test: the one home of killing, freezing and starting again, which servers and services
/// share. One process of it runs at a time; its output goes to one log over all of them. It ends with its handle.
#[derive(Debug)]
pub struct ManagedProcess {
    name: String,
    log: PathBuf,
    scratch: Option<PathBuf>,
    child: Mutex<Option<ChildGuard>>,
}

impl ManagedProcess {
    /// Starts nothing yet. `name` is what messages call it, `log` takes the output. With `scratch`, that directory is removed
    /// should this process die without dropping the handle.
    pub fn new(name: impl Into<String>, log: PathBuf, scratch: Option<PathBuf>) -> Self {
        Self { name: name.into(), log, scratch, child: Mutex::new(None) }
    }

    /// Starts it, killing it first if it runs, and waits until `answers` says so.
    ///
    /// # Errors
    /// It cannot be started, ends at its start, or does not answer within `timeout`.
    pub async fn start<F, Fut>(&self, command: Command, timeout: Duration, answers: F) -> Result<()>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = bool>,
    {
        self.spawn(command)?;
        let what = format!("{} to answer", self.name);
        let up =
            wait_for(&what, timeout, || async { if self.has_exited() { Some(false) } else { answers().await.then_some(true) } });
        // Whoever holds the port may be another program that answers as well: only a child that lives counts.
        let up = up.await.with_context(|| format!("{} said:\n{}", self.name, self.output()))?;
        if up && !self.has_exited() {
            return Ok(());
        }
        self.kill()?;
        bail!("{} ended at its start:\n{}", self.name, self.output())
    }

    /// Starts it without waiting, killing it first if it runs.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&self, command: Command) -> Result<()> {
        self.kill()?;
        *self.child() = Some(ChildGuard::spawn(command, &self.log, self.scratch.as_deref())?);
        Ok(())
    }

    /// The process id while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child().as_ref().map(ChildGuard::id)
    }

    /// True when it was never started, was killed, or has ended by itself.
    #[must_use]
    pub fn has_exited(&self) -> bool {
        self.child().as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)))
    }

    /// Ends it at once, as a crash does.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn kill(&self) -> Result<()> {
        self.child().take().map_or(Ok(()), |mut child| child.kill())
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Errors
    /// When it does not run, or has not ended within `timeout`; it is killed then.
    pub async fn terminate(&self, timeout: Duration) -> Result<ExitStatus> {
        let mut child = self.child().take().with_context(|| format!("{} does not run", self.name))?;
        child.signal(Signal::Terminate)?;
        child.wait(timeout).await.with_context(|| format!("{} said:\n{}", self.name, self.output()))
    }

    /// Freezes it: its connections stay open and nothing answers.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::Stop)
    }

    /// Thaws it.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::Continue)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.child().as_ref().with_context(|| format!("{} does not run", self.name))?.signal(signal)
    }

    /// What it has written so far, over all of its starts.
    #[must_use]
    pub fn output(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Where its output goes.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    fn child(&self) -> MutexGuard<'_, Option<ChildGuard>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn managed(directory: &Path) -> ManagedProcess {
        ManagedProcess::new("the program", directory.join("log"), None)
    }

    #[tokio::test]
    async fn one_that_ends_at_its_start_tells_why() {
        let directory = tempfile::tempdir().unwrap();
        let program = managed(directory.path());
        let error = program.start(shell("echo no luck; exit 3"), SOON, || async { false }).await.unwrap_err();
        assert!(error.to_string().contains("no luck"), "{error:#}");
        assert!(program.has_exited());
    }

    #[tokio::test]
    async fn it_can_be_killed_and_started_again() {
        let directory = tempfile::tempdir().unwrap();
        let program = managed(directory.path());
        program.start(shell("echo first; exec sleep 600"), SOON, || async { true }).await.unwrap();
        let first = program.id().unwrap();
        program.kill().unwrap();
        assert!(program.has_exited() && program.id().is_none());
        assert!(program.pause().is_err());
        program.spawn(shell("echo second; exec sleep 600")).unwrap();
        assert_ne!(program.id().unwrap(), first);
        let both = || std::future::ready((program.output() == "first\nsecond\n").then_some(()));
        wait_for("both outputs", SOON, both).await.unwrap();
        assert!(!program.terminate(SOON).await.unwrap().success());
    }
}
