//! Training runs and learned policies, shared by `train`, `eval` and `bench`.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use worldbench_core::config::Layers;
use worldbench_data::{Split, Store};
use worldbench_eval::policies::{FeedForward, FeedForwardConfig, PlannerConfig};
use worldbench_eval::provenance::{PROVENANCE_FILE, Provenance, Training};
use worldbench_eval::{Policy, RowResult, System};
use worldbench_kernels::gemm::Precision;
use worldbench_models::planning::RolloutOptions;
use worldbench_train::checkpoint::{file_hash, write_atomic, write_half};
use worldbench_train::goal::GoalEncoder;
use worldbench_train::import::ENCODER;
use worldbench_train::{Method, Model, ModelConfig, TrainConfig, Trainer};

use crate::config::{PLAN, Presets, TRAIN, unknown};
use crate::output::{bar, command_line, print};

/// Layers of a configuration that has no defaults but its presets: preset (or file), then `sets`.
pub fn preset_layers<T: serde::Serialize + serde::de::DeserializeOwned>(
    presets: Presets,
    name: &str,
    sets: &[String],
) -> Result<Layers> {
    let (origin, text) = match presets.iter().find(|(known, _)| *known == name) {
        _ if Path::new(name).is_file() => {
            let text = std::fs::read_to_string(name).with_context(|| format!("cannot read {name}"))?;
            (name.to_string(), text)
        }
        Some((known, text)) => (format!("preset {known}"), (*text).to_string()),
        None => return Err(unknown("preset", name, presets.iter().map(|(known, _)| *known))),
    };
    let base: T = toml::from_str(&text).with_context(|| origin)?;
    sets.iter().try_fold(Layers::new(&base)?, |layers, set| Ok(layers.set(set)?))
}

/// A training configuration of `train`.
pub fn train_config(name: &str, sets: &[String]) -> Result<TrainConfig> {
    preset_config(TRAIN, name, sets)
}

/// A training configuration out of `presets`.
pub fn preset_config(presets: Presets, name: &str, sets: &[String]) -> Result<TrainConfig> {
    let config: TrainConfig = preset_layers::<TrainConfig>(presets, name, sets)?.resolve()?;
    config.check()?;
    Ok(config)
}

/// How a model is used for planning.
pub fn planner_config(name: &str, sets: &[String]) -> Result<PlannerConfig> {
    Ok(preset_layers::<PlannerConfig>(PLAN, name, sets)?.resolve()?)
}

/// A finished training run.
pub struct Trained {
    /// Seconds of training over all resumptions.
    pub seconds: f64,
    /// Number of trained parameters.
    pub parameters: usize,
}

/// Trains, or continues, the run in `directory` on the store at `data`.
pub fn train(config: &TrainConfig, data: &Path, directory: &Path) -> Result<Trained> {
    let store = Arc::new(Store::open(data)?);
    let data_hash = store.hash().to_string();
    let split = Split::by_source(&store, config.validation, config.seed);
    let encoding = bar(0, "encode frames");
    let mut learner = worldbench_train::learner_with(config, &store, &split, &mut |done, total| {
        if encoding.is_hidden() && encoding.length() == Some(0) {
            println!("encoding {total} frames");
        }
        encoding.set_length(total as u64);
        encoding.set_position(done as u64);
    })?;
    encoding.finish_and_clear();
    let mut trainer = Trainer::open(config, directory, store, split, config.window_spec(), learner.as_mut())?;
    if trainer.step() > 0 && trainer.step() < config.steps {
        print(format!("{}: continuing at step {} of {}", directory.display(), trainer.step(), config.steps))?;
    }
    let begun = trainer.step();
    let bar = bar(config.steps as usize, config.method.name());
    let mut shown = Instant::now();
    trainer.run(learner.as_mut(), &mut |now| {
        bar.set_position(now.step);
        if let Some(warning) = &now.warning {
            bar.suspend(|| eprintln!("warning: step {}: {warning}", now.step));
        }
        let loss = now.metrics.first().map_or(f32::NAN, |(_, loss)| *loss);
        bar.set_message(format!(
            "{} loss {loss:.3}, {:.0} samples/s",
            config.method.name(),
            now.samples_per_s
        ));
        // A log file has no progress bar: say something once a minute.
        if bar.is_hidden() && shown.elapsed().as_secs() >= 60 {
            shown = Instant::now();
            let left = (now.total - now.step) as f64 * config.batch as f64 / now.samples_per_s;
            println!(
                "{} step {} of {}, loss {loss:.3}, {:.0} samples/s, {:.0} s left",
                config.method.name(),
                now.step,
                now.total,
                now.samples_per_s,
                left
            );
        }
        true
    })?;
    bar.finish_and_clear();
    let trained = Trained { seconds: trainer.seconds(), parameters: learner.params().len() };
    let trained_here = trainer.step() > begun;
    if trained_here || !directory.join(PROVENANCE_FILE).is_file() {
        let here = Provenance::here(&command_line(), config.threads);
        let training = Training {
            seed: Some(config.seed),
            steps: trainer.step(),
            batch: config.batch,
            parameters: trained.parameters,
            seconds: trained.seconds,
            threads: config.threads,
            data_hash,
            peak_memory: here.peak_memory.filter(|_| trained_here),
        };
        Provenance { training: Some(training), ..here }.save(directory)?;
    }
    Ok(trained)
}

/// Files that make a checkpoint.
pub const CHECKPOINT: [&str; 2] = ["model.safetensors", "config.toml"];

/// Copies what evaluation needs out of the finished run `from` into `out`; matrices as f16 if `half`.
pub fn export(from: &Path, out: &Path, half: bool) -> Result<()> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let [weights, config] = CHECKPOINT;
    let optional = [ENCODER, CARD, PROVENANCE_FILE].into_iter().filter(|name| from.join(name).is_file());
    for name in optional.chain([config]) {
        let bytes = std::fs::read(from.join(name)).with_context(|| {
            format!("cannot read {}; train the run to its end", from.join(name).display())
        })?;
        write_atomic(&out.join(name), &bytes)?;
    }
    let (from, out) = (from.join(weights), out.join(weights));
    if half {
        write_half(&from, &out)?;
    } else {
        write_atomic(
            &out,
            &std::fs::read(&from).with_context(|| format!("cannot read {}", from.display()))?,
        )?;
    }
    Ok(())
}

/// File of a checkpoint that tells where it comes from.
pub const CARD: &str = "card.md";

/// How a checkpoint acts.
#[derive(Debug, Clone, Copy)]
pub struct Use<'a> {
    /// Planner of a world model, a preset or a file; none is CEM. A policy takes none.
    pub planner: Option<&'a str>,
    /// Values laid over the planner's, or over those of a policy (`execute`).
    pub sets: &'a [String],
    /// How rollouts are computed.
    pub rollouts: RolloutOptions,
}

/// The planner of a world model when none is named.
const PLANNER: &str = "cem";

/// A checkpoint ready to act, and what its rows are labelled.
pub struct Acting {
    pub system: System,
    pub policy: Box<dyn Policy>,
    /// Planner of the row, or what tells a policy's row from others of its method.
    pub label: String,
    /// Name of the environment that it was trained on.
    pub trained_on: String,
}

/// The checkpoint in `directory`, used as `how` says.
pub fn load(directory: &Path, how: Use) -> Result<Acting> {
    let loaded = worldbench_train::load_with(directory, how.rollouts)?;
    let hash = file_hash(&directory.join("model.safetensors"))?;
    let (method, note, trained_on) = (loaded.method, loaded.label, loaded.environment);
    let system = system(method).context("a frozen encoder does not act")?;
    match loaded.model {
        Model::World(model) => {
            let planner = how.planner.unwrap_or(PLANNER);
            let name = format!("{}-{}", method.name(), file_label(planner, how.rollouts.precision));
            let policy = planner_config(planner, how.sets)?.build(name, hash, model)?;
            let label = planner_label(planner, how.rollouts.precision);
            Ok(Acting { system, policy: Box::new(policy), label, trained_on })
        }
        Model::Policy(model) => {
            if let Some(planner) = how.planner {
                bail!("--planner {planner}: {} acts without a planner; leave it out", method.name());
            }
            let layers = Layers::new(&FeedForwardConfig::default())?;
            let layers = how.sets.iter().try_fold(layers, |layers, set| layers.set(set))?;
            let policy = FeedForward::new(method.name().into(), hash, model, layers.resolve()?)?;
            Ok(Acting { system, policy: Box::new(policy), label: note, trained_on })
        }
    }
}

/// The row's system for a method; none for pretraining.
pub fn system(method: Method) -> Option<System> {
    match method {
        Method::Pldm => Some(System::Pldm),
        Method::Lewm => Some(System::LeWm),
        Method::DinoWm => Some(System::DinoWm),
        Method::Gcbc => Some(System::Gcbc),
        Method::IqLearn => Some(System::IqLearn),
        Method::Gciql => Some(System::Gciql),
        Method::Gcivl => Some(System::Gcivl),
        Method::Mae => None,
    }
}

/// `MPPI` for the preset `mppi`, the file's stem for a path; `MPPI bf16` where rollouts are not in f32.
pub fn planner_label(planner: &str, precision: Precision) -> String {
    let stem = Path::new(planner).file_stem().map_or(planner.into(), |s| s.to_string_lossy());
    let known = PLAN.iter().any(|(known, _)| *known == planner);
    let label = if known { stem.to_uppercase() } else { stem.into_owned() };
    if precision == Precision::F32 { label } else { format!("{label} {}", precision.name()) }
}

/// The label as part of a file's name.
pub fn file_label(planner: &str, precision: Precision) -> String {
    planner_label(planner, precision).to_lowercase().replace(' ', "-")
}

/// What a reader should know about a learned row: size, frozen encoder, inputs, and planning values that differ from the
/// planner's preset.
pub fn describe(config: &TrainConfig, sets: &[String], row: &mut RowResult) {
    let pixels = config.model.frame().map_or(String::new(), |frame| format!(", {} px", frame.resolution));
    let inputs = if config.model.proprio() { " + proprioception" } else { "" };
    let size = match &config.model {
        ModelConfig::DinoWm(model) => format!("{} encoder", model.encoder.name.as_str()),
        ModelConfig::GoalPolicy(model) => match &model.encoder {
            GoalEncoder::Compact(_) => "compact encoder".into(),
            GoalEncoder::Trained(_) => "compact encoder trained along".into(),
            GoalEncoder::Pretrained(encoder) => {
                format!("{} encoder, {} px", encoder.name.as_str(), encoder.image)
            }
        },
        other => other.architecture().to_string(),
    };
    let sets = if sets.is_empty() { String::new() } else { format!(", {}", sets.join(" ")) };
    row.variant = format!("{size}{pixels}{inputs}{sets}");
}
