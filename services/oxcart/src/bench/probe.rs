//! What processes and stores spend: read from `/proc`, from MySQL's status and from Redis's INFO.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, bail};
use mysql_async::prelude::Queryable as _;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

use super::{Args, report::Cost};

/// Clock ticks a second in `/proc/<pid>/stat`: fixed by the Linux kernel's interface (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// Reads `name=pid`.
pub(super) fn parse_process(text: &str) -> Result<(String, u32), String> {
    let (name, pid) = text.split_once('=').ok_or_else(|| format!("{text:?} is not name=pid"))?;
    let pid = pid.parse().map_err(|_| format!("{pid:?} is no process id"))?;
    Ok((name.to_owned(), pid))
}

/// Where to read costs.
pub(super) struct Probes {
    processes: Vec<(String, u32)>,
    mysql: Option<mysql_async::Pool>,
    redis: Option<String>,
}

/// Costs up to now.
pub(super) struct Reading {
    cpu_seconds: Vec<(String, f64)>,
    resident_mib: Vec<(String, f64)>,
    statements: Option<f64>,
    redis: Option<RedisReading>,
}

#[derive(Clone, Copy)]
struct RedisReading {
    calls: f64,
    micros: f64,
}

impl Probes {
    pub(super) async fn open(args: &Args) -> Result<Self> {
        let mysql = match &args.mysql_url {
            Some(url) => Some(mysql_async::Pool::from_url(url).context("--mysql-url")?),
            None => None,
        };
        let probes = Self { processes: args.processes.clone(), mysql, redis: args.redis.clone() };
        probes.read().await?;
        Ok(probes)
    }

    pub(super) async fn read(&self) -> Result<Reading> {
        let mut cpu_seconds = Vec::new();
        let mut resident_mib = Vec::new();
        for (name, pid) in &self.processes {
            cpu_seconds.push((name.clone(), cpu_of(*pid).with_context(|| format!("--pid {name}={pid}"))?));
            resident_mib.push((name.clone(), resident_of(*pid).with_context(|| format!("--pid {name}={pid}"))?));
        }
        let statements = match &self.mysql {
            Some(pool) => Some(statements_of(pool).await.context("--mysql-url")?),
            None => None,
        };
        let redis = match &self.redis {
            Some(address) => Some(commands_of(address).await.context("--redis")?),
            None => None,
        };
        Ok(Reading { cpu_seconds, resident_mib, statements, redis })
    }
}

impl Reading {
    /// What was spent since an earlier reading.
    pub(super) fn since(&self, before: &Self, tasks: usize) -> Vec<Cost> {
        #[expect(clippy::cast_precision_loss, reason = "a bench has far fewer than 2^52 tasks")]
        let per_task = |total: f64| total / tasks.max(1) as f64;
        let mut costs = Vec::new();
        for ((name, now), (_, then)) in self.cpu_seconds.iter().zip(&before.cpu_seconds) {
            let micros = (now - then) * 1e6;
            costs.push(Cost { of: format!("{name} cpu"), unit: "µs", total: micros, per_task: per_task(micros) });
        }
        for (name, mib) in &self.resident_mib {
            costs.push(Cost { of: format!("{name} resident"), unit: "MiB", total: *mib, per_task: 0.0 });
        }
        if let (Some(now), Some(then)) = (self.statements, before.statements) {
            costs.push(Cost {
                of: "mysql statements".to_owned(),
                unit: "calls",
                total: now - then,
                per_task: per_task(now - then),
            });
        }
        if let (Some(now), Some(then)) = (self.redis, before.redis) {
            let (calls, micros) = (now.calls - then.calls, now.micros - then.micros);
            costs.push(Cost { of: "redis scripts".to_owned(), unit: "calls", total: calls, per_task: per_task(calls) });
            costs.push(Cost { of: "redis scripts".to_owned(), unit: "µs", total: micros, per_task: per_task(micros) });
        }
        costs
    }
}

fn cpu_of(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("cannot read its CPU time")?;
    // The second field is the command in parentheses and may hold anything; the rest begins with the state.
    let (_, rest) = stat.rsplit_once(") ").context("/proc/<pid>/stat has no command")?;
    let fields: Vec<_> = rest.split(' ').collect();
    let ticks = |index: usize| fields.get(index).and_then(|f| f.parse::<f64>().ok()).context("/proc/<pid>/stat is short");
    Ok((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}

fn resident_of(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("cannot read its memory")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("/proc/<pid>/status has no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().context("VmRSS is no number")?;
    Ok(kib / 1024.0)
}

async fn statements_of(pool: &mysql_async::Pool) -> Result<f64> {
    let mut connection = pool.get_conn().await?;
    let row: Option<(String, String)> = connection.query_first("SHOW GLOBAL STATUS LIKE 'Questions'").await?;
    Ok(row.context("no status Questions")?.1.parse()?)
}

/// Calls and time of scripts: the only thing that the dispatcher does in bulk.
async fn commands_of(address: &str) -> Result<RedisReading> {
    let read = async {
        let mut stream = BufReader::new(TcpStream::connect(address).await?);
        stream.write_all(b"INFO commandstats\r\n").await?;
        let mut header = String::new();
        stream.read_line(&mut header).await?;
        let length = header.trim().strip_prefix('$').and_then(|n| n.parse::<usize>().ok());
        let Some(length) = length.filter(|n| *n < 1 << 20) else { bail!("unexpected answer {header:?}") };
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    };
    let text = tokio::time::timeout(Duration::from_secs(5), read).await.context("no answer within 5 s")??;
    let mut reading = RedisReading { calls: 0.0, micros: 0.0 };
    for line in text.lines().filter(|line| line.starts_with("cmdstat_eval")) {
        let value = |name: &str| {
            line.split([':', ',']).find_map(|part| part.strip_prefix(name)).and_then(|v| v.parse::<f64>().ok()).unwrap_or_default()
        };
        reading.calls += value("calls=");
        reading.micros += value("usec=");
    }
    Ok(reading)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_a_name_and_an_id() {
        assert_eq!(parse_process("worker=12"), Ok(("worker".to_owned(), 12)));
        assert!(parse_process("12").is_err());
        assert!(parse_process("worker=x").is_err());
    }

    #[test]
    fn this_process_can_be_read() {
        let me = std::process::id();
        assert!(cpu_of(me).expect("stat") >= 0.0);
        assert!(resident_of(me).expect("status") > 0.5);
    }
}
