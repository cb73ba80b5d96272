//! `worldbench bench`: a list of cells (collect, train, score), each done once and kept.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::json;
use worldbench_data::Store;
use worldbench_eval::protocol::Split;
use worldbench_eval::provenance::{PROVENANCE_FILE, Provenance, Training};
use worldbench_eval::{
    CollectConfig, EvalOptions, Evaluation, Manifest, Policy, Protocol, RowResult, collect, evaluate,
    gif::write_gif, report::write_markdown, rows::terminal_table,
};
use worldbench_kernels::gemm::Precision;
use worldbench_models::planning::RolloutOptions;
use worldbench_train::TrainConfig;
use worldbench_train::checkpoint::write_atomic;

use crate::config::{BENCH, COLLECT, ConfigArgs, unknown};
use crate::learned;
use crate::output::{Outcome, bar, command_line, print};
use crate::policy::load_policy;

/// Run a benchmark: collect data, train the baselines, score them beside floor and ceiling
///
/// The table (terminal and BENCHMARKS.md) is rewritten after every row. Finished cells and finished episodes are
/// kept: the same command, given again after a kill, goes on and ends with the same scores.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  worldbench bench --preset quick
  worldbench bench --preset smoke --out runs/try
  worldbench bench --preset standard --only pldm,push-t")]
pub struct Args {
    /// Compiled-in preset (smoke, quick, standard), or the path of a TOML file
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

/// A benchmark.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Preset {
    split: String,
    episodes: usize,
    seed: u64,
    references: Vec<String>,
    /// Preset of `collect`.
    collect: String,
    models: Vec<Model>,
}

/// One trained model and the planners it is scored with.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Model {
    /// Preset of `train`.
    train: String,
    #[serde(default)]
    set: Vec<String>,
    /// Training seeds, each a model of its own; none for the seed of the training preset.
    #[serde(default)]
    seeds: Vec<u64>,
    /// What its directories are called after the preset: empty, or `-seed1`.
    #[serde(skip)]
    suffix: String,
    planners: Vec<String>,
    #[serde(default)]
    solver_set: Vec<String>,
    /// Precision of rollouts, `f32` or `bf16`; named in the row.
    #[serde(default, with = "precision")]
    precision: Precision,
}

impl Model {
    /// One model for each of its seeds.
    fn per_seed(self) -> Vec<Self> {
        if self.seeds.is_empty() {
            return vec![self];
        }
        let model = |&seed: &u64| {
            let mut model = self.clone();
            model.set.push(format!("seed={seed}"));
            // The first seed, usually 0, keeps the plain name.
            if Some(&seed) != self.seeds.first() {
                model.suffix = format!("-seed{seed}");
            }
            model
        };
        self.seeds.iter().map(model).collect()
    }

    /// Name of its directories.
    fn name(&self) -> String {
        format!("{}{}", self.train, self.suffix)
    }
}

/// A precision by its name.
mod precision {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use worldbench_kernels::gemm::Precision;

    pub fn serialize<S: Serializer>(precision: &Precision, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(precision.name())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Precision, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

/// What the environments answer to in `--only`.
const ENVIRONMENTS: [&str; 2] = ["push-t", "push_t"];

struct Bench {
    directory: PathBuf,
    name: String,
    preset: Preset,
    protocol: Protocol,
    manifest: Manifest,
    rows: Vec<RowResult>,
}

pub fn run(args: &Args) -> Result<Outcome> {
    let text = match BENCH.iter().find(|(known, _)| *known == args.preset) {
        _ if Path::new(&args.preset).is_file() => {
            std::fs::read_to_string(&args.preset).with_context(|| format!("cannot read {}", args.preset))?
        }
        Some((_, text)) => (*text).to_string(),
        None => return Err(unknown("preset", &args.preset, BENCH.iter().map(|(known, _)| *known))),
    };
    let mut preset: Preset =
        toml::from_str(&text).with_context(|| format!("bench preset {}", args.preset))?;
    if let Some(split) = &args.split {
        preset.split.clone_from(split);
    }
    choose(&mut preset, &args.only)?;
    preset.models = preset.models.into_iter().flat_map(Model::per_seed).collect();
    let name =
        Path::new(&args.preset).file_stem().map_or("bench".into(), |s| s.to_string_lossy().into_owned());
    let protocol = Protocol::find(worldbench_eval::protocol::DEFAULT)?;
    let split = match preset.split.as_str() {
        "dev" => Split::Dev,
        "test" => Split::Test,
        other => bail!("split = \"{other}\" is not known; use \"dev\" or \"test\""),
    };
    let manifest = protocol.manifest(split)?;
    let directory = args.out.clone().unwrap_or_else(|| Path::new("runs").join(format!("bench-{name}")));
    let mut bench = Bench { directory, name, preset, protocol, manifest, rows: Vec::new() };
    bench.run()?;
    Ok(Outcome::Done)
}

/// Keeps the models that `only` names.
fn choose(preset: &mut Preset, only: &[String]) -> Result<()> {
    let methods: Vec<&String> = only.iter().filter(|o| !ENVIRONMENTS.contains(&o.as_str())).collect();
    for method in &methods {
        if !preset
            .models
            .iter()
            .any(|m| m.train.split('-').any(|part| part == *method) || m.train == **method)
        {
            let known: Vec<&str> = preset.models.iter().map(|m| m.train.as_str()).collect();
            bail!(
                "--only {method}: no such method or environment here; known are {}, push-t",
                known.join(", ")
            );
        }
    }
    if !methods.is_empty() {
        let named =
            |m: &Model| methods.iter().any(|o| m.train == **o || m.train.split('-').any(|part| part == *o));
        preset.models.retain(named);
    }
    Ok(())
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
            let (config, checkpoint) = self.train(&model, &data)?;
            for planner in &model.planners {
                self.learned(&model, &config, &checkpoint, planner)?;
            }
        }
        let table = self.directory.join("BENCHMARKS.md");
        print(format!("table with pictures: {}", table.display()))
    }

    fn reference(&mut self, name: &str) -> Result<()> {
        let loaded = load_policy(name)?;
        let evaluation = self.evaluate(name, loaded.policy.as_ref())?;
        let command = format!("worldbench eval --policy {name} --split {}", self.preset.split);
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
        let evaluation = evaluate(
            &self.protocol,
            &self.manifest,
            policy,
            &EvalOptions {
                seed: self.preset.seed,
                threads: 0,
                limit: Some(total),
                resume_dir: Some(&self.directory.join("rows").join(name)),
                progress: Some(&|now| bar.set_position(now.done as u64)),
                ..EvalOptions::default()
            },
        )?;
        bar.finish_and_clear();
        Ok(evaluation)
    }

    /// Keeps the row, its picture and the table as it is now.
    fn finish(&mut self, name: &str, row: RowResult, evaluation: &Evaluation) -> Result<()> {
        let directory = self.directory.join("rows").join(name);
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
            write_gif(&picture, &evaluation.outcomes[episode])?;
        }
        print(format!(
            "{}: {} | block-moved {}",
            row.label(),
            row.score.all.text(),
            row.score.block_moved.text()
        ))?;
        if self.rows.is_empty() {
            print(format!("first picture: {}", picture.display()))?;
        }
        self.rows.push(row);
        let notes = self.rows.iter().zip(self.names()).map(|(row, name)| {
            format!("{}: ![an episode](rows/{name}/episode.gif) `{}`", row.label(), row.command)
        });
        let notes: Vec<String> = notes.collect();
        write_markdown(&self.directory.join("BENCHMARKS.md"), &self.rows, &notes)?;
        if self.rows.len() >= self.preset.references.len() {
            print(terminal_table(&self.rows))?;
        }
        Ok(())
    }

    /// Directory names of the rows, in the order they are made.
    fn names(&self) -> impl Iterator<Item = String> {
        let models = self.preset.models.iter();
        let learned = models.flat_map(|m| m.planners.iter().map(|p| row_name(m, p)));
        self.preset.references.iter().cloned().chain(learned).collect::<Vec<_>>().into_iter()
    }

    fn collect(&self) -> Result<PathBuf> {
        let path = self.directory.join("data.wbs");
        let preset = ConfigArgs { preset: Some(self.preset.collect.clone()), ..ConfigArgs::default() };
        let config: CollectConfig = preset.resolve(COLLECT)?;
        let marker = self.directory.join("collect.json");
        let settings = serde_json::to_string(&config)?;
        if std::fs::read_to_string(&marker).is_ok_and(|done| done == settings) && path.is_file() {
            return Ok(path);
        }
        let bar = bar(config.episodes(), "collect");
        collect(&config, &path, |now| bar.set_position(now.episodes as u64))?;
        bar.finish_and_clear();
        let stats = Store::open(&path)?.stats();
        write_atomic(&marker, settings.as_bytes())?;
        print(format!("collected {} episodes, {} rows", stats.episodes, stats.rows))?;
        Ok(path)
    }

    fn train(&self, model: &Model, data: &Path) -> Result<(TrainConfig, PathBuf)> {
        let config = learned::train_config(&model.train, &model.set)?;
        let target = self.directory.join("checkpoints").join(model.name());
        let run = self.directory.join("train").join(model.name());
        // The trainer itself knows whether the run is complete; a finished one returns at once.
        let seconds = learned::train(&config, data, &run)?;
        print(format!(
            "{}: {} parameters, trained {seconds:.0} s",
            model.train,
            learned::parameters(&config)
        ))?;
        learned::export(&run, &target, &self.card(model, &config, data, seconds)?)?;
        Ok((config, target))
    }

    fn card(&self, model: &Model, config: &TrainConfig, data: &Path, seconds: f64) -> Result<String> {
        let hash = Store::open(data)?.hash();
        Ok(format!(
            "# {}\n\nTrained by `worldbench bench --preset {}` ({:.0} s, {} threads, seed {}) on {} steps of {} windows.\n\n\
             * Data: `worldbench collect --preset {}`, hash {hash} (built-in expert, no human demonstrations).\n\
             * Parameters: {}.\n* Score: see the rows of the same run; load it with \
             `worldbench eval --checkpoint DIR --planner {}`.\n* Licence: MIT OR Apache-2.0.\n\n```json\n{}\n```\n",
            model.train,
            self.name,
            seconds,
            config.threads,
            config.seed,
            config.steps,
            config.batch,
            self.preset.collect,
            learned::parameters(config),
            model.planners.first().map_or("cem", String::as_str),
            serde_json::to_string_pretty(&json!(config))?,
        ))
    }

    fn learned(
        &mut self,
        model: &Model,
        config: &TrainConfig,
        checkpoint: &Path,
        planner: &str,
    ) -> Result<()> {
        let precision = model.precision;
        let rollouts = RolloutOptions { precision, memory: None };
        let (system, policy) = learned::load(checkpoint, planner, &model.solver_set, rollouts)?;
        let name = row_name(model, planner);
        let evaluation = self.evaluate(&name, &policy)?;
        let shown = checkpoint.strip_prefix(&self.directory).unwrap_or(checkpoint).display().to_string();
        let mut sets: String = model.solver_set.iter().map(|s| format!(" --set {s}")).collect();
        if precision != Precision::F32 {
            sets += &format!(" --precision {}", precision.name());
        }
        let command = format!(
            "worldbench eval --checkpoint {} --planner {planner} --split {}{sets}",
            checkpoint.display(),
            self.preset.split
        );
        let mut row = RowResult::new(system, &self.protocol.environment, &evaluation, &self.limited(command));
        row.planner = learned::planner_label(planner, precision);
        row.checkpoint = Some(shown);
        row.train_seed = Some(config.seed);
        learned::describe(config, &model.solver_set, &mut row);
        self.finish(&name, row, &evaluation)
    }
}

fn row_name(model: &Model, planner: &str) -> String {
    format!("{}-{}", model.name(), learned::file_label(planner, model.precision))
}
