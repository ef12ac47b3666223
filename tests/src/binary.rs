//! The `oxcart` binary, built from this very tree.

use std::{path::PathBuf, process::Command, sync::OnceLock};

/// Path of the binary. The first call builds it, so that a test never runs against an old one.
pub fn oxcart() -> &'static PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let output = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "-p", "oxcart", "--bin", "oxcart", "--message-format=json"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "cargo build failed:\n{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter_map(|message| message.get("executable").and_then(|path| path.as_str()).map(PathBuf::from))
            .next_back()
            .expect("cargo names the executable")
    })
}
