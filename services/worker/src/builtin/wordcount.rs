//! `text.wordcount`: lines, words and bytes of a file, as `wc` counts them in the C locale.

use std::io::Read as _;

use oxcart_sdk::{TaskContext, TaskError, TaskResult};
use serde::Serialize;

use super::{
    files::{FileInput, FilesConfig},
    flaky,
};

/// What is read at once.
const CHUNK: usize = 64 * 1024;

#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct Output {
    /// Line feeds.
    lines: u64,
    /// Runs of bytes between white space.
    words: u64,
    /// Bytes.
    bytes: u64,
}

pub(super) fn run(config: &FilesConfig, ctx: &TaskContext, input: &FileInput) -> TaskResult<Output> {
    if ctx.attempt() <= input.fail_attempts {
        return flaky::fail(ctx, input.fail_attempts, "Demonstration", false);
    }
    let mut file = config.open(input)?;
    let (mut counter, mut chunk) = (Counter::default(), vec![0; CHUNK]);
    loop {
        if ctx.is_cancelled() {
            return Err(TaskError::cancelled());
        }
        let count = file.read(&mut chunk)?;
        if count == 0 {
            return Ok(counter.output);
        }
        counter.add(&chunk[..count]);
    }
}

#[derive(Debug, Default)]
struct Counter {
    output: Output,
    in_word: bool,
}

impl Counter {
    fn add(&mut self, bytes: &[u8]) {
        self.output.bytes += bytes.len() as u64;
        for byte in bytes {
            // `isspace` of the C locale counts the vertical tab, too.
            let is_space = byte.is_ascii_whitespace() || *byte == 0x0b;
            self.output.lines += u64::from(*byte == b'\n');
            self.output.words += u64::from(!is_space && !self.in_word);
            self.in_word = !is_space;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_do_not_end_with_a_chunk() {
        let mut counter = Counter::default();
        counter.add(b" one tw");
        counter.add(b"o\n\nthree\x0bfour");
        assert_eq!(counter.output, Output { lines: 2, words: 4, bytes: 20 });
    }
}
