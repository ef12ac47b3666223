//! Finding the programs of the servers.

use std::{env, path::PathBuf};

use anyhow::{Result, bail};

/// Directories of server programs that are not in everybody's PATH.
const SYSTEM_DIRECTORIES: [&str; 3] = ["/usr/sbin", "/usr/local/sbin", "/usr/libexec"];

/// The first of `names` that is installed.
///
/// # Errors
/// When none is; the message says how to install it.
pub(crate) fn find(names: &[&str]) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories: Vec<PathBuf> = env::split_paths(&path).chain(SYSTEM_DIRECTORIES.map(PathBuf::from)).collect();
    for name in names {
        if let Some(found) = directories.iter().map(|directory| directory.join(name)).find(|file| file.is_file()) {
            return Ok(found);
        }
    }
    bail!("{} is not installed: run scripts/install-test-tools.sh", names.join(" or "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_names_the_script() {
        let error = find(&["oxcart-no-such-program"]).unwrap_err();
        assert!(error.to_string().contains("scripts/install-test-tools.sh"), "{error}");
    }

    #[test]
    fn the_second_name_will_do() {
        assert!(find(&["oxcart-no-such-program", "sh"]).is_ok());
    }
}
