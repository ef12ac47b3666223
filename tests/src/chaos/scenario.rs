//! One row from its start to its report: load, faults, healing, quiet, checks.

use std::{collections::HashSet, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail};
use oxcart_ledger::{Expect, Observation, read_chains};
use oxcart_testkit::wait_for;
use oxcart_types::{Clock as _, SystemClock, Timestamp, WorkerId};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    client::Clients,
    cluster::{Cluster, Programs},
    fault::Fault,
    load::Calls,
    record,
    report::{self, Outcome},
    rows::{Row, Shows},
};

/// Clients try for so long after the end of the load.
const CLIENT_PATIENCE: Duration = Duration::from_secs(30);
/// The bound of the protocol: with everything healed, nothing is open after this. Its parts: leases of 6 s, claims of the agenda
/// of 30 s which a killed service may have left behind, backoffs of reconcilers of up to 30 s, and the machine's share.
const QUIET_WITHIN: Duration = Duration::from_secs(120);
/// What is left over goes within this: entries whose task has ended, and rows of the agenda that are visited once more.
const TIDY_WITHIN: Duration = Duration::from_secs(90);
/// Processes that end by themselves are started again this often.
const SUPERVISION_PERIOD: Duration = Duration::from_millis(250);
/// Violations that are told; the rest is counted.
const TOLD: usize = 20;
/// Tasks that no terminal end closes.
const OPEN: &str = "SELECT COUNT(*) FROM tasks WHERE NOT EXISTS \
                    (SELECT 1 FROM ends WHERE ends.task = tasks.id AND ends.kind IN (1, 2, 3, 4))";
/// What SQL must look at again.
const REMAINDERS: &str = "SELECT (SELECT COUNT(*) FROM handoffs) + (SELECT COUNT(*) FROM agenda)";
/// Transactions that somebody left open.
const TRANSACTIONS: &str = "SELECT COUNT(*) FROM information_schema.innodb_trx";

/// How to run a row.
#[derive(Debug, Clone)]
pub struct Options {
    /// What load and faults follow from.
    pub seed: u64,
    /// How long the load lasts.
    pub lasts: Duration,
    /// What to run.
    pub programs: Programs,
    /// Where logs and notes are kept when something is broken.
    pub keep: PathBuf,
}

/// A fault that is to come.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Planned {
    /// From the start of the load.
    at: Duration,
    fault: Fault,
    lasts: Duration,
    /// Chooses among what it can hit.
    pick: u64,
}

/// The faults of a row, as they follow from the seed. The last one begins before the load ends.
fn plan(row: &Row, seed: u64, lasts: Duration) -> Vec<Planned> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut between = |(from, to): (Duration, Duration)| from + to.saturating_sub(from).mul_f64(rng.random());
    let mut faults = StdRng::seed_from_u64(seed.wrapping_add(1));
    let mut planned = Vec::new();
    let mut at = Duration::ZERO;
    while !row.faults.is_empty() {
        at += between(row.calm);
        if at >= lasts {
            break;
        }
        let fault = row.faults[faults.random_range(0..row.faults.len())];
        let lasts = between(row.lasts);
        planned.push(Planned { at, fault, lasts, pick: faults.random() });
        at += lasts;
    }
    planned
}

/// Runs a row.
///
/// # Errors
/// The system does not start, or a fault cannot be done or undone. What the system does wrong is in the outcome.
pub async fn run(row: &Row, options: &Options) -> Result<Outcome> {
    let cluster = Cluster::start(options.programs.clone(), &row.topology, options.seed).await?;
    let observed = Box::pin(observe(row, options, &cluster)).await;
    let outcome = match observed {
        Ok(outcome) => outcome,
        Err(error) => {
            cluster.keep(&options.keep)?;
            return Err(error).with_context(|| format!("logs are in {}", options.keep.display()));
        }
    };
    if !outcome.is_clean() {
        cluster.keep(&options.keep)?;
    }
    Ok(outcome)
}

async fn observe(row: &Row, options: &Options, cluster: &Cluster) -> Result<Outcome> {
    let clients = Clients::new(cluster)?;
    let started = SystemClock.now();
    let calls = Calls::new(options.seed, row.load.mix, row.load.per_second, started);
    let load = {
        let (clients, lasts) = (clients.clone(), options.lasts);
        tokio::spawn(async move { clients.run(calls, lasts, CLIENT_PATIENCE).await })
    };
    let mut outcome = Outcome { row: row.id, title: row.title, seed: options.seed, ..Outcome::default() };
    let mut healed = Vec::new();
    let harm = harm(plan(row, options.seed, options.lasts), cluster, &mut outcome, &mut healed);
    let fallen = match row.supervised {
        true => {
            supervise(cluster, async {
                harm.await?;
                load.await.context("the load")
            })
            .await?
        }
        false => {
            harm.await?;
            load.await.context("the load")?;
            0
        }
    };
    outcome.fallen = fallen;
    let ended = SystemClock.now();
    cluster.heal_network();
    let quiet = Instant::now();
    let waiting = quiesce(cluster);
    outcome.stuck = if row.supervised { supervise_until(cluster, waiting).await? } else { waiting.await? };
    outcome.quiet_after_ms = u64::try_from(quiet.elapsed().as_millis()).unwrap_or(u64::MAX);
    check(row, cluster, &clients, &mut outcome, (started, ended), &healed).await?;
    Ok(outcome)
}

/// Does what is planned, one after the other.
async fn harm(planned: Vec<Planned>, cluster: &Cluster, outcome: &mut Outcome, healed: &mut Vec<Timestamp>) -> Result<()> {
    let started = Instant::now();
    for Planned { at, fault, lasts, pick } in planned {
        sleep_until(started + at).await;
        let done = fault.inject(cluster, pick).await.with_context(|| format!("{fault:?}"))?;
        sleep(lasts).await;
        let story = done.describe(lasts);
        done.heal(cluster).await.with_context(|| format!("healing {story}"))?;
        healed.push(SystemClock.now());
        if done.left_open > 0 {
            outcome.violations.push(format!("I13: {} runs are open after {story}", done.left_open));
        }
        outcome.faults.push(story);
    }
    Ok(())
}

/// Starts processes again that end by themselves, until something is done; how many did.
async fn supervise(cluster: &Cluster, until: impl Future<Output = Result<()>>) -> Result<u64> {
    let mut fallen = 0;
    let supervision = async {
        loop {
            sleep(SUPERVISION_PERIOD).await;
            for node in cluster.fallen() {
                fallen += 1;
                if let Err(error) = cluster.restart(node).await {
                    // It may have been given something bad again right away.
                    tracing::debug!(%node, ?error, "fell again");
                }
            }
        }
    };
    tokio::select! {
        done = until => done?,
        () = supervision => {}
    }
    Ok(fallen)
}

async fn supervise_until<T>(cluster: &Cluster, until: impl Future<Output = Result<T>>) -> Result<T> {
    let mut found = None;
    supervise(cluster, async {
        found = Some(until.await?);
        Ok(())
    })
    .await?;
    found.context("nothing was found")
}

/// Waits until no task is open; how many still are when the bound is over.
async fn quiesce(cluster: &Cluster) -> Result<u64> {
    let open = || async { cluster.sql(OPEN).await.ok()?.trim().parse::<u64>().ok() };
    let quiet = wait_for("all tasks to end", QUIET_WITHIN, || async {
        let open = open().await;
        if open != Some(0) {
            sleep(Duration::from_millis(200)).await;
        }
        open.filter(|open| *open == 0)
    });
    match quiet.await {
        Ok(_) => Ok(0),
        Err(_) => open().await.context("the database does not answer"),
    }
}

async fn check(
    row: &Row,
    cluster: &Cluster,
    clients: &Clients,
    outcome: &mut Outcome,
    (started, ended): (Timestamp, Timestamp),
    healed: &[Timestamp],
) -> Result<()> {
    let mut broken = Vec::new();
    for node in cluster.fallen() {
        broken.push(format!("{node} has ended by itself:\n{}", tail(&cluster.log(node))));
    }
    if let Err(error) = tidy(cluster).await {
        broken.push(format!("I12: {error:#}"));
    }
    for node in cluster.nodes().filter(|_| !row.supervised) {
        if let Some(panic) = cluster.log(node).lines().find(|line| line.contains("panicked at")) {
            broken.push(format!("{node}: {panic}"));
        }
    }

    let seen = seen(cluster, clients)?;
    let chains = read_chains(&cluster.store().await?).await.context("the chains cannot be read")?;
    let calm = row.shows.contains(&Shows::Calm);
    let observations: Vec<Observation> = seen.iter().map(|(_, observation)| observation.clone()).collect();
    // All notes are of one machine; an answer may be noted a moment after what it tells of.
    let expect = Expect { calm, clocks: Duration::from_millis(50), order: None };
    let ledger = oxcart_ledger::check(&observations, &chains, &expect);
    broken.extend(ledger.violations.iter().map(ToString::to_string));

    let figures = &ledger.figures;
    outcome.tasks = figures.tasks;
    outcome.states = figures.states.iter().map(|(state, count)| (state.to_string(), *count)).collect();
    (outcome.starts, outcome.lost, outcome.fenced) = (figures.starts, figures.lost, figures.fenced);
    outcome.cancels_acknowledged = figures.cancels_acknowledged;
    outcome.overlaps = report::overlaps(&seen);
    let answers = clients.answers();
    let of = |end: &str| answers.codes.iter().filter(|(code, _)| code.ends_with(end)).map(|(_, count)| count).sum::<u64>();
    outcome.retries = of("Unavailable") + of("DeadlineExceeded") + of("ResourceExhausted") + of("Cancelled") + of("Unknown");
    broken.extend(answers.unexpected.iter().map(|answer| format!("unexpected answer: {answer}")));
    outcome.answers = answers.codes;
    outcome.left_out = clients.left_out();
    let successes = report::successes(&seen);
    outcome.recovery = report::recovery(healed, &successes);
    outcome.longest_stall_ms = report::longest_stall(started, ended, &successes);
    let missing = row.shows.iter().filter(|shows| !shows.holds(outcome));
    broken.extend(missing.map(|shows| format!("the row did not show {shows:?}")));
    let rest = broken.len().saturating_sub(TOLD);
    broken.truncate(TOLD);
    outcome.violations.extend(broken);
    if rest > 0 {
        outcome.violations.push(format!("and {rest} more"));
    }
    Ok(())
}

/// Nothing is left in the outbox, the agenda and the queue engine, and no transaction is open.
async fn tidy(cluster: &Cluster) -> Result<()> {
    let count = |query: &'static str| async { Ok::<_, anyhow::Error>(cluster.sql(query).await?.trim().parse::<u64>()?) };
    let look =
        || async { Ok::<_, anyhow::Error>((count(REMAINDERS).await?, cluster.entries().await?, count(TRANSACTIONS).await?)) };
    let tidied = wait_for("nothing to be left over", TIDY_WITHIN, || async {
        let found = look().await.ok();
        if found != Some((0, 0, 0)) {
            sleep(Duration::from_millis(200)).await;
        }
        found.filter(|found| *found == (0, 0, 0))
    });
    if tidied.await.is_ok() {
        return Ok(());
    }
    let (remainders, entries, transactions) = look().await?;
    bail!("{remainders} rows of outbox and agenda, {entries} entries of the engine and {transactions} transactions are left over")
}

/// All that was seen, in order of time.
fn seen(cluster: &Cluster, clients: &Clients) -> Result<Vec<(Timestamp, Observation)>> {
    let mut seen = clients.seen();
    for notes in cluster.notes() {
        let read = record::read(&notes.path)?;
        if let Some(at) = notes.died {
            let workers: HashSet<WorkerId> = read.iter().filter_map(|(_, observation)| worker(observation)).collect();
            seen.extend(workers.into_iter().map(|worker| (at, Observation::Died { worker, at })));
        }
        seen.extend(read);
    }
    seen.sort_by_key(|(at, _)| *at);
    Ok(seen)
}

fn worker(observation: &Observation) -> Option<WorkerId> {
    match observation {
        Observation::Entered { worker, .. } => Some(*worker),
        _ => None,
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::{
        super::rows::{ROWS, find},
        *,
    };

    #[test]
    fn a_plan_follows_from_its_seed_and_begins_within_the_load() {
        let lasts = Duration::from_secs(120);
        for row in ROWS.iter().filter(|row| !row.faults.is_empty()) {
            let planned = plan(row, 1, lasts);
            assert_eq!(planned, plan(row, 1, lasts), "{}", row.id);
            assert!(!planned.is_empty() && planned.iter().all(|planned| planned.at < lasts), "{}", row.id);
            assert_ne!(planned, plan(row, 2, lasts), "{}", row.id);
        }
        assert_eq!(plan(find("C0").unwrap(), 1, lasts), []);
    }
}
