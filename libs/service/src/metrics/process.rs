//! What the process takes from the machine, read from `/proc/self` at each scrape.

use std::{fmt, fs};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};

/// `USER_HZ`: 100 on every Linux that Rust runs on, whatever the kernel's own tick.
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(Debug)]
pub(super) struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        if let Some(seconds) = cpu_seconds() {
            write(&mut encoder, "process_cpu_seconds", "CPU time, user and system", &ConstCounter::new(seconds))?;
        }
        let gauges = [
            ("process_resident_memory_bytes", "Resident memory", resident_bytes()),
            ("process_start_time_seconds", "Start of the process in Unix seconds", started_at()),
            ("process_open_fds", "Open file descriptors", open_files()),
            ("process_max_fds", "File descriptors that may be open", max_files()),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                write(&mut encoder, name, help, &ConstGauge::new(value))?;
            }
        }
        Ok(())
    }
}

fn write(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, metric: &impl EncodeMetric) -> Result<(), fmt::Error> {
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

/// Fields of `/proc/self/stat` from the third, the state, on. The name of the program before it, in parentheses, may hold anything.
fn stat() -> Option<Vec<String>> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    Some(stat.rsplit_once(')')?.1.split_whitespace().map(ToOwned::to_owned).collect())
}

/// The number in a field of `stat`, counted from 1 as in proc(5).
fn number(stat: &[String], field: usize) -> Option<f64> {
    stat.get(field.checked_sub(3)?)?.parse().ok()
}

fn cpu_seconds() -> Option<f64> {
    let stat = stat()?;
    Some((number(&stat, 14)? + number(&stat, 15)?) / TICKS_PER_SECOND)
}

fn started_at() -> Option<i64> {
    let since_boot = number(&stat()?, 22)? / TICKS_PER_SECOND;
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let boot: i64 = stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    #[expect(clippy::cast_possible_truncation, reason = "seconds since the boot of a machine")]
    Some(boot + since_boot as i64)
}

fn open_files() -> Option<i64> {
    i64::try_from(fs::read_dir("/proc/self/fd").ok()?.count()).ok()
}

/// None when there is no limit.
fn max_files() -> Option<i64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?.parse().ok()
}

fn resident_bytes() -> Option<i64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}
