//! The corpus: inputs in files, one folder a target. An input that has found a defect is added to it.

use std::{fs, path::PathBuf};

/// The inputs of a target, in the order of their names.
///
/// # Panics
/// There is none: a target without a corpus is a mistake.
#[must_use]
pub fn of(target: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut paths: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("an entry of a folder").path())
        .collect();
    paths.sort();
    let inputs: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).expect("a file of the corpus")).collect();
    assert!(!inputs.is_empty(), "{} is empty", folder.display());
    inputs
}

/// The inputs of a target as texts.
#[must_use]
pub fn texts(target: &str) -> Vec<String> {
    of(target).into_iter().map(|input| String::from_utf8_lossy(&input).into_owned()).collect()
}
