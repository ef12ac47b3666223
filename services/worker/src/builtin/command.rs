//! `command.run`: runs a program that the settings allow, without a shell.

use std::{collections::BTreeMap, path::PathBuf, process::Stdio, sync::Arc};

use oxcart_sdk::{TaskContext, TaskError, TaskResult};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
};

/// Which programs may be run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CommandConfig {
    /// Programs, as tasks must name them: absolute paths. None by default.
    pub allow: Vec<PathBuf>,
    /// Bytes kept of each of the two outputs; what is beyond is read and dropped.
    pub max_output_bytes: usize,
}

impl Default for CommandConfig {
    fn default() -> Self {
        Self { allow: Vec::new(), max_output_bytes: 64 * 1024 }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Input {
    /// Absolute path.
    program: PathBuf,
    /// Arguments, as they are.
    #[serde(default)]
    args: Vec<String>,
    /// What the program reads.
    #[serde(default)]
    stdin: String,
    /// The whole environment of the program, but for PATH.
    #[serde(default)]
    env: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Output {
    exit_code: i32,
    stdout: String,
    stderr: String,
    /// An output was longer than what is kept.
    truncated: bool,
}

/// Returns what the program wrote when it ends with 0; any other end is a failure that is retried.
pub(super) async fn run(config: Arc<CommandConfig>, ctx: TaskContext, input: Input) -> TaskResult<Output> {
    if !input.program.is_absolute() || !config.allow.contains(&input.program) {
        return Err(TaskError::fatal(format!("{} is not allowed", input.program.display())).kind("ProgramNotAllowed"));
    }
    let mut command = Command::new(&input.program);
    command.args(&input.args).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").envs(&input.env);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A handler that is aborted takes its program with it.
    command.kill_on_drop(true);
    let mut child = command.spawn()?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let write = async {
        if let Some(mut stdin) = stdin {
            // A program that does not read its input is within its rights.
            let _ = stdin.write_all(input.stdin.as_bytes()).await;
        }
    };
    let limit = config.max_output_bytes;
    let finished = async { tokio::join!(child.wait(), read(stdout, limit), read(stderr, limit), write) };
    let (status, stdout, stderr, ()) = ctx.or_cancelled(finished).await?;
    let (status, (stdout, cut_out), (stderr, cut_err)) = (status?, stdout?, stderr?);
    match status.code() {
        Some(0) => Ok(Output { exit_code: 0, stdout, stderr, truncated: cut_out || cut_err }),
        code => Err(TaskError::retryable(format!("{} ended with {status}", input.program.display()))
            .kind(code.map_or_else(|| "Signal".to_owned(), |code| format!("Exit{code}")))
            .detail(stderr)),
    }
}

/// Reads to the end, and keeps the beginning.
async fn read(pipe: Option<impl AsyncRead + Unpin>, limit: usize) -> std::io::Result<(String, bool)> {
    let Some(mut pipe) = pipe else { return Ok(Default::default()) };
    let mut kept = Vec::new();
    (&mut pipe).take(limit as u64).read_to_end(&mut kept).await?;
    let dropped = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await?;
    Ok((String::from_utf8_lossy(&kept).into_owned(), dropped > 0))
}

#[cfg(test)]
mod tests {
    use oxcart_sdk::StopReason;

    use super::*;

    fn config() -> Arc<CommandConfig> {
        Arc::new(CommandConfig { allow: vec!["/bin/sh".into()], max_output_bytes: 5 })
    }

    fn shell(script: &str) -> Input {
        Input { program: "/bin/sh".into(), args: vec!["-c".into(), script.into()], stdin: "in".into(), env: BTreeMap::new() }
    }

    #[tokio::test]
    async fn outputs_are_cut_and_exit_codes_told() {
        let (ctx, _) = TaskContext::detached();
        let output = run(config(), ctx.clone(), shell("cat; printf 12345678; echo e >&2")).await.expect("0");
        assert_eq!((output.stdout.as_str(), output.stderr.as_str(), output.truncated), ("in123", "e\n", true));
        assert_eq!(run(config(), ctx.clone(), shell("exit 3")).await.expect_err("3").kind_str(), "Exit3");
        let other = Input { program: "/bin/cat".into(), ..shell("") };
        assert_eq!(run(config(), ctx, other).await.expect_err("not allowed").kind_str(), "ProgramNotAllowed");
    }

    #[tokio::test]
    async fn a_cancel_kills_it() {
        let (ctx, detached) = TaskContext::detached();
        detached.stop(StopReason::Shutdown);
        assert_eq!(run(config(), ctx, shell("sleep 600")).await.expect_err("stopped"), TaskError::cancelled());
    }
}
