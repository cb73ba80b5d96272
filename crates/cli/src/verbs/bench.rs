//! `worldbench bench`: a list of cells (collect, train, score), each done once and kept.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::json;
use worldbench_data::Store;
use worldbench_env::domain;
use worldbench_eval::protocol::{DEFAULT, Split};
use worldbench_eval::provenance::{PROVENANCE_FILE, Provenance, Training};
use worldbench_eval::{
    CollectConfig, EvalOptions, Evaluation, Manifest, Policy, Protocol, RowResult, collect, evaluate,
    gif::write_gif, report::write_markdown, rows::terminal_table,
};
use worldbench_kernels::gemm::Precision;
use worldbench_models::planning::RolloutOptions;
use worldbench_train::TrainConfig;
use worldbench_train::checkpoint::write_atomic;

use crate::config::{BENCH, COLLECT, ConfigArgs, environment, unknown};
use crate::learned::{self, Acting, Trained, Use};
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

/// A benchmark.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Preset {
    /// Environment.
    #[serde(default = "push_t")]
    env: String,
    split: String,
    episodes: usize,
    seed: u64,
    references: Vec<String>,
    /// Preset of `collect`.
    collect: String,
    models: Vec<Model>,
    /// Presets of other environments that are run after this one.
    #[serde(default)]
    include: Vec<String>,
}

fn push_t() -> String {
    "push_t".into()
}

/// One trained model and how it is scored.
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

pub fn run(args: &Args) -> Result<Outcome> {
    let name =
        Path::new(&args.preset).file_stem().map_or("bench".into(), |s| s.to_string_lossy().into_owned());
    let directory = args.out.clone().unwrap_or_else(|| Path::new("runs").join(format!("bench-{name}")));
    let presets = choose(read_with_included(&args.preset, args.split.as_deref())?, &args.only)?;
    let mut rows = Vec::new();
    for preset in presets {
        let protocol = Protocol::find(DEFAULT, environment(&preset.env)?.name)?;
        let manifest = protocol.manifest(split(&preset.split)?)?;
        let quiet = rows.len() + preset.references.len();
        let (directory, name) = (directory.clone(), name.clone());
        let mut bench = Bench { directory, name, preset, protocol, manifest, rows, quiet };
        bench.run()?;
        rows = bench.rows;
    }
    let table = directory.join("BENCHMARKS.md");
    print(format!("table with pictures: {}", table.display()))?;
    Ok(Outcome::Done)
}

fn split(name: &str) -> Result<Split> {
    match name {
        "dev" => Ok(Split::Dev),
        "test" => Ok(Split::Test),
        other => bail!("split = \"{other}\" is not known; use \"dev\" or \"test\""),
    }
}

fn read(name: &str) -> Result<Preset> {
    let text = match BENCH.iter().find(|(known, _)| *known == name) {
        _ if Path::new(name).is_file() => {
            std::fs::read_to_string(name).with_context(|| format!("cannot read {name}"))?
        }
        Some((_, text)) => (*text).to_string(),
        None => return Err(unknown("preset", name, BENCH.iter().map(|(known, _)| *known))),
    };
    toml::from_str(&text).with_context(|| format!("bench preset {name}"))
}

/// The preset, then those that it includes, which take over its split, number of episodes and seed.
fn read_with_included(name: &str, split: Option<&str>) -> Result<Vec<Preset>> {
    let mut first = read(name)?;
    if let Some(split) = split {
        first.split = split.into();
    }
    let mut presets = Vec::new();
    for other in &first.include {
        let Preset { env, references, collect, models, .. } = read(other)?;
        presets.push(Preset { env, references, collect, models, include: Vec::new(), ..first.clone() });
    }
    presets.insert(0, first);
    for preset in &mut presets {
        preset.models = std::mem::take(&mut preset.models).into_iter().flat_map(Model::per_seed).collect();
    }
    Ok(presets)
}

/// Whether `name` is the model's preset, its beginning (such as the method `iq-learn`) or a part of its name.
fn answers_to(model: &Model, name: &str) -> bool {
    let rest = model.train.strip_prefix(name);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        || model.train.split('-').any(|part| part == name)
}

/// Keeps the environments and models that `only` names.
fn choose(mut presets: Vec<Preset>, only: &[String]) -> Result<Vec<Preset>> {
    let is_env = |name: &str, preset: &Preset| name.replace('-', "_") == preset.env;
    let named_env = |name: &String| presets.iter().any(|preset| is_env(name, preset));
    let (envs, methods): (Vec<&String>, Vec<&String>) = only.iter().partition(|name| named_env(name));
    for method in &methods {
        if !presets.iter().flat_map(|preset| &preset.models).any(|model| answers_to(model, method)) {
            let models = presets.iter().flat_map(|preset| preset.models.iter().map(|m| m.train.as_str()));
            let known: Vec<&str> = models.chain(presets.iter().map(|preset| preset.env.as_str())).collect();
            bail!("--only {method}: no such method or environment here; known are {}", known.join(", "));
        }
    }
    if !envs.is_empty() {
        presets.retain(|preset| envs.iter().any(|name| is_env(name, preset)));
    }
    if !methods.is_empty() {
        let named = |model: &Model| methods.iter().any(|name| answers_to(model, name));
        for preset in &mut presets {
            let chosen = preset.models.iter().filter(|model| named(model));
            let encoders: Vec<String> = chosen.filter_map(|model| model.encoder.clone()).collect();
            for model in &mut preset.models {
                model.unscored = !named(model);
            }
            preset.models.retain(|model| !model.unscored || encoders.contains(&model.train));
        }
    }
    Ok(presets)
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
        write_markdown(&self.directory.join("BENCHMARKS.md"), &rows, &notes)?;
        if rows.len() >= self.quiet {
            print(terminal_table(&rows))?;
        }
        Ok(())
    }

    fn collect(&self) -> Result<PathBuf> {
        let path = self.directory.join(self.file("data.wbs"));
        let preset = ConfigArgs { preset: Some(self.preset.collect.clone()), ..ConfigArgs::default() };
        let config: CollectConfig = preset.resolve(COLLECT)?;
        if config.env != self.protocol.environment {
            let (ours, theirs) = (&self.protocol.environment, &config.env);
            bail!("bench of {ours}: collect = \"{}\" is a preset of {theirs}", self.preset.collect);
        }
        let marker = self.directory.join(self.file("collect.json"));
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
            let encoder = self.directory.join("checkpoints").join(self.file(name));
            format!("model.encoder.checkpoint={}", encoder.display())
        });
        let sets: Vec<String> = model.set.iter().cloned().chain(encoder).collect();
        let config = learned::train_config(&model.train, &sets)?;
        let target = self.directory.join("checkpoints").join(self.file(&model.name()));
        let run = self.directory.join("train").join(self.file(&model.name()));
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
        let Acting { system, policy, label, .. } = learned::load(checkpoint, how)?;
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
        row.train_seed = Some(config.seed);
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
    std::iter::once(model.name()).chain(planner).collect::<Vec<_>>().join("-")
}
