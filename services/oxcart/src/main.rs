//! The `oxcart` binary.

mod bench;
mod cli;

use std::process::ExitCode;

use clap::Parser as _;
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(cli.run()),
        Err(error) => {
            let error = cli::CliError::Other(error.into());
            error.tell();
            error.exit().into()
        }
    }
}
