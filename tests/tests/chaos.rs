//! The short form of `make chaos`: the rows that tell most, with a fixed seed. docs/chaos.md tells what each proves.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use oxcart_tests::{
    binary,
    chaos::{cluster::Programs, rows, scenario},
};

const SEED: u64 = 1;

async fn holds(row: &str, lasts: Duration) -> Result<()> {
    let chaos = PathBuf::from(env!("CARGO_BIN_EXE_oxcart-chaos"));
    let keep = chaos.with_file_name("chaos").join(row);
    let programs = Programs { oxcart: binary::oxcart().clone(), chaos };
    let options = scenario::Options { seed: SEED, lasts, programs, keep: keep.clone() };
    let outcome = scenario::run(rows::find(row).context("a row")?, &options).await?;
    ensure!(outcome.is_clean(), "logs are in {}\n{:#?}", keep.display(), outcome);
    ensure!(outcome.tasks > 0 && outcome.stuck == 0, "{outcome:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_are_killed_lose_nothing() -> Result<()> {
    holds("K2", Duration::from_secs(8)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_frozen_for_three_leases_changes_nothing() -> Result<()> {
    holds("P1", Duration::from_secs(6)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_killed_keeps_what_was_acknowledged() -> Result<()> {
    holds("K5", Duration::from_secs(10)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_forgets_everything_costs_no_second_run() -> Result<()> {
    holds("R1", Duration::from_secs(10)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_that_are_lost_are_asked_for_again() -> Result<()> {
    holds("N3", Duration::from_secs(8)).await
}
