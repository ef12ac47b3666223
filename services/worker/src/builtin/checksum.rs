//! `file.checksum`: SHA-256 of a file.

use std::{fmt::Write as _, io::Read as _};

use oxcart_sdk::{TaskContext, TaskError, TaskResult};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{
    files::{FileInput, FilesConfig},
    flaky,
};

/// What is read at once.
const CHUNK: usize = 64 * 1024;

#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Output {
    /// SHA-256, 64 hex digits.
    sha256: String,
    /// Size.
    bytes: u64,
}

pub(super) fn run(config: &FilesConfig, ctx: &TaskContext, input: &FileInput) -> TaskResult<Output> {
    if ctx.attempt() <= input.fail_attempts {
        return flaky::fail(ctx, input.fail_attempts, "Demonstration", false);
    }
    let mut file = config.open(input)?;
    let (mut hash, mut bytes, mut chunk) = (Sha256::new(), 0, vec![0; CHUNK]);
    loop {
        if ctx.is_cancelled() {
            return Err(TaskError::cancelled());
        }
        let count = file.read(&mut chunk)?;
        if count == 0 {
            break;
        }
        hash.update(&chunk[..count]);
        bytes += count as u64;
    }
    let mut sha256 = String::with_capacity(64);
    for byte in hash.finalize() {
        write!(sha256, "{byte:02x}")?;
    }
    Ok(Output { sha256, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_that_of_others() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("abc"), "abc").expect("a file");
        let config = FilesConfig { roots: vec![dir.path().to_owned()] };
        let input = |fail_attempts| FileInput { path: "abc".into(), root: None, fail_attempts };
        let (ctx, _) = TaskContext::detached();
        let output = run(&config, &ctx, &input(0)).expect("a sum");
        assert_eq!(output.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(output.bytes, 3);
        assert_eq!(run(&config, &ctx, &input(1)).expect_err("the first attempt fails").kind_str(), "Demonstration");
    }
}
