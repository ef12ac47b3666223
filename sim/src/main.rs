//! Runs worlds; see `docs/simulation.md`.

#![expect(clippy::print_stdout, reason = "a report for people")]

use std::{
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use anyhow::{Context as _, bail};
use oxcart_sim::{
    many::{self, Orders},
    plan::{Plan, Profile},
    world::Outcome,
};

const USAGE: &str = "\
usage: oxcart-sim [--seeds COUNT] [--from SEED] [--jobs N] [--profile NAME] [--without audit] [--go-on]
       oxcart-sim --seed SEED [--profile NAME] [--without audit] [--trace]
profiles: everything, clean, calls, crashes, stores, pauses; each seed has its own when none is named";
/// Lines of a failed world's log that are shown.
const TAIL: usize = 60;

struct Arguments {
    orders: Orders,
    /// One world, in this process.
    seed: Option<u64>,
    profile: Option<Profile>,
    change: fn(&mut Plan),
    trace: bool,
}

fn arguments() -> anyhow::Result<Arguments> {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let orders = Orders { first: 1, count: 100, jobs, arguments: Vec::new(), stop: true };
    let mut found = Arguments { orders, seed: None, profile: None, change: |_| {}, trace: false };
    let mut rest = std::env::args().skip(1);
    while let Some(name) = rest.next() {
        let mut value = || rest.next().with_context(|| format!("{name} needs a value\n{USAGE}"));
        match name.as_str() {
            "--seeds" => found.orders.count = value()?.parse()?,
            "--from" => found.orders.first = value()?.parse()?,
            "--jobs" => found.orders.jobs = value()?.parse()?,
            "--profile" => {
                let profile = value()?;
                found.profile = Some(Profile::parse(&profile).with_context(|| format!("no profile {profile:?}\n{USAGE}"))?);
                found.orders.arguments.extend([name, profile]);
            }
            "--without" => {
                let part = value()?;
                anyhow::ensure!(part == "audit", "nothing can be without {part:?}\n{USAGE}");
                found.change = |plan| plan.settings.without.audit = true;
                found.orders.arguments.extend([name, part]);
            }
            "--seed" => found.seed = Some(value()?.parse()?),
            "--trace" => found.trace = true,
            "--go-on" => found.orders.stop = false,
            _ => bail!("what is {name:?}?\n{USAGE}"),
        }
    }
    Ok(found)
}

fn main() -> anyhow::Result<ExitCode> {
    let Arguments { orders, seed, profile, change, trace } = arguments()?;
    many::note_panics();
    if let Some(seed) = seed {
        let outcome = many::one(seed, profile, change, if trace { usize::MAX } else { TAIL })?;
        tell(&outcome, trace);
        return Ok(if outcome.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let (began, worlds) = (Instant::now(), AtomicU64::new(0));
    let failed = many::run(&orders, |seed, output| {
        worlds.fetch_add(1, Ordering::Relaxed);
        if !output.status.success() {
            println!("{}", String::from_utf8_lossy(&output.stdout));
            println!("seed {seed} fails; replay it with: oxcart-sim --seed {seed} {}", orders.arguments.join(" "));
        }
    })?;
    let (worlds, took) = (worlds.into_inner(), began.elapsed().as_secs_f64());
    println!("{worlds} worlds in {took:.1} s, {} failed: {failed:?}", failed.len());
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The outcome; with it the last events when something is wrong, or when they are asked for.
fn tell(outcome: &Outcome, trace: bool) {
    if trace || !outcome.is_clean() {
        outcome.tail.iter().for_each(|line| println!("{line}"));
    }
    println!("{}", outcome.report);
    for panic in &outcome.panics {
        println!("panic: {panic}");
    }
    println!(
        "{} events with the hash {:016x}; {:?} simulated, {:?} of it after the end of the faults; faults: {:?}",
        outcome.events, outcome.hash, outcome.simulated, outcome.healing, outcome.faults
    );
}
