//! Runs one world after the other, several side by side.
//!
//! Each has a process of its own: tokio counts the runtimes of a process and lets its dice follow from that, so that only the
//! first world of a process follows from its seed alone.

use std::{
    io, panic,
    process::{Command, Output},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use crate::{
    plan::{Plan, Profile},
    world::{self, Outcome},
};

/// Which worlds to run.
#[derive(Debug, Clone)]
pub struct Orders {
    /// The first seed.
    pub first: u64,
    /// Worlds.
    pub count: u64,
    /// Worlds at once.
    pub jobs: usize,
    /// What goes to each of them besides its seed.
    pub arguments: Vec<String>,
    /// Ends with the first world in which something is wrong.
    pub stop: bool,
}

/// Runs the world of this process, which must be its only one, on a thread of its own, and keeps so many of its last events.
///
/// # Errors
/// The world could not be made, or the simulation itself panicked.
pub fn one(seed: u64, profile: Option<Profile>, change: fn(&mut Plan), kept: usize) -> anyhow::Result<Outcome> {
    let profile = profile.unwrap_or(Profile::of(seed));
    let world = thread::Builder::new().name(format!("seed {seed}"));
    let world = world.spawn(move || {
        world::run(seed, profile, |plan| {
            change(plan);
            plan.kept = kept;
        })
    })?;
    world.join().map_err(|_| anyhow::anyhow!("the simulation panicked with seed {seed}"))?
}

/// Runs all, each as `oxcart-sim --seed N` from this program's file; `heard` gets what each printed. Returns the seeds that failed.
///
/// # Errors
/// A process could not be started.
pub fn run(orders: &Orders, heard: impl Fn(u64, &Output) + Sync) -> io::Result<Vec<u64>> {
    let program = std::env::current_exe()?;
    let (next, stopped) = (AtomicU64::new(0), AtomicBool::new(false));
    let failed = Mutex::new(Ok(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..orders.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= orders.count || stopped.load(Ordering::Relaxed) {
                        return;
                    }
                    let seed = orders.first + index;
                    let output = Command::new(&program).arg("--seed").arg(seed.to_string()).args(&orders.arguments).output();
                    let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                    match (output, &mut *failed) {
                        (Ok(output), Ok(seeds)) => {
                            heard(seed, &output);
                            if !output.status.success() {
                                seeds.push(seed);
                                stopped.fetch_or(orders.stop, Ordering::Relaxed);
                            }
                        }
                        (Err(error), failed) => {
                            *failed = Err(error);
                            stopped.store(true, Ordering::Relaxed);
                        }
                        (Ok(_), Err(_)) => {}
                    }
                }
            });
        }
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// From now on a panic is noted where it happens, and told with the outcome of its world; nothing is printed.
pub fn note_panics() {
    panic::set_hook(Box::new(|info| crate::host::note_panic(info.to_string())));
}
