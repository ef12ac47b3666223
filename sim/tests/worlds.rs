//! Fixed worlds of every kind, and the proof that a seed is a world. `make sim` runs many more.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::process::{Command, Output};

/// Runs `oxcart-sim`.
fn sim(arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oxcart-sim"));
    command.args(arguments.split_whitespace()).output().expect("the simulation")
}

/// Runs worlds; what is wrong in any of them fails the test.
#[track_caller]
fn hold(arguments: &str) {
    let output = sim(arguments);
    let (said, failed) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{failed}");
}

#[test]
fn a_seed_is_one_world() {
    let (once, again) = (sim("--seed 1 --profile everything"), sim("--seed 1 --profile everything"));
    let last = |output: &Output| String::from_utf8_lossy(&output.stdout).lines().last().map(str::to_owned);
    assert!(last(&once).is_some_and(|line| line.contains("events with the hash")), "{once:?}");
    assert_eq!(last(&once), last(&again));
    assert_ne!(last(&once), last(&sim("--seed 2 --profile everything")));
}

#[test]
fn without_faults_nothing_is_run_twice() {
    hold("--from 1 --seeds 3 --profile clean");
}

#[test]
fn calls_that_fail_lose_nothing() {
    hold("--from 1 --seeds 2 --profile calls");
}

/// The audit would hide it if nobody else came back for hand-offs and retries whose calls were lost.
#[test]
fn calls_that_fail_lose_nothing_without_the_audit() {
    hold("--from 3 --seeds 3 --profile calls --without audit");
}

#[test]
fn processes_that_die_lose_nothing() {
    hold("--from 1 --seeds 2 --profile crashes");
}

#[test]
fn stores_that_forget_lose_nothing() {
    hold("--from 4 --seeds 2 --profile stores");
}

#[test]
fn processes_that_stand_still_lose_nothing() {
    hold("--from 1 --seeds 2 --profile pauses");
}

#[test]
fn everything_at_once_loses_nothing() {
    hold("--from 1 --seeds 4 --profile everything");
}
