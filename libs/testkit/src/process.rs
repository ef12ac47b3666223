//! Child processes that die with their handle.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use crate::wait::wait_for;

/// Kills the child and removes its directory once the pipe on stdin closes, that is, when the test process is gone without having
/// dropped the guard: SIGKILL, abort, or a static. The alternative, PR_SET_PDEATHSIG, fires when the *thread* that started the
/// child ends, and test threads end before the process does.
const WATCHDOG: &str = r#"
read -r word
[ "$word" = done ] && exit 0
kill -KILL "$1" 2>/dev/null
tries=0
while kill -0 "$1" 2>/dev/null && [ $tries -lt 100 ]; do tries=$((tries + 1)); sleep 0.05; done
[ -n "$2" ] && rm -rf "$2"
"#;

/// What [`ChildGuard::signal`] can send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Asks to end.
    Terminate,
    /// Ends at once.
    Kill,
    /// Freezes.
    Stop,
    /// Thaws.
    Continue,
}

impl Signal {
    const fn flag(self) -> &'static str {
        match self {
            Self::Terminate => "-TERM",
            Self::Kill => "-KILL",
            Self::Stop => "-STOP",
            Self::Continue => "-CONT",
        }
    }
}

/// A child process. Its output goes to a file; dropping the guard kills it, and so does the end of this process.
#[derive(Debug)]
pub struct ChildGuard {
    child: Child,
    watchdog: Child,
    log: PathBuf,
}

impl ChildGuard {
    /// Starts `command` with its output in `log`, appended. With `scratch`, that directory is removed should this process die
    /// without dropping the guard.
    ///
    /// # Errors
    /// When the log cannot be opened or a process cannot be started.
    pub fn spawn(mut command: Command, log: &Path, scratch: Option<&Path>) -> Result<Self> {
        let output =
            File::options().create(true).append(true).open(log).with_context(|| format!("cannot open {}", log.display()))?;
        let program = command.get_program().to_owned();
        // In groups of their own: Ctrl-C in a terminal is for the tests, which then bring down the rest in order.
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog", &child.id().to_string()])
            .arg(scratch.unwrap_or(Path::new("")))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        match watchdog {
            Ok(watchdog) => Ok(Self { child, watchdog, log: log.to_owned() }),
            Err(error) => {
                end(child);
                Err(error).context("cannot start the watchdog")
            }
        }
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What the process has written so far.
    #[must_use]
    pub fn output(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The exit status, once it has ended.
    ///
    /// # Errors
    /// When the operating system does not say.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// When it has not within `timeout`.
    pub async fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let what = format!("process {} to end", self.child.id());
        wait_for(&what, timeout, || std::future::ready(self.child.try_wait().ok().flatten())).await
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        // The shell's own kill: no unsafe code, and it is there where no procps is.
        let status =
            Command::new("sh").args(["-c", r#"kill "$1" "$2""#, "kill", signal.flag(), &self.child.id().to_string()]).status()?;
        ensure!(status.success(), "process {} took no {signal:?}: {status}", self.child.id());
        Ok(())
    }

    /// Ends it at once (SIGKILL) and waits until it is gone.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for ChildGuard {
    fn drop(&mut self) {
        // The watchdog first: once the child is reaped its id may belong to somebody else.
        if let Some(mut stdin) = self.watchdog.stdin.take() {
            let _gone_already = stdin.write_all(b"done\n");
        }
        let _ended = self.watchdog.wait();
        let _gone_already = self.kill();
    }
}

fn end(mut child: Child) {
    let _gone_already = child.kill();
    let _reaped = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn alive(id: u32) -> bool {
        // A zombie has no command line, a running process has.
        fs::read(format!("/proc/{id}/cmdline")).is_ok_and(|line| !line.is_empty())
    }

    fn sleeper(directory: &Path) -> ChildGuard {
        let mut command = Command::new("sleep");
        command.arg("600");
        ChildGuard::spawn(command, &directory.join("log"), None).unwrap()
    }

    #[test]
    fn dies_with_its_guard() {
        let directory = tempfile::tempdir().unwrap();
        let guard = sleeper(directory.path());
        let id = guard.id();
        assert!(alive(id));
        drop(guard);
        assert!(!alive(id));
    }

    #[tokio::test]
    async fn dies_with_the_test_process() {
        let directory = tempfile::tempdir().unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let mut command = Command::new("sleep");
        command.arg("600");
        let mut guard = ChildGuard::spawn(command, &directory.path().join("log"), Some(scratch.path())).unwrap();
        // What the end of this process does to the watchdog: its pipe closes without a word.
        drop(guard.watchdog.stdin.take());
        guard.wait(SOON).await.unwrap();
        wait_for("the directory to go", SOON, || std::future::ready((!scratch.path().exists()).then_some(()))).await.unwrap();
    }

    #[tokio::test]
    async fn captures_output_and_status() {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; exit 3"]);
        let mut guard = ChildGuard::spawn(command, &directory.path().join("log"), None).unwrap();
        assert_eq!(guard.wait(SOON).await.unwrap().code(), Some(3));
        assert_eq!(guard.output(), "out\nerr\n");
    }

    #[tokio::test]
    async fn takes_signals() {
        let directory = tempfile::tempdir().unwrap();
        let mut guard = sleeper(directory.path());
        let stat = format!("/proc/{}/stat", guard.id());
        let stopped = || std::future::ready(fs::read_to_string(&stat).ok().filter(|stat| stat.contains(") T ")));
        guard.signal(Signal::Stop).unwrap();
        wait_for("the stop", SOON, stopped).await.unwrap();
        guard.signal(Signal::Continue).unwrap();
        guard.signal(Signal::Terminate).unwrap();
        assert!(!guard.wait(SOON).await.unwrap().success());
    }
}
