//! Where an embedded system keeps its tasks.

use std::{
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
};

/// Where an embedded system keeps its tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Storage {
    /// A SQLite file; made when it is not there. A restart goes on where it was.
    File(PathBuf),
    /// Memory: gone when the system stops.
    InMemory,
}

impl Storage {
    /// The URL that the store knows it by.
    #[must_use]
    pub fn url(&self) -> String {
        match self {
            Self::File(path) => format!("sqlite:{}", path.display()),
            Self::InMemory => "sqlite::memory:".to_owned(),
        }
    }
}

/// The right to use a file alone, until it is dropped or the process ends, however it ends.
///
/// The queue is in the memory of one process: a second one on the same file would hand the same tasks out again. The lock is on
/// a file beside the database, because whoever closes a database file loses the locks that SQLite holds on it.
#[derive(Debug)]
pub(crate) struct StorageLock {
    _file: File,
}

/// Why a file cannot be had alone.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("{} is in use by another process; stop that one, or name another file", .0.display())]
    InUse(PathBuf),
    /// The lock file cannot be made.
    #[error("cannot make {}", .path.display())]
    File {
        /// The lock file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl StorageLock {
    /// Locks a database file for this process, and makes its directory when that is missing.
    pub(crate) fn take(database: &Path) -> Result<Self, LockError> {
        let mut path = database.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        let failed = |source| LockError::File { path: path.clone(), source };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        let file = File::options().create(true).append(true).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(LockError::InUse(database.to_owned())),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}

impl From<&Path> for Storage {
    fn from(path: &Path) -> Self {
        Self::File(path.to_owned())
    }
}

impl From<PathBuf> for Storage {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl From<&str> for Storage {
    fn from(path: &str) -> Self {
        Self::File(path.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_had_by_one_at_a_time() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("new/oxcart.db");
        let first = StorageLock::take(&path).expect("free");
        let refused = StorageLock::take(&path).expect_err("in use");
        assert!(matches!(&refused, LockError::InUse(file) if *file == path), "{refused}");
        drop(first);
        StorageLock::take(&path).expect("free again");
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("file"), "").expect("written");
        let refused = StorageLock::take(&dir.path().join("file/oxcart.db")).expect_err("no directory");
        assert!(refused.to_string().contains("file/oxcart.db.lock"), "{refused}");
    }
}
