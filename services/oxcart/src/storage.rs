//! Where an embedded system keeps its tasks.

use std::path::{Path, PathBuf};

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
