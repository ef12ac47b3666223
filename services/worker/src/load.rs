//! What this process uses of the machine.

use std::time::Duration;

use oxcart_proto::pb::dispatcher::v1::WorkerLoad;
use rustix::time::{ClockId, clock_gettime};

use crate::moment::Moment;

/// Measures the load between two looks.
#[derive(Debug)]
pub(crate) struct LoadMeter {
    looked: Moment,
    cpu: Duration,
}

impl LoadMeter {
    pub(crate) fn new() -> Self {
        Self { looked: Moment::now(), cpu: cpu_time() }
    }

    /// The load since the last look.
    pub(crate) fn look(&mut self, used_slots: usize) -> WorkerLoad {
        let (wall, cpu) = (self.looked.elapsed().as_secs_f64(), cpu_time());
        let used = cpu.saturating_sub(self.cpu).as_secs_f64();
        (self.looked, self.cpu) = (Moment::now(), cpu);
        WorkerLoad {
            cpu: if wall > 0.0 { used / wall } else { 0.0 },
            resident_bytes: resident_bytes().unwrap_or_default(),
            used_slots: i32::try_from(used_slots).unwrap_or(i32::MAX),
        }
    }
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// Resident memory as Linux tells it; `None` elsewhere.
fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<i64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_has_a_load() {
        let mut meter = LoadMeter::new();
        let sum: u64 = (0..3_000_000_u64).map(|n| n ^ (n >> 3)).sum();
        let load = meter.look(3);
        assert!(sum > 0 && load.cpu > 0.0 && load.resident_bytes > 0 && load.used_slots == 3, "{load:?}");
    }
}
