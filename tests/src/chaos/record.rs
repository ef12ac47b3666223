//! What handlers saw, in a file that survives the death of their process.
//!
//! Each worker process appends to a file of its own, one line per observation and one write per line: the system keeps what
//! was written when the process is killed. A line is `<microseconds> <kind> <task> <run> <worker> <result>`.

use std::{
    fs::File,
    io::{self, Write as _},
    path::Path,
    sync::Arc,
};

use anyhow::{Context as _, Result, bail};
use oxcart_ledger::{Left, Observation};
use oxcart_sdk::TaskContext;
use oxcart_types::{Clock, Run, SystemClock, TaskId, Timestamp, WorkerId};

/// Appends what handlers see. Clones write into the same file.
#[derive(Debug, Clone)]
pub struct Recorder(Arc<File>);

/// A stay in a handler. One that is dropped without a word was aborted, and is noted as such.
#[derive(Debug)]
pub struct Stay {
    recorder: Recorder,
    task: TaskId,
    run: Run,
    worker: WorkerId,
    left: bool,
}

impl Recorder {
    /// Appends to `path`.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(Arc::new(File::options().create(true).append(true).open(path)?)))
    }

    /// Notes that a handler was entered; before it does anything.
    #[must_use]
    pub fn enter(&self, ctx: &TaskContext) -> Stay {
        let stay = Stay { recorder: self.clone(), task: ctx.task_id(), run: ctx.run(), worker: ctx.worker_id(), left: false };
        stay.note('E', "");
        stay
    }
}

impl Stay {
    /// Notes that the handler is about to return this result.
    pub fn returns(mut self, result: &str) {
        self.left = true;
        self.note('R', result);
    }

    /// Notes that the handler is about to return an error.
    pub fn fails(mut self) {
        self.left = true;
        self.note('F', "");
    }

    fn note(&self, kind: char, result: &str) {
        let at = SystemClock.now().timestamp_micros();
        let line = format!("{at} {kind} {} {} {} {result}\n", self.task, self.run, self.worker);
        // Without its notes a test of this process proves nothing.
        (&*self.recorder.0).write_all(line.as_bytes()).expect("notes can be written");
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        if !self.left {
            self.note('D', "");
        }
    }
}

/// Reads the notes of one process.
///
/// # Errors
/// The file cannot be read, or holds something else.
pub fn read(path: &Path) -> Result<Vec<(Timestamp, Observation)>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        // It was killed before its first handler.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    text.lines().map(|line| parse(line).with_context(|| format!("{}: {line:?}", path.display()))).collect()
}

fn parse(line: &str) -> Result<(Timestamp, Observation)> {
    let mut parts = line.splitn(6, ' ');
    let mut part = || parts.next().context("a part is missing");
    let at = Timestamp::from_timestamp_micros(part()?.parse()?).context("no time")?;
    let kind = part()?;
    let task: TaskId = part()?.parse()?;
    let run = Run::new(part()?.parse()?).context("no run")?;
    let worker: WorkerId = part()?.parse()?;
    let how = match kind {
        "E" => return Ok((at, Observation::Entered { task, run, worker, at })),
        "R" => Left::Returned(part()?.as_bytes().to_vec()),
        "F" => Left::Failed,
        "D" => Left::Dropped,
        other => bail!("{other:?} is no kind of note"),
    };
    Ok((at, Observation::Left { task, run, how, at }))
}

#[cfg(test)]
mod tests {
    use oxcart_types::{IdSource as _, SystemIds};

    use super::*;

    #[test]
    fn notes_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes");
        let recorder = Recorder::open(&path).unwrap();
        let (task, worker) = (SystemIds.task_id(), SystemIds.worker_id());
        let stay = || {
            let stay = Stay { recorder: recorder.clone(), task, run: Run::FIRST, worker, left: false };
            stay.note('E', "");
            stay
        };
        stay().returns(r#"{"n": 1}"#);
        stay().fails();
        drop(stay());
        let read: Vec<_> = read(&path).unwrap().into_iter().map(|(_, observation)| observation).collect();
        let lefts = read.iter().filter_map(|observation| match observation {
            Observation::Left { how, .. } => Some(how.clone()),
            _ => None,
        });
        assert_eq!(lefts.collect::<Vec<_>>(), [Left::Returned(br#"{"n": 1}"#.to_vec()), Left::Failed, Left::Dropped]);
        assert!(matches!(&read[0], Observation::Entered { task: t, worker: w, .. } if *t == task && *w == worker), "{read:?}");
        assert!(parse("1 X").is_err());
        assert_eq!(super::read(&folder.path().join("none")).unwrap(), []);
    }
}
