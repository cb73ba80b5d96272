//! One file per verb.

mod bench;
mod checkpoints;
mod collect;
mod compare;
mod completions;
mod config;
mod data;
mod diagnose;
mod envs;
mod eval;
mod merge;
mod perf;
mod plan;
mod plot;
mod pretrain;
mod protocol;
mod replay;
mod report;
mod selftest;
mod train;

use anyhow::Result;

use crate::output::Outcome;

const EXAMPLES: &str = "\
Examples:
  worldbench selftest                                   check this machine against the recorded reference
  worldbench collect --preset smoke --out smoke.wbs     record a small data set
  worldbench data inspect smoke.wbs                     what is in it
  worldbench eval --policy random,replay,oracle --episodes 20
  worldbench plan --policy oracle --episode 3 --out episode.gif

Exit codes: 0 done, 1 a check missed, 2 wrong usage or bad input.";

/// Simulates, records, trains, plans and scores latent world models.
#[derive(Debug, clap::Parser)]
#[command(name = "worldbench", version, after_help = EXAMPLES, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Bench(bench::Args),
    Train(train::Args),
    Pretrain(pretrain::Args),
    Collect(collect::Args),
    Data(data::Args),
    Eval(eval::Args),
    Merge(merge::Args),
    Compare(compare::Args),
    Report(report::Args),
    Checkpoints(checkpoints::Args),
    Plan(plan::Args),
    Plot(plot::Args),
    Diagnose(diagnose::Args),
    Replay(replay::Args),
    Selftest(selftest::Args),
    Perf(perf::Args),
    Protocol(protocol::Args),
    Envs(envs::EnvsArgs),
    Fovs(envs::FovsArgs),
    Config(config::Args),
    Completions(completions::Args),
}

impl Cli {
    /// Runs the verb.
    pub fn run(self) -> Result<Outcome> {
        match self.verb {
            Verb::Bench(args) => bench::run(&args),
            Verb::Train(args) => train::run(&args),
            Verb::Pretrain(args) => pretrain::run(&args),
            Verb::Collect(args) => collect::run(&args),
            Verb::Data(args) => data::run(&args),
            Verb::Eval(args) => eval::run(&args),
            Verb::Merge(args) => merge::run(&args),
            Verb::Compare(args) => compare::run(&args),
            Verb::Report(args) => report::run(&args),
            Verb::Checkpoints(args) => checkpoints::run(&args),
            Verb::Plan(args) => plan::run(&args),
            Verb::Plot(args) => plot::run(&args),
            Verb::Diagnose(args) => diagnose::run(&args),
            Verb::Replay(args) => replay::run(&args),
            Verb::Selftest(args) => selftest::run(&args),
            Verb::Perf(args) => perf::run(&args),
            Verb::Protocol(args) => protocol::run(&args),
            Verb::Envs(args) => envs::envs(&args),
            Verb::Fovs(args) => envs::fovs(&args),
            Verb::Config(args) => config::run(&args),
            Verb::Completions(args) => completions::run(&args),
        }
    }
}
