//! The input of the demo.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

/// A file larger than this is left out.
const MAX_BYTES: u64 = 4 * 1024 * 1024;
/// Directories looked into at most: a link loop cannot happen, a disk full of files can.
const MAX_DIRECTORIES: usize = 20_000;
/// Directories that hold no source.
const SKIPPED: [&str; 3] = ["target", "node_modules", "__pycache__"];

/// What was found.
pub(super) struct Found {
    /// Text files, by path.
    pub(super) files: Vec<PathBuf>,
    /// Files that are no text, too large, or too many.
    pub(super) skipped: usize,
}

/// Finds the text files below a directory, at most `max`. Hidden ones are left out, links are not followed, and other file
/// systems below it are not entered: what looks like a file in `/proc` may never end.
pub(super) fn find(root: &Path, max: usize) -> io::Result<Found> {
    let mut found = Found { files: Vec::new(), skipped: 0 };
    let mut directories = vec![root.to_owned()];
    let home = device(root);
    let mut seen = 0;
    while let Some(directory) = directories.pop() {
        seen += 1;
        if seen > MAX_DIRECTORIES {
            break;
        }
        let mut entries: Vec<_> = match std::fs::read_dir(&directory) {
            Ok(entries) => entries.filter_map(Result::ok).collect(),
            Err(error) if directory == root => return Err(error),
            // A directory below that may not be read is not part of the input.
            Err(_) => continue,
        };
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name();
            let Ok(kind) = entry.file_type() else { continue };
            if name.to_string_lossy().starts_with('.') {
                continue;
            }
            if kind.is_dir() {
                if !SKIPPED.iter().any(|skipped| name == *skipped) && device(&entry.path()) == home {
                    directories.push(entry.path());
                }
            } else if kind.is_file() {
                if found.files.len() < max && is_text(&entry.path()) && entry.path().to_str().is_some() {
                    found.files.push(entry.path());
                } else {
                    found.skipped += 1;
                }
            }
        }
    }
    found.files.sort();
    Ok(found)
}

/// Which file system a path is on; `None` where that cannot be told.
#[cfg(unix)]
fn device(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::symlink_metadata(path).ok().map(|metadata| metadata.dev())
}

/// Which file system a path is on; `None` where that cannot be told.
#[cfg(not(unix))]
fn device(_: &Path) -> Option<u64> {
    None
}

/// Small enough, readable, and without a zero byte at its beginning.
fn is_text(path: &Path) -> bool {
    let head = || -> io::Result<Option<Vec<u8>>> {
        let file = File::open(path)?;
        if file.metadata()?.len() > MAX_BYTES {
            return Ok(None);
        }
        let mut head = Vec::new();
        file.take(8192).read_to_end(&mut head)?;
        Ok(Some(head))
    };
    matches!(head(), Ok(Some(head)) if !head.contains(&0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_found_and_the_rest_left_out() {
        let dir = tempfile::tempdir().expect("a directory");
        let write = |name: &str, content: &[u8]| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, content).expect("written");
        };
        write("b/two.rs", b"fn main() {}\n");
        write("one.txt", b"words");
        write("image", b"\x89PNG\0");
        write("target/debug/out.txt", b"words");
        write(".git/config", b"words");
        let names = |found: &Found| {
            found.files.iter().map(|f| f.strip_prefix(dir.path()).expect("below").display().to_string()).collect::<Vec<_>>()
        };
        let all = find(dir.path(), 100).expect("found");
        assert_eq!((names(&all), all.skipped), (vec!["b/two.rs".to_owned(), "one.txt".to_owned()], 1));
        assert_eq!(find(dir.path(), 1).expect("found").files.len(), 1);
        assert!(find(&dir.path().join("missing"), 1).is_err());
        assert!(find(&dir.path().join("one.txt"), 1).is_err());
    }

    /// `/proc` is never on the file system of `/`, and some of its files never end.
    #[cfg(target_os = "linux")]
    #[test]
    fn other_file_systems_are_not_entered() {
        assert_ne!(device(Path::new("/")), device(Path::new("/proc")));
        assert!(device(Path::new("/")).is_some());
    }
}
