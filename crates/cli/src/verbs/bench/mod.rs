//! `worldbench bench`: a list of cells (collect, train, score), each done once and kept.

mod check;
mod collected;
mod preset;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;
use worldbench_data::Store;
use worldbench_env::domain;
use worldbench_eval::protocol::DEFAULT;
use worldbench_eval::provenance::{PROVENANCE_FILE, Provenance, Training, forget_peak_memory};
use worldbench_eval::{
    EvalOptions, Evaluation, Manifest, Policy, Protocol, RowResult, collect, evaluate, gif::write_gif,
    report::write_markdown, rows::terminal_table,
};
use worldbench_kernels::gemm::Precision;
use worldbench_train::TrainConfig;
use worldbench_train::checkpoint::write_atomic;

use crate::config::environment;
use crate::learned::{self, Acting, CARD, Trained};
use crate::output::{Outcome, bar, command_line, print};
use crate::policy::load_policy;

use self::collected::Collected;
use self::preset::{Model, choose, read_with_included, split};

pub use self::preset::Preset;

/// Run a benchmark: collect data, train the baselines, score them beside floor and ceiling
///
/// The table (terminal and BENCHMARKS.md) is rewritten after every row. Finished cells and finished episodes are
/// kept: the same command, given again after a kill, goes on and ends with the same scores.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  worldbench bench --preset quick
  worldbench bench --preset smoke --out runs/try
  worldbench bench --preset standard --only pldm,push-t
  worldbench bench --preset two-room --split dev")]
pub struct Args {
    /// Compiled-in preset (smoke, quick, standard, two-room), or the path of a TOML file
    #[arg(long, value_name = "NAME|PATH", default_value = "quick")]
    preset: String,
    /// Where everything is kept
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Only these methods and environments, separated by commas (references are always run)
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Score on this split instead of the preset's
    #[arg(long, value_name = "dev|test")]
    split: Option<String>,
}

/// The cells of one environment.
struct Bench {
    directory: PathBuf,
    name: String,
    preset: Preset,
    protocol: Protocol,
    manifest: Manifest,
    /// Finished rows of all environments with the names of their directories.
    rows: Vec<(String, RowResult)>,
    /// Rows that the table is first printed after.
    quiet: usize,
}

/// A trained model and its exported checkpoint.
struct Ready {
    model: Model,
    config: TrainConfig,
    checkpoint: PathBuf,
    trained: Trained,
    data_hash: String,
}

pub fn run(args: &Args) -> Result<Outcome> {
    let name =
        Path::new(&args.preset).file_stem().map_or("bench".into(), |s| s.to_string_lossy().into_owned());
    let directory = args.out.clone().unwrap_or_else(|| Path::new("runs").join(format!("bench-{name}")));
    let presets = choose(read_with_included(&args.preset, args.split.as_deref())?, &args.only)?;
    let bench = |preset: Preset| {
        let protocol = Protocol::find(DEFAULT, environment(&preset.env)?.name)?;
        let manifest = protocol.manifest(split(&preset.split)?)?;
        let (directory, name) = (directory.clone(), name.clone());
        let bench = Bench { directory, name, preset, protocol, manifest, rows: Vec::new(), quiet: 0 };
        bench.check().with_context(|| format!("bench preset {}", args.preset))?;
        Ok(bench)
    };
    // All of them are checked before the first cell starts.
    let benches = presets.into_iter().map(bench).collect::<Result<Vec<_>>>()?;
    let mut rows = Vec::new();
    for mut bench in benches {
        bench.quiet = rows.len() + bench.preset.references.len();
        bench.rows = rows;
        bench.run()?;
        rows = bench.rows;
    }
    let table = directory.join("BENCHMARKS.md");
    print(format!("table with pictures: {}", table.display()))?;
    Ok(Outcome::Done)
}

impl Bench {
    fn run(&mut self) -> Result<()> {
        std::fs::create_dir_all(&self.directory)
            .with_context(|| format!("cannot make {}; give another --out", self.directory.display()))?;
        for name in self.preset.references.clone() {
            self.reference(&name)?;
        }
        if self.preset.models.is_empty() {
            return Ok(());
        }
        let data = self.collect()?;
        for model in self.preset.models.clone() {
            let ready = self.train(model, &data)?;
            // One that is here for its encoder keeps the card with its scores.
            if !(ready.model.unscored && ready.checkpoint.join(CARD).is_file()) {
                self.card(&ready)?;
            }
            for planner in ready.model.uses() {
                self.learned(&ready, planner)?;
                self.card(&ready)?;
            }
        }
        Ok(())
    }

    /// `name` as a file's: environments but the first have their name before it.
    fn file(&self, name: &str) -> String {
        match self.unnamed() {
            true => name.into(),
            false => format!("{}-{name}", self.protocol.environment),
        }
    }

    /// Whether this is the environment that commands and files need not name.
    fn unnamed(&self) -> bool {
        self.protocol.environment == domain::all()[0].spec().name
    }

    fn reference(&mut self, name: &str) -> Result<()> {
        let loaded = load_policy(name)?;
        let evaluation = self.evaluate(name, loaded.policy.as_ref())?;
        let env =
            if self.unnamed() { String::new() } else { format!(" --env {}", self.protocol.environment) };
        let command = format!("worldbench eval{env} --policy {name} --split {}", self.preset.split);
        let row =
            RowResult::new(loaded.system, &self.protocol.environment, &evaluation, &self.limited(command));
        self.finish(name, row, &evaluation)
    }

    /// Adds the number of episodes when it is not all of them.
    fn limited(&self, command: String) -> String {
        match self.preset.episodes < self.manifest.pairs.len() {
            true => format!("{command} --episodes {}", self.preset.episodes),
            false => command,
        }
    }

    fn evaluate(&self, name: &str, policy: &dyn Policy) -> Result<Evaluation> {
        let total = self.preset.episodes.min(self.manifest.pairs.len());
        let bar = bar(total, name);
        forget_peak_memory();
        let evaluation = evaluate(
            &self.protocol,
            &self.manifest,
            policy,
            &EvalOptions {
                seed: self.preset.seed,
                threads: 0,
                limit: Some(total),
                resume_dir: Some(&self.directory.join("rows").join(self.file(name))),
                progress: Some(&|now| bar.set_position(now.done as u64)),
                ..EvalOptions::default()
            },
        )?;
        bar.finish_and_clear();
        Ok(evaluation)
    }

    /// Keeps the row, its picture and the table as it is now.
    fn finish(&mut self, name: &str, row: RowResult, evaluation: &Evaluation) -> Result<()> {
        let file = self.file(name);
        let directory = self.directory.join("rows").join(&file);
        let text = serde_json::to_string_pretty(&row)? + "\n";
        write_atomic(&directory.join("summary.json"), text.as_bytes())?;
        if !directory.join(PROVENANCE_FILE).is_file() {
            let weights = row.checkpoint.as_ref().map(|checkpoint| self.directory.join(checkpoint));
            let training = weights.map_or(Ok(None), |weights| Training::of_checkpoint(&weights))?;
            Provenance { training, ..Provenance::here(&command_line(), 0) }.save(&directory)?;
        }
        let episode = evaluation.outcomes.iter().position(|o| o.success && o.steps > 10).unwrap_or(0);
        let picture = directory.join("episode.gif");
        if !picture.exists() {
            write_gif(&picture, self.protocol.env()?, &evaluation.outcomes[episode])?;
        }
        print(format!(
            "{}: {} | {} {}",
            row.label(),
            row.score.all.text(),
            self.protocol.env()?.spec().hard.name,
            row.score.block_moved.text()
        ))?;
        if self.rows.is_empty() {
            print(format!("first picture: {}", picture.display()))?;
        }
        self.rows.push((file, row));
        let note = |(file, row): &(String, RowResult)| {
            format!("{}: ![an episode](rows/{file}/episode.gif) `{}`", row.label(), row.command)
        };
        let notes: Vec<String> = self.rows.iter().map(note).collect();
        let rows: Vec<RowResult> = self.rows.iter().map(|(_, row)| row.clone()).collect();
        let training = |(file, _): &(String, RowResult)| {
            Ok(Provenance::load(&self.directory.join("rows").join(file))?.and_then(|found| found.training))
        };
        let trainings = self.rows.iter().map(training).collect::<Result<Vec<_>>>()?;
        write_markdown(&self.directory.join("BENCHMARKS.md"), &rows, &trainings, &notes)?;
        if rows.len() >= self.quiet {
            print(terminal_table(&rows))?;
        }
        Ok(())
    }

    fn collect(&self) -> Result<PathBuf> {
        let (path, config) = (self.directory.join(self.file("data.wbs")), self.collect_config()?);
        let marker = Collected { path: self.directory.join(self.file("collect.json")) };
        if path.is_file() && marker.names(&config)? {
            marker.check(&path)?;
            return Ok(path);
        }
        let bar = bar(config.episodes(), "collect");
        collect(&config, &path, |now| bar.set_position(now.episodes as u64))?;
        bar.finish_and_clear();
        let store = Store::open(&path)?;
        marker.write(&config, &store)?;
        let stats = store.stats();
        print(format!("collected {} episodes, {} rows", stats.episodes, stats.rows))?;
        Ok(path)
    }

    /// The checkpoint of the model called `name`.
    fn checkpoint(&self, name: &str) -> PathBuf {
        self.directory.join("checkpoints").join(self.file(name))
    }

    fn train(&self, model: Model, data: &Path) -> Result<Ready> {
        let config = self.train_config(&model)?;
        let checkpoint = self.checkpoint(&model.name());
        let run = self.directory.join("train").join(self.file(&model.name()));
        // The trainer itself knows whether the run is complete; a finished one returns at once.
        let trained = learned::train(&config, data, &run)?;
        print(format!(
            "{}: {} parameters, trained {:.0} s",
            model.name(),
            trained.parameters,
            trained.seconds
        ))?;
        // What is published is what is scored.
        learned::export(&run, &checkpoint, true)?;
        Ok(Ready { model, config, checkpoint, trained, data_hash: Store::open(data)?.hash().to_string() })
    }

    /// Writes the checkpoint's card, with the rows that it has so far.
    fn card(&self, ready: &Ready) -> Result<()> {
        let Ready { model, config, checkpoint, trained, data_hash } = ready;
        let shown = self.shown(checkpoint);
        let rows = self.rows.iter().filter(|(_, row)| row.checkpoint.as_ref() == Some(&shown));
        let scores = rows.map(|(_, row)| {
            let RowResult { protocol, split, protocol_hash, command, .. } = row;
            let score = row.score.all.text();
            format!(
                "* {}: {score} on `{split}` of `{protocol}` (hash {protocol_hash}), `{command}`.\n",
                row.label()
            )
        });
        let card = format!(
            "# {}\n\nTrained by `worldbench bench --preset {}` ({:.0} s, {} threads, seed {}) on {} steps of {} windows; \
             matrices in f16.\n\n* Data: `worldbench collect --preset {}`, hash {data_hash} (built-in expert, no human \
             demonstrations).\n* Parameters: {}.\n{}* Licence: MIT OR Apache-2.0.\n\n```json\n{}\n```\n",
            model.name(),
            self.name,
            trained.seconds,
            config.threads,
            config.seed,
            config.steps,
            config.batch,
            self.preset.collect,
            trained.parameters,
            scores.collect::<String>(),
            serde_json::to_string_pretty(&json!(config))?,
        );
        Ok(write_atomic(&checkpoint.join(CARD), card.as_bytes())?)
    }

    /// A path as rows name it: relative to the benchmark's directory.
    fn shown(&self, path: &Path) -> String {
        path.strip_prefix(&self.directory).unwrap_or(path).display().to_string()
    }

    fn learned(&mut self, ready: &Ready, planner: Option<&str>) -> Result<()> {
        let Ready { model, config, checkpoint, .. } = ready;
        let precision = model.precision;
        let Acting { system, policy, label, variant, .. } = learned::load(checkpoint, model.used(planner))?;
        let name = model.row_name(planner);
        let evaluation = self.evaluate(&name, policy.as_ref())?;
        let shown = self.shown(checkpoint);
        let mut sets: String = model.solver_set.iter().map(|s| format!(" --set {s}")).collect();
        if precision != Precision::F32 {
            sets += &format!(" --precision {}", precision.name());
        }
        let planner = planner.map_or(String::new(), |planner| format!(" --planner {planner}"));
        let command = format!(
            "worldbench eval --checkpoint {}{planner} --split {}{sets}",
            checkpoint.display(),
            self.preset.split
        );
        let mut row = RowResult::new(system, &self.protocol.environment, &evaluation, &self.limited(command));
        row.planner = label;
        row.checkpoint = Some(shown);
        row.train_seed = Some(config.seed);
        row.variant = variant;
        self.finish(&name, row, &evaluation)
    }
}
