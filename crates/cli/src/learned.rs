//! Training runs and learned policies, shared by `train`, `eval` and `bench`.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use worldbench_core::config::Layers;
use worldbench_data::{Split, Store};
use worldbench_eval::policies::{FeedForward, FeedForwardConfig, PlannerConfig};
use worldbench_eval::provenance::{PROVENANCE_FILE, Provenance, Training, forget_peak_memory};
use worldbench_eval::{Policy, System};
use worldbench_kernels::gemm::Precision;
use worldbench_models::planning::RolloutOptions;
use worldbench_train::checkpoint::{file_hash, write_atomic, write_half};
use worldbench_train::goal::GoalEncoder;
use worldbench_train::import::ENCODER;
use worldbench_train::{
    Method, Model, ModelConfig, TrainConfig, Trainer, check_precision, environment_of, networks,
};

use crate::config::{PLAN, Presets, TRAIN, preset_text};
use crate::output::{bar, command_line, print};

/// Layers of a configuration that has no defaults but its presets: preset (or file), then `sets`.
pub fn preset_layers<T: serde::Serialize + serde::de::DeserializeOwned>(
    presets: Presets,
    name: &str,
    sets: &[String],
) -> Result<Layers> {
    let (origin, text) = preset_text(presets, name)?;
    let base: T = toml::from_str(&text).with_context(|| origin)?;
    Ok(Layers::new(&base)?.set_all(sets)?)
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
    let config: PlannerConfig = preset_layers::<PlannerConfig>(PLAN, name, sets)?.resolve()?;
    config.check()?;
    Ok(config)
}

/// How a policy is used.
pub fn policy_config(sets: &[String]) -> Result<FeedForwardConfig> {
    Ok(Layers::new(&FeedForwardConfig::default())?.set_all(sets)?.resolve()?)
}

/// A finished training run.
pub struct Trained {
    /// Seconds of training over all resumptions.
    pub seconds: f64,
    /// Number of trained parameters.
    pub parameters: usize,
}

/// Says when training starts from the weights of another environment, which may be meant.
fn warn_of_transfer(config: &TrainConfig, ours: &str) {
    for from in config.beginnings() {
        // One that is gone is missed only by a run that still has to begin.
        if let Some(theirs) = environment_of(from).ok().filter(|theirs| theirs != ours) {
            eprintln!("warning: {} was trained on {theirs}, the data are of {ours}", from.display());
        }
    }
}

/// Trains, or continues, the run in `directory` on the store at `data`.
pub fn train(config: &TrainConfig, data: &Path, directory: &Path) -> Result<Trained> {
    forget_peak_memory();
    let store = Arc::new(Store::open(data)?);
    let data_hash = store.hash().to_string();
    warn_of_transfer(config, store.env().spec().name);
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
            machine: None,
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
    /// What else a reader should know of the row.
    pub variant: String,
    /// Name of the environment that it was trained on.
    pub trained_on: String,
}

/// The checkpoint in `directory`, used as `how` says.
pub fn load(directory: &Path, how: Use) -> Result<Acting> {
    let loaded = worldbench_train::load_with(directory, how.rollouts)?;
    let hash = file_hash(&directory.join("model.safetensors"))?;
    let (method, note, trained_on) = (loaded.method, loaded.label, loaded.environment);
    let system = system(method).context(NO_ACTOR)?;
    let variant = variant(&networks(directory)?, how);
    let (policy, label): (Box<dyn Policy>, String) = match loaded.model {
        Model::World(model) => {
            let config = planner_config(how.planner.unwrap_or(PLANNER), how.sets)?;
            let mut planner = config.build(String::new(), hash, model)?;
            let label = planner_label(planner.solver.name(), how.rollouts.precision);
            planner.name = format!("{}-{}", method.name(), file_name(&label));
            (Box::new(planner), label)
        }
        Model::Policy(model) => {
            without_planner(method, how.planner)?;
            let policy = FeedForward::new(method.name().into(), hash, model, policy_config(how.sets)?)?;
            (Box::new(policy), note)
        }
    };
    Ok(Acting { system, policy, label, variant, trained_on })
}

const NO_ACTOR: &str = "a frozen encoder does not act";

fn without_planner(method: Method, planner: Option<&str>) -> Result<()> {
    planner.map_or(Ok(()), |planner| {
        bail!("planner {planner}: {} acts without a planner; leave it out", method.name())
    })
}

/// Checks whether a model that `config` trains can be used as `how` says.
pub fn check_use(config: &TrainConfig, how: Use) -> Result<()> {
    system(config.method).context(NO_ACTOR)?;
    check_precision(config.model.architecture(), how.rollouts.precision)?;
    if let ModelConfig::GoalPolicy(policy) = &config.model {
        without_planner(config.method, how.planner)?;
        return Ok(policy_config(how.sets)?.check(policy.chunk)?);
    }
    let plan = planner_config(how.planner.unwrap_or(PLANNER), how.sets)?.plan;
    Ok(plan.check_block(config.model.action_block())?)
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

/// `MPPI` for the solver `mppi`; `MPPI bf16` where rollouts are not in f32.
fn planner_label(solver: &str, precision: Precision) -> String {
    let label = match solver {
        "icem" => "iCEM".into(),
        "predictive-sampling" => "predictive sampling".into(),
        other => other.to_uppercase(),
    };
    if precision == Precision::F32 { label } else { format!("{label} {}", precision.name()) }
}

/// A label as part of a file's name.
fn file_name(label: &str) -> String {
    label.to_lowercase().replace(' ', "-")
}

/// A planner, preset or file, as part of the name of a row's directory.
pub fn file_label(planner: &str, precision: Precision) -> String {
    let stem = Path::new(planner).file_stem().map_or(planner.into(), |s| s.to_string_lossy());
    match precision {
        Precision::F32 => file_name(&stem),
        other => file_name(&format!("{stem} {}", other.name())),
    }
}

/// What a reader should know about a learned row: size, frozen encoder, inputs, and planning values that differ from the
/// planner's preset.
fn variant(model: &ModelConfig, how: Use) -> String {
    let pixels = model.frame().map_or(String::new(), |frame| format!(", {} px", frame.resolution));
    let inputs = if model.proprio() { " + proprioception" } else { "" };
    let size = match model {
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
    let file = how.planner.map(Path::new).filter(|path| path.is_file()).and_then(Path::file_name);
    let file = file.map(|name| name.to_string_lossy().into_owned());
    let values: Vec<String> = file.into_iter().chain(how.sets.iter().cloned()).collect();
    let values = if values.is_empty() { String::new() } else { format!(", {}", values.join(" ")) };
    format!("{size}{pixels}{inputs}{values}")
}

#[cfg(test)]
mod tests {
    use worldbench_eval::{ResultDir, RowResult};

    use super::*;

    #[test]
    fn planners_are_called_by_their_solver() {
        for (solver, precision, label, name) in [
            ("cem", Precision::F32, "CEM", "cem"),
            ("mppi", Precision::Bf16, "MPPI bf16", "mppi-bf16"),
            ("icem", Precision::F32, "iCEM", "icem"),
            ("predictive-sampling", Precision::F32, "predictive sampling", "predictive-sampling"),
        ] {
            let shown = planner_label(solver, precision);
            assert_eq!((shown.as_str(), file_name(&shown).as_str()), (label, name));
            assert_eq!(file_label(solver, precision), name);
        }
    }

    /// What `eval` says of a published checkpoint is what the published row says.
    #[test]
    fn published_rows_are_labelled_as_published() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let rollouts = RolloutOptions::default();
        let dino = ["solver.samples=128", "solver.iterations=10", "solver.topk=20"].map(String::from);
        let gcbc = ["execute=2".to_string()];
        for (checkpoint, row, planner, sets) in [
            ("pldm-compact", "pldm-compact-mppi", Some("mppi"), &[][..]),
            ("lewm-compact", "lewm-compact-cem", Some("cem"), &[]),
            ("dino-wm-compact", "dino-wm-compact-cem", Some("cem"), &dino),
            ("gcbc-compact", "gcbc-compact", None, &gcbc),
            ("gcbc-trained-compact", "gcbc-trained-compact", None, &gcbc),
            ("iq-learn-bc-compact", "iq-learn-bc-compact", None, &[]),
        ] {
            let how = Use { planner, sets, rollouts };
            let acting = load(&root.join("checkpoints").join(checkpoint), how).unwrap();
            let published = ResultDir::load(&root.join("benchmarks/push_t/rows").join(row)).unwrap();
            let (key, _) = published.episodes.unwrap();
            let here = (acting.system, acting.label, acting.variant, acting.policy.name());
            let RowResult { system, planner, variant, .. } = published.row;
            assert_eq!(here, (system, planner, variant, key.policy), "{row}");
            assert_eq!(
                (acting.policy.checkpoint(), acting.policy.settings()),
                (key.checkpoint, key.settings)
            );
        }
        let sets = ["solver.kind=mppi".to_string()];
        let how = Use { planner: None, sets: &sets, rollouts };
        let acting = load(&root.join("checkpoints/pldm-compact"), how).unwrap();
        assert_eq!((acting.label.as_str(), acting.policy.name()), ("MPPI", "pldm-mppi".into()));
        assert!(acting.variant.ends_with(", solver.kind=mppi"), "{}", acting.variant);
    }
}
