//! `worldbench bench`: a list of cells (collect, train, score), each done once and kept.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::json;
use worldbench_data::Store;
use worldbench_eval::protocol::Split;
use worldbench_eval::{
    CollectConfig, EvalOptions, Evaluation, Manifest, Policy, Protocol, RowResult, collect, evaluate,
    gif::write_gif, report::write_markdown, rows::terminal_table,
};
use worldbench_kernels::gemm::Precision;
use worldbench_models::planning::RolloutOptions;
use worldbench_train::TrainConfig;
use worldbench_train::checkpoint::write_atomic;

use crate::config::{BENCH, COLLECT, ConfigArgs, unknown};
use crate::learned::{self, Acting, Trained, Use};
use crate::output::{Outcome, bar, print};
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

/// One trained model and how it is scored.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Model {
    /// Preset of `train`.
    train: String,
    #[serde(default)]
    set: Vec<String>,
    /// Planners of a world model; a policy has none and makes one row.
    #[serde(default)]
    planners: Vec<String>,
    /// An earlier model of the list, compact PLDM or LeWM, whose encoder a policy sees with.
    #[serde(default)]
    encoder: Option<String>,
    /// Trained for its encoder only: the row was not asked for.
    #[serde(skip)]
    unscored: bool,
    #[serde(default)]
    solver_set: Vec<String>,
    /// Precision of rollouts, `f32` or `bf16`; named in the row.
    #[serde(default, with = "precision")]
    precision: Precision,
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
        let chosen = preset.models.iter().filter(|m| named(m));
        let encoders: Vec<String> = chosen.filter_map(|m| m.encoder.clone()).collect();
        for model in &mut preset.models {
            model.unscored = !named(model);
        }
        preset.models.retain(|m| !m.unscored || encoders.contains(&m.train));
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
            for planner in model.uses() {
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
        let learned = models.flat_map(|m| m.uses().into_iter().map(|planner| row_name(m, planner)));
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
        let encoder = model.encoder.iter().map(|name| {
            format!("model.encoder.checkpoint={}", self.directory.join("checkpoints").join(name).display())
        });
        let sets: Vec<String> = model.set.iter().cloned().chain(encoder).collect();
        let config = learned::train_config(&model.train, &sets)?;
        let target = self.directory.join("checkpoints").join(&model.train);
        let run = self.directory.join("train").join(&model.train);
        // The trainer itself knows whether the run is complete; a finished one returns at once.
        let trained = learned::train(&config, data, &run)?;
        let Trained { seconds, parameters } = trained;
        print(format!("{}: {parameters} parameters, trained {seconds:.0} s", model.train))?;
        learned::export(&run, &target, &self.card(model, &config, data, &trained)?)?;
        Ok((config, target))
    }

    fn card(&self, model: &Model, config: &TrainConfig, data: &Path, trained: &Trained) -> Result<String> {
        let hash = Store::open(data)?.hash();
        let planner = model.planners.first().map_or(String::new(), |planner| format!(" --planner {planner}"));
        Ok(format!(
            "# {}\n\nTrained by `worldbench bench --preset {}` ({:.0} s, {} threads, seed {}) on {} steps of {} windows.\n\n\
             * Data: `worldbench collect --preset {}`, hash {hash} (built-in expert, no human demonstrations).\n\
             * Parameters: {}.\n* Score: see the rows of the same run; load it with \
             `worldbench eval --checkpoint DIR{planner}`.\n* Licence: MIT OR Apache-2.0.\n\n```json\n{}\n```\n",
            model.train,
            self.name,
            trained.seconds,
            config.threads,
            config.seed,
            config.steps,
            config.batch,
            self.preset.collect,
            trained.parameters,
            serde_json::to_string_pretty(&json!(config))?,
        ))
    }

    fn learned(
        &mut self,
        model: &Model,
        config: &TrainConfig,
        checkpoint: &Path,
        planner: Option<&str>,
    ) -> Result<()> {
        let precision = model.precision;
        let rollouts = RolloutOptions { precision, memory: None };
        let how = Use { planner, sets: &model.solver_set, rollouts };
        let Acting { system, policy, label } = learned::load(checkpoint, how)?;
        let name = row_name(model, planner);
        let evaluation = self.evaluate(&name, policy.as_ref())?;
        let shown = checkpoint.strip_prefix(&self.directory).unwrap_or(checkpoint).display().to_string();
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
        learned::describe(config, &model.solver_set, &mut row);
        self.finish(&name, row, &evaluation)
    }
}

impl Model {
    /// The planners of its rows; one row without a planner for a policy.
    fn uses(&self) -> Vec<Option<&str>> {
        match &self.planners[..] {
            _ if self.unscored => vec![],
            [] => vec![None],
            planners => planners.iter().map(|planner| Some(planner.as_str())).collect(),
        }
    }
}

fn row_name(model: &Model, planner: Option<&str>) -> String {
    let planner = planner.map(|planner| learned::file_label(planner, model.precision));
    std::iter::once(model.train.clone()).chain(planner).collect::<Vec<_>>().join("-")
}
