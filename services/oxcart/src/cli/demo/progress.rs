//! How far the demo is: a bar on a terminal, a line now and then elsewhere.

use std::{
    io::Write as _,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// Time between two lines.
const EVERY: Duration = Duration::from_secs(2);

/// How far the demo is.
pub(super) struct Progress {
    terminal: bool,
    bar: Option<ProgressBar>,
    total: usize,
    said_at: Instant,
}

impl Progress {
    pub(super) fn new(terminal: bool) -> Self {
        Self { terminal, bar: None, total: 0, said_at: Instant::now() }
    }

    pub(super) fn begin(&mut self, total: usize) {
        self.total = total;
        if self.terminal {
            let style = ProgressStyle::with_template("{bar:40} {pos}/{len} tasks  {per_sec}  {msg}");
            let bar = ProgressBar::new(total as u64);
            self.bar = Some(style.map_or(bar.clone(), |style| bar.with_style(style)));
        }
    }

    pub(super) fn set(&mut self, ended: usize, retried: usize) {
        match &self.bar {
            Some(bar) => {
                bar.set_position(ended as u64);
                bar.set_message(format!("{retried} retried"));
            }
            None if self.said_at.elapsed() >= EVERY => {
                self.said_at = Instant::now();
                // To stderr, as the bar: stdout is for the results.
                let _ = writeln!(std::io::stderr(), "{ended}/{} tasks", self.total);
            }
            None => {}
        }
    }

    pub(super) fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
