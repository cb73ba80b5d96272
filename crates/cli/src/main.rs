//! The `worldbench` binary: parses the flags once, resolves the configuration, calls the libraries and prints.
//!
//! Exit codes: 0 done, 1 a check missed, 2 wrong usage or bad input.

mod config;
mod embedded;
mod learned;
mod output;
mod pairs;
mod policy;
mod verbs;

use std::process::ExitCode;

use clap::Parser;

use output::Outcome;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match verbs::Cli::parse().run() {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Miss) => ExitCode::from(1),
        // The reader has seen enough: `worldbench ... | head` is no failure.
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&error);
            ExitCode::from(2)
        }
    }
}
