//! `oxcart demo`: real work through an embedded system, and every result checked against an independent count.

mod check;
mod files;
mod progress;
mod report;
mod run;

use std::{io::IsTerminal as _, path::PathBuf, time::Instant};

use anyhow::Context as _;
use clap::Args;
use oxcart::{Config, Storage, System};

use self::files::Found;
use super::{
    CliError, Exit, args,
    output::{Format, Output},
};

/// Arguments of `demo`.
#[derive(Debug, Args)]
#[command(after_help = "\
Every text file below DIR is checksummed and word-counted as tasks; one task is made to fail twice before it succeeds.
Exit code: 0 only if every task succeeded and every result is right.

Examples:
  oxcart demo
  oxcart demo /usr/include --max-files 500
  oxcart demo --output json")]
pub(crate) struct DemoArgs {
    /// Where the input is
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Files at most
    #[arg(long, default_value_t = 5000, value_parser = args::count, value_name = "N")]
    max_files: usize,
    /// Keep the tasks in this SQLite file, to look at them afterwards
    #[arg(long, value_name = "FILE")]
    db: Option<PathBuf>,
}

impl DemoArgs {
    pub(super) async fn run(self, output: &mut Output) -> Result<Exit, CliError> {
        let root = self.dir.canonicalize().map_err(|error| CliError::Usage(format!("{}: {error}", self.dir.display())))?;
        let found = files::find(&root, self.max_files);
        let Found { files, skipped } = found.map_err(|error| CliError::Usage(format!("{}: {error}", root.display())))?;
        if files.is_empty() {
            return Err(CliError::Usage(format!(
                "{}: no text file below it; files that are binary, hidden, unreadable, links or over 4 MiB are left out",
                root.display()
            )));
        }
        if output.format() == Format::Table {
            let (files, dir) = (files.len(), root.display());
            output.line(format!("files below {dir}: {files}, with two tasks each; left out: {skipped}"))?;
        }

        let temporary = tempfile::tempdir().context("cannot make a directory")?;
        let db = self.db.clone().unwrap_or_else(|| temporary.path().join("demo.db"));
        let mut config = Config::default();
        config.worker.builtin.files.roots = vec![root.clone()];
        let system = System::embedded(Storage::File(db)).config(config).start().await.context("cannot start")?;

        let begun = Instant::now();
        let mut progress = progress::Progress::new(std::io::stderr().is_terminal());
        let outcomes = run::all(&system, &files, &mut progress).await?;
        let took = begun.elapsed();
        system.stop().await.context("cannot stop")?;

        let wrong = check::wrong(&outcomes);
        match output.format() {
            Format::Table => {
                report::print(output, &root, &outcomes, &wrong, took)?;
                report::further(output, self.db.as_deref())?;
            }
            Format::Json | Format::Jsonl => output.value(&report::json(&root, &outcomes, skipped, &wrong, took))?,
            Format::Name => outcomes.iter().filter_map(|o| o.task.spec.as_ref()).try_for_each(|spec| output.line(&spec.task_id))?,
        }
        Ok(if wrong.is_empty() { Exit::Ok } else { Exit::Failed })
    }
}
