//! Kills, pauses, cuts and starves real processes under load, and checks that nothing is lost. See docs/chaos.md.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "what it is for: a table for people")]

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, Subcommand};
use oxcart_tests::chaos::{
    backlog,
    cluster::Programs,
    report::{self, Outcome},
    rows::{self, ROWS, Row},
    scenario, worker,
};

#[derive(Debug, Parser)]
#[command(about = "Real processes, real faults, and a ledger that tells whether anything was lost")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs rows of the table and prints what came of them
    Run(RunArgs),
    /// L1: many more tasks in a queue than its window; Redis stays small, priorities hold
    Backlog(BacklogArgs),
    /// Lists the rows
    List,
    /// The worker process of the tests
    #[command(hide = true)]
    Worker(worker::WorkerArgs),
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    /// Rows, separated by commas; all when not given
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
    /// How long the load of each row lasts, in seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// What load and faults follow from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The program under test; the one beside this one when not given
    #[arg(long)]
    oxcart: Option<PathBuf>,
    /// Where the report goes as JSON, and below it the logs of rows that found something
    #[arg(long, default_value = "target/chaos")]
    out: PathBuf,
}

#[derive(Debug, clap::Args)]
struct BacklogArgs {
    /// Tasks in all
    #[arg(long, default_value_t = 1_000_000)]
    tasks: u64,
    /// Entries that the queue engine may hold
    #[arg(long, default_value_t = 100_000)]
    window: u64,
    /// What priorities follow from
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime").and_then(|runtime| {
        runtime.block_on(async {
            match cli.command {
                Command::Run(args) => run(args).await,
                Command::Backlog(args) => fill(args).await,
                Command::List => {
                    ROWS.iter().for_each(|row| println!("{:4} {}", row.id, row.title));
                    Ok(true)
                }
                Command::Worker(args) => worker::run(args).await.map(|()| true),
            }
        })
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// This program, and `oxcart` beside it or where it is said to be.
fn programs(oxcart: Option<PathBuf>) -> Result<Programs> {
    let chaos = std::env::current_exe()?;
    let oxcart = oxcart.unwrap_or_else(|| chaos.with_file_name("oxcart"));
    ensure!(oxcart.is_file(), "{} is not there: cargo build -p oxcart", oxcart.display());
    Ok(Programs { oxcart, chaos })
}

/// True when nothing was broken.
async fn fill(args: BacklogArgs) -> Result<bool> {
    let backlog = backlog::Backlog { tasks: args.tasks, window: args.window, seed: args.seed };
    let (outcome, peak) = Box::pin(backlog::run(programs(None)?, backlog)).await?;
    outcome.violations.iter().for_each(|violation| eprintln!("  {violation}"));
    println!("{} tasks in one queue, drained in {:.1} s", outcome.tasks, outcome.quiet_after_ms as f64 / 1000.0);
    println!("the engine held {} entries at most, Redis {:.1} MB", peak.entries, peak.bytes as f64 / 1e6);
    Ok(outcome.is_clean())
}

/// True when nothing was broken.
async fn run(args: RunArgs) -> Result<bool> {
    let programs = programs(args.oxcart)?;
    std::fs::create_dir_all(&args.out)?;
    let mut outcomes: Vec<Outcome> = Vec::new();
    for row in chosen(&args.rows)? {
        eprintln!("{}: {}", row.id, row.title);
        let keep = args.out.join(format!("{}-{}", row.id, args.seed));
        let options = scenario::Options {
            seed: args.seed,
            lasts: Duration::from_secs(args.seconds),
            programs: programs.clone(),
            keep: keep.clone(),
        };
        let outcome = scenario::run(row, &options).await.unwrap_or_else(|error| Outcome {
            row: row.id,
            title: row.title,
            seed: args.seed,
            violations: vec![format!("{error:#}")],
            ..Outcome::default()
        });
        tell(&outcome, args.seconds, &keep);
        outcomes.push(outcome);
        // After each row: what was found is not lost when a later one is broken off.
        std::fs::write(args.out.join("report.json"), serde_json::to_string_pretty(&outcomes)?)?;
    }
    println!("{}", report::table(&outcomes));
    Ok(outcomes.iter().all(Outcome::is_clean))
}

fn tell(outcome: &Outcome, seconds: u64, keep: &std::path::Path) {
    if outcome.is_clean() {
        eprintln!("  {} tasks, {} faults, nothing lost", outcome.tasks, outcome.faults.len());
        return;
    }
    for violation in &outcome.violations {
        eprintln!("  {violation}");
    }
    eprintln!("  logs and notes: {}", keep.display());
    eprintln!("  again: make chaos ROWS={} SECONDS={seconds} SEED={}", outcome.row, outcome.seed);
}

fn chosen(names: &[String]) -> Result<Vec<&'static Row>> {
    if names.is_empty() {
        return Ok(ROWS.iter().collect());
    }
    names.iter().map(|name| rows::find(name.trim()).with_context(|| format!("there is no row {name:?}; see `list`"))).collect()
}
