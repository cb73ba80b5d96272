//! `worldbench completions`.

use std::io::Write;

use anyhow::{Context, Result};
use clap::CommandFactory;

use crate::output::Outcome;

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  worldbench completions bash > ~/.local/share/bash-completion/completions/worldbench"
)]
pub struct Args {
    /// The shell
    shell: clap_complete::Shell,
}

pub fn run(args: &Args) -> Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), "worldbench", &mut script);
    std::io::stdout().lock().write_all(&script).context("cannot write to standard output")?;
    Ok(Outcome::Done)
}
