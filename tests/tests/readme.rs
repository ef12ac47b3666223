//! The README's grpcurl lines, run as printed against a system in embedded mode.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use oxcart::{Storage, System};

/// Stands above the block whose lines are run here.
const MARK: &str = "<!-- grpcurl: run by tests/tests/readme.rs -->";

fn lines(readme: &str) -> Result<Vec<String>> {
    let (_, rest) = readme.split_once(MARK).context("the README marks its grpcurl lines")?;
    let block = rest.trim_start().strip_prefix("```sh\n").context("a block follows the mark")?;
    let (block, _) = block.split_once("```").context("the block ends")?;
    let lines: Vec<_> = block.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
    ensure!(lines.iter().all(|line| line.starts_with("grpcurl ")), "only grpcurl lines: {lines:?}");
    Ok(lines)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_grpcurl_lines_of_the_readme_work() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let grpcurl = root.join(".tools/bin/grpcurl");
    ensure!(grpcurl.exists(), "{} is missing: run scripts/install-test-tools.sh", grpcurl.display());
    let readme = std::fs::read_to_string(root.join("README.md"))?;
    let system = System::embedded(Storage::InMemory).start().await?;
    let address = format!("localhost:{}", system.addresses().grpc.port());
    let mut task_id = String::new();
    let mut seen = Vec::new();
    for line in lines(&readme)? {
        let line = line.replace("localhost:7600", &address).replace("TASK_ID", &task_id);
        let line = line.replacen("grpcurl", &grpcurl.display().to_string(), 1);
        // Through a shell, as a reader's would be: the quotes are part of what is promised.
        let output = tokio::task::spawn_blocking({
            let line = line.clone();
            move || Command::new("sh").args(["-c", &line]).output()
        })
        .await??;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if line.contains("-max-time") {
            // A watch goes on until its time is up; what counts is what it has shown by then.
            ensure!(out.contains("cursor"), "{line}\n{out}\n{err}");
        } else {
            ensure!(output.status.success(), "{line}\n{out}\n{err}");
        }
        if let Ok(answer) = serde_json::from_str::<serde_json::Value>(&out)
            && let Some(id) = answer.pointer("/result/taskId").and_then(serde_json::Value::as_str)
        {
            id.clone_into(&mut task_id);
        }
        seen.push(out.into_owned());
    }
    let shown = seen.concat();
    for part in ["oxcart.submission.v1.SubmissionService", "rpc SubmitTask", "TASK_STATE_SUCCEEDED", "hello", "cursor"] {
        ensure!(shown.contains(part), "{part:?} is not in what the lines show:\n{shown}");
    }
    Ok(system.stop().await?)
}

/// Every mistake is told in words that grpcurl shows, not as base64.
#[tokio::test(flavor = "multi_thread")]
async fn grpcurl_shows_error_details() -> Result<()> {
    let grpcurl = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/bin/grpcurl");
    let system = System::embedded(Storage::InMemory).start().await?;
    let address = format!("localhost:{}", system.addresses().grpc.port());
    let output = tokio::task::spawn_blocking(move || {
        let method = "oxcart.submission.v1.SubmissionService/SubmitTask";
        Command::new(grpcurl).args(["-plaintext", "-d", r#"{"task": {"priority": 99}}"#, &address, method]).output()
    })
    .await??;
    let shown = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success(), "{shown}");
    for part in ["InvalidArgument", "FIELD_REQUIRED", "task.task_name", "task.priority", "google.rpc.BadRequest"] {
        ensure!(shown.contains(part), "{part:?} is not in:\n{shown}");
    }
    ensure!(!shown.contains("is not recognized"), "{shown}");
    Ok(system.stop().await?)
}
