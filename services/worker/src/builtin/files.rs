//! Which files handlers may read.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use oxcart_sdk::{TaskError, TaskResult};
use serde::{Deserialize, Serialize};

/// Which files handlers may read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FilesConfig {
    /// Folders below which files may be read; none by default.
    pub roots: Vec<PathBuf>,
}

/// Names a file below a root.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileInput {
    /// Absolute, or relative to `root`.
    pub(super) path: PathBuf,
    /// Folder of `path`; the first root when not set.
    #[serde(default)]
    pub(super) root: Option<PathBuf>,
    /// Attempts that fail before the file is read, for demonstrations of retries.
    #[serde(default)]
    pub(super) fail_attempts: u32,
}

impl FilesConfig {
    /// Opens a regular file, if it lies below a root after all links are followed.
    pub(super) fn open(&self, input: &FileInput) -> TaskResult<File> {
        let refused =
            |path: &Path| TaskError::fatal(format!("{} is not below an allowed root", path.display())).kind("PathNotAllowed");
        let base = input.root.as_ref().or(self.roots.first()).ok_or_else(|| refused(&input.path))?;
        let path = base
            .join(&input.path)
            .canonicalize()
            .map_err(|error| TaskError::fatal(format!("{}: {error}", input.path.display())).kind("FileNotFound"))?;
        let allowed = self.roots.iter().filter_map(|root| root.canonicalize().ok()).any(|root| path.starts_with(root));
        if !allowed {
            return Err(refused(&input.path));
        }
        if !path.metadata()?.is_file() {
            return Err(TaskError::fatal(format!("{} is no regular file", path.display())).kind("NotAFile"));
        }
        Ok(File::open(path)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_below_a_root_are_read() {
        let dir = tempfile::tempdir().expect("a folder");
        let root = dir.path().join("root");
        std::fs::create_dir(&root).expect("a folder");
        std::fs::write(root.join("in"), "x").expect("a file");
        std::fs::write(dir.path().join("out"), "x").expect("a file");
        std::os::unix::fs::symlink(dir.path().join("out"), root.join("link")).expect("a link");
        let config = FilesConfig { roots: vec![root.clone()] };
        let kind = |path: PathBuf| {
            let opened = config.open(&FileInput { path, root: None, fail_attempts: 0 });
            opened.map(drop).map_err(|error| error.kind_str().to_owned())
        };
        assert_eq!(kind("in".into()), Ok(()));
        assert_eq!(kind(root.join("in")), Ok(()));
        for outside in ["../out", "link", "/etc/hostname"] {
            assert_eq!(kind(outside.into()), Err("PathNotAllowed".to_owned()), "{outside}");
        }
        assert_eq!(kind("gone".into()), Err("FileNotFound".to_owned()));
        assert_eq!(kind(".".into()), Err("NotAFile".to_owned()));
    }
}
