//! What a bench found, for people and for programs.

use std::io::Write as _;

use anyhow::Result;
use comfy_table::{Table, presets};
use hdrhistogram::Histogram;
use serde::Serialize;

/// What a bench found. Rates are tasks per second, times are milliseconds.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    pub mode: String,
    pub tasks: usize,
    pub payload_bytes: usize,
    /// Tasks that ended otherwise than by success, or did not end.
    pub not_succeeded: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub submit_rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow_rate: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub latencies: Vec<Latency>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub costs: Vec<Cost>,
}

/// Percentiles of one kind of latency.
#[derive(Debug, Serialize)]
pub(super) struct Latency {
    pub what: &'static str,
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

/// What one process or store spent.
#[derive(Debug, Serialize)]
pub(super) struct Cost {
    pub of: String,
    pub unit: &'static str,
    pub total: f64,
    pub per_task: f64,
}

impl Latency {
    /// From a histogram of microseconds.
    pub(super) fn of(what: &'static str, micros: &Histogram<u64>) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "microseconds of a bench are far below 2^52")]
        let ms = |micros: u64| micros as f64 / 1000.0;
        Self {
            what,
            p50_ms: ms(micros.value_at_quantile(0.5)),
            p95_ms: ms(micros.value_at_quantile(0.95)),
            p99_ms: ms(micros.value_at_quantile(0.99)),
            max_ms: ms(micros.max()),
        }
    }
}

impl Report {
    /// Prints the report to standard output.
    pub(super) fn print(&self, json: bool) -> Result<()> {
        let mut out = std::io::stdout().lock();
        if json {
            writeln!(out, "{}", serde_json::to_string(self)?)?;
            return Ok(());
        }
        writeln!(
            out,
            "{}: {} tasks of {} bytes, {} did not succeed",
            self.mode, self.tasks, self.payload_bytes, self.not_succeeded
        )?;
        for (what, rate) in [("submitted", self.submit_rate), ("drained", self.drain_rate), ("submitted and done", self.flow_rate)]
        {
            if let Some(rate) = rate {
                writeln!(out, "{what}: {rate:.0} tasks/s")?;
            }
        }
        if !self.latencies.is_empty() {
            let mut table = Table::new();
            table.load_style(presets::NOTHING).set_header(["LATENCY", "P50 MS", "P95 MS", "P99 MS", "MAX MS"]);
            for l in &self.latencies {
                let ms = |value: f64| format!("{value:.2}");
                table.add_row([l.what.to_owned(), ms(l.p50_ms), ms(l.p95_ms), ms(l.p99_ms), ms(l.max_ms)]);
            }
            writeln!(out, "{table}")?;
        }
        if !self.costs.is_empty() {
            let mut table = Table::new();
            table.load_style(presets::NOTHING).set_header(["COST", "TOTAL", "PER TASK", "UNIT"]);
            for c in &self.costs {
                table.add_row([c.of.clone(), format!("{:.2}", c.total), format!("{:.3}", c.per_task), c.unit.to_owned()]);
            }
            writeln!(out, "{table}")?;
        }
        Ok(())
    }
}
