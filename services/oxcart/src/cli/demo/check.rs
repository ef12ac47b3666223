//! Checks the results of the demo against an independent count: another implementation, on the files themselves.

use std::path::Path;

use oxcart_proto::pb::common::v1::{Task, TaskState, payload::Content};
use sha2::{Digest as _, Sha256};

use super::run::{Job, Outcome};

/// What is wrong, in words; nothing when all is right.
pub(super) fn wrong(outcomes: &[Outcome]) -> Vec<String> {
    outcomes.iter().filter_map(|outcome| check(outcome).err().map(|why| format!("{}: {why}", outcome.file.display()))).collect()
}

fn check(outcome: &Outcome) -> Result<(), String> {
    if outcome.task.state() != TaskState::Succeeded {
        let error = outcome.task.error.as_ref().map(|error| error.message.as_str()).unwrap_or_default();
        return Err(format!("{} ended {}: {error}", outcome.job.handler(), outcome.task.state().as_str_name()));
    }
    let found = result(&outcome.task).ok_or_else(|| format!("{} has no result", outcome.job.handler()))?;
    let expected = expected(outcome.job, &outcome.file)?;
    if found == expected { Ok(()) } else { Err(format!("{} found {found}, expected {expected}", outcome.job.handler())) }
}

/// The result of a task.
pub(super) fn result(task: &Task) -> Option<serde_json::Value> {
    match task.result.as_ref()?.content.as_ref()? {
        Content::Json(text) => serde_json::from_str(text).ok(),
        Content::Data(_) | Content::Value(_) => None,
    }
}

/// What the result must be.
fn expected(job: Job, file: &Path) -> Result<serde_json::Value, String> {
    let content = std::fs::read(file).map_err(|error| error.to_string())?;
    Ok(match job {
        Job::Checksum => {
            let sha256: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
            serde_json::json!({ "sha256": sha256, "bytes": content.len() })
        }
        Job::Wordcount => {
            // What separates words in the C locale, as for `wc`.
            let words =
                content.split(|byte| matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')).filter(|word| !word.is_empty());
            let lines = content.iter().filter(|byte| **byte == b'\n').count();
            serde_json::json!({ "lines": lines, "words": words.count(), "bytes": content.len() })
        }
    })
}

#[cfg(test)]
mod tests {
    use oxcart_proto::pb::common::v1::Payload;

    use super::*;

    fn outcome(file: &Path, job: Job, state: TaskState, json: &str) -> Outcome {
        let payload = Payload { content: Some(Content::Json(json.to_owned())), ..Default::default() };
        let task = Task { state: state.into(), result: Some(payload), ..Default::default() };
        Outcome { file: file.to_owned(), job, task }
    }

    #[test]
    fn wrong_results_are_found() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("abc");
        std::fs::write(&file, "abc").expect("written");
        let sum = r#"{"bytes":3,"sha256":"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}"#;
        let right = [
            outcome(&file, Job::Checksum, TaskState::Succeeded, sum),
            outcome(&file, Job::Wordcount, TaskState::Succeeded, r#"{"lines":0,"words":1,"bytes":3}"#),
        ];
        assert!(wrong(&right).is_empty(), "{:?}", wrong(&right));
        let bad = [
            outcome(&file, Job::Checksum, TaskState::Succeeded, &sum.replace("ba78", "ab78")),
            outcome(&file, Job::Wordcount, TaskState::Succeeded, r#"{"lines":1,"words":1,"bytes":3}"#),
            outcome(&file, Job::Checksum, TaskState::Failed, sum),
            outcome(&file, Job::Checksum, TaskState::Running, sum),
        ];
        assert_eq!(wrong(&bad).len(), bad.len());
    }
}
