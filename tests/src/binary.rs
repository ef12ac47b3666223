//! The `oxcart` binary, built from this very tree.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::SystemTime,
};

/// Path of the binary. `cargo test --workspace` has built it; where it is missing or older than a source, it is built here, so
/// that a test never runs against an old one.
pub fn oxcart() -> &'static PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let test = std::env::current_exe().expect("the path of this test");
        // target/<profile>/deps/<test>
        let profile = test.parent().and_then(Path::parent).expect("a target directory");
        let binary = profile.join("oxcart");
        let built = fs::metadata(&binary).and_then(|metadata| metadata.modified()).ok();
        if built.is_none_or(|built| newest(&root()).is_some_and(|source| source > built)) {
            let output = Command::new(env!("CARGO"))
                .args(["build", "--quiet", "-p", "oxcart", "--bin", "oxcart", "--target-dir"])
                .arg(profile.parent().expect("a target directory"))
                .current_dir(root())
                .output()
                .expect("cargo runs");
            assert!(output.status.success(), "cargo build failed:\n{}", String::from_utf8_lossy(&output.stderr));
        }
        binary
    })
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// When the newest source of the binary was changed.
fn newest(root: &Path) -> Option<SystemTime> {
    let mut newest = None;
    let mut folders: Vec<PathBuf> = ["libs", "services", "proto", "migrations"].map(|folder| root.join(folder)).to_vec();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of the workspace").flatten() {
            let kind = entry.file_type().expect("the kind of a file");
            if kind.is_dir() && entry.file_name() != "tests" && entry.file_name() != "benches" {
                folders.push(entry.path());
            } else if kind.is_file() {
                newest = newest.max(entry.metadata().and_then(|metadata| metadata.modified()).ok());
            }
        }
    }
    newest
}
