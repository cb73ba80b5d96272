//! Training configuration and its presets.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use worldbench_data::{FrameSpec, WindowSpec};
use worldbench_env::raster::Filter;
use worldbench_models::compact::{self, CompactConfig, EncoderConfig};
use worldbench_models::mae::MaeConfig;

use worldbench_nn::schedule::Schedule;

use crate::TrainError;
use crate::dino_wm::DinoWmTraining;
use crate::full::FullConfig;
use crate::goal::{GoalEncoder, GoalTraining};

/// More threads than any machine has cores for.
pub const MOST_THREADS: usize = 1024;
/// Widest layer of a compact encoder.
const MOST_WIDTH: usize = 1 << 16;

/// The method, which decides what keeps the embedding from collapsing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// VCReg (arXiv 2502.14819).
    Pldm,
    /// SIGReg.
    Lewm,
    /// Dynamics of a frozen encoder's patch features (arXiv 2411.04983).
    DinoWm,
    /// Goal-conditioned behavioural cloning (arXiv 1912.06088).
    Gcbc,
    /// Inverse soft Q-learning (arXiv 2106.12142).
    IqLearn,
    /// Goal-conditioned implicit Q-learning (arXiv 2110.06169).
    Gciql,
    /// Goal-conditioned implicit V-learning (arXiv 2410.20092).
    Gcivl,
    /// Masked autoencoding: makes a frozen encoder, not a world model.
    Mae,
}

impl Method {
    /// Name in files and tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pldm => "pldm",
            Self::Lewm => "lewm",
            Self::DinoWm => "dino-wm",
            Self::Gcbc => "gcbc",
            Self::IqLearn => "iq-learn",
            Self::Gciql => "gciql",
            Self::Gcivl => "gcivl",
            Self::Mae => "mae",
        }
    }

    /// Says what is wrong when this method has no networks of that `architecture`.
    pub(crate) fn check(self, architecture: &str) -> Result<(), String> {
        let known: &[&str] = match self {
            Self::Pldm | Self::Lewm => &["compact", "full"],
            Self::DinoWm => &["dino-wm"],
            Self::Gcbc | Self::IqLearn | Self::Gciql | Self::Gcivl => &["goal-policy"],
            Self::Mae => &["mae"],
        };
        if known.contains(&architecture) {
            return Ok(());
        }
        let (method, known) = (self.name(), known.join("\" or \""));
        Err(format!("method = \"{method}\" needs model.architecture = \"{known}\", not \"{architecture}\""))
    }
}

/// The networks: `architecture = "compact"` (the default) or `"full"`, beside the architecture's own keys.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "architecture", rename_all = "kebab-case")]
pub enum ModelConfig {
    /// Small networks that learn on a CPU.
    Compact(CompactConfig),
    /// The published size.
    Full(FullConfig),
    /// Predictor on frozen features.
    DinoWm(DinoWmTraining),
    /// Policy on frozen features.
    GoalPolicy(GoalTraining),
    /// Masked autoencoder.
    Mae(MaeConfig),
}

impl<'de> Deserialize<'de> for ModelConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut table = toml::Table::deserialize(deserializer)?;
        let architecture = table.remove("architecture");
        match architecture.as_ref().map_or(Some("compact"), toml::Value::as_str) {
            Some("compact") => table.try_into().map(Self::Compact).map_err(D::Error::custom),
            Some("full") => table.try_into().map(Self::Full).map_err(D::Error::custom),
            Some("dino-wm") => table.try_into().map(Self::DinoWm).map_err(D::Error::custom),
            Some("goal-policy") => table.try_into().map(Self::GoalPolicy).map_err(D::Error::custom),
            Some("mae") => table.try_into().map(Self::Mae).map_err(D::Error::custom),
            _ => Err(D::Error::custom(
                "architecture must be \"compact\", \"full\", \"dino-wm\", \"goal-policy\" or \"mae\"",
            )),
        }
    }
}

impl ModelConfig {
    /// Size of the frames that batches hold and how they are made; none for a policy, which reads frozen features.
    #[must_use]
    pub fn frame(&self) -> Option<FrameSpec> {
        Some(match self {
            Self::Compact(c) => compact_frame(c),
            Self::Full(c) => FrameSpec { resolution: c.network.encoder.image, filter: Filter::Linear },
            Self::DinoWm(c) => c.frame(),
            Self::GoalPolicy(_) => return None,
            Self::Mae(c) => FrameSpec { resolution: c.encoder.image, filter: Filter::Area },
        })
    }

    /// Environment steps of one action block.
    #[must_use]
    pub fn action_block(&self) -> usize {
        match self {
            Self::Compact(c) => c.action_block,
            Self::Full(c) => c.action_block,
            Self::DinoWm(c) => c.action_block,
            Self::GoalPolicy(_) | Self::Mae(_) => 1,
        }
    }

    /// Whether the model sees the agent's position and velocity beside the frame.
    #[must_use]
    pub fn proprio(&self) -> bool {
        match self {
            Self::Compact(c) => c.proprio,
            Self::DinoWm(c) => c.network.proprio > 0,
            Self::GoalPolicy(c) => c.proprio,
            Self::Full(_) | Self::Mae(_) => false,
        }
    }

    /// Environment steps between the starts of two training windows.
    #[must_use]
    pub fn start_stride(&self) -> usize {
        if let Self::DinoWm(c) = self { c.start_stride } else { 1 }
    }

    /// Name of the architecture.
    #[must_use]
    pub fn architecture(&self) -> &'static str {
        match self {
            Self::Compact(_) => "compact",
            Self::Full(_) => "full",
            Self::DinoWm(_) => "dino-wm",
            Self::GoalPolicy(_) => "goal-policy",
            Self::Mae(_) => "mae",
        }
    }
}

/// Everything that defines a training run besides the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// The method.
    pub method: Method,
    /// Seed of weights, order of the data and random directions.
    pub seed: u64,
    /// A run or checkpoint directory whose weights training starts from, instead of random ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<PathBuf>,
    /// Optimiser steps.
    pub steps: u64,
    /// Windows of a batch.
    pub batch: usize,
    /// Batches whose mean gradient makes one optimiser step. Statistics over a batch (VCReg, SIGReg, BatchNorm)
    /// are those of each single one.
    #[serde(default = "one")]
    pub accumulate: u64,
    /// Frames of a window, `action_block` environment steps apart; of a policy: the frames that it looks back over.
    pub frames: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Its course; by default a linear warm-up over 1 % of the steps, then half a cosine to 0.
    #[serde(default = "warmup_cosine")]
    pub schedule: Schedule,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Largest global gradient norm.
    pub clip: f64,
    /// Share of the source episodes held out for validation.
    pub validation: f64,
    /// Threads that compute; part of what a bit-identical run needs.
    pub threads: usize,
    /// Minutes between checkpoints.
    pub checkpoint_minutes: f64,
    /// Steps between two rows of the training log.
    #[serde(default = "log_every")]
    pub log_every: u64,
    /// Steps between two validations.
    #[serde(default = "validate_every")]
    pub validate_every: u64,
    /// The networks and loss weights.
    pub model: ModelConfig,
}

fn warmup_cosine() -> Schedule {
    Schedule::WarmupCosine
}

fn one() -> u64 {
    1
}

fn log_every() -> u64 {
    50
}

fn validate_every() -> u64 {
    500
}

impl TrainConfig {
    /// Starts from the weights in `directory`, if one is given.
    #[must_use]
    pub fn beginning_with(self, directory: Option<&Path>) -> Self {
        Self { init: directory.map(Path::to_path_buf).or(self.init), ..self }
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// Names the setting and what it may be.
    pub fn check(&self) -> Result<(), TrainError> {
        let fail = |message: String| Err(TrainError::Config(message));
        if self.steps == 0 || self.batch < 2 {
            return fail(format!(
                "steps = {} must be at least 1 and batch = {} at least 2",
                self.steps, self.batch
            ));
        }
        self.method.check(self.model.architecture()).map_err(TrainError::Config)?;
        let stills = self.method == Method::Mae;
        let policy = matches!(self.model, ModelConfig::GoalPolicy(_));
        if !policy && stills != (self.frames == 1) {
            let needed = if stills { "exactly 1" } else { "at least 2, to have something to predict" };
            return fail(format!("frames = {} must be {needed}", self.frames));
        }
        if self.frames == 0 {
            return fail("frames must be at least 1".into());
        }
        let finite = self.learning_rate.is_finite() && self.weight_decay.is_finite();
        if !(finite && self.learning_rate > 0.0 && self.clip > 0.0 && self.weight_decay >= 0.0) {
            return fail(
                "learning_rate must be positive and finite, clip positive, weight_decay at least 0 and finite".into(),
            );
        }
        if self.threads > MOST_THREADS {
            return fail(format!("threads = {} must be at most {MOST_THREADS}", self.threads));
        }
        if self.checkpoint_interval().is_none() {
            let given = self.checkpoint_minutes;
            return fail(format!("checkpoint_minutes = {given} must be at least 0, and at most a million"));
        }
        if self.log_every == 0 || self.validate_every == 0 {
            return fail("log_every and validate_every must be at least 1".into());
        }
        if !(0.0..=0.5).contains(&self.validation) {
            return fail(format!("validation = {} must lie in [0, 0.5]", self.validation));
        }
        if self.accumulate == 0 {
            return fail("accumulate must be at least 1".into());
        }
        match &self.model {
            ModelConfig::Compact(model) => check_compact(model),
            ModelConfig::Full(model) => model.check(self.frames),
            ModelConfig::DinoWm(model) => model.check(self.frames),
            ModelConfig::GoalPolicy(model) => model.check(self.method, self.frames),
            ModelConfig::Mae(model) => crate::pretrain::check(model),
        }
    }

    /// Time between two checkpoints; none when it is no time.
    pub(crate) fn checkpoint_interval(&self) -> Option<Duration> {
        (0.0..=1e6)
            .contains(&self.checkpoint_minutes)
            .then(|| Duration::from_secs_f64(60.0 * self.checkpoint_minutes))
    }

    /// Checkpoint directories whose weights training starts from and changes.
    pub fn beginnings(&self) -> impl Iterator<Item = &Path> {
        let encoder = match &self.model {
            ModelConfig::GoalPolicy(GoalTraining { encoder: GoalEncoder::Trained(encoder), .. }) => {
                encoder.checkpoint.as_deref()
            }
            _ => None,
        };
        self.init.as_deref().into_iter().chain(encoder)
    }

    /// The configuration without what may change between two sittings of one run: where an encoder lies, whose weights are
    /// part of the run.
    pub(crate) fn identity(&self) -> Self {
        let mut same = self.clone();
        if let ModelConfig::GoalPolicy(GoalTraining { encoder, .. }) = &mut same.model {
            match encoder {
                GoalEncoder::Compact(source) => source.checkpoint.clear(),
                GoalEncoder::Trained(source) => source.checkpoint.iter_mut().for_each(PathBuf::clear),
                GoalEncoder::Pretrained(_) => {}
            }
        }
        same
    }

    /// The clips that training sees.
    #[must_use]
    pub fn window_spec(&self) -> WindowSpec {
        let num_steps = match &self.model {
            ModelConfig::GoalPolicy(model) => crate::goal::clip_rows(self.frames, model.chunk),
            _ => self.frames,
        };
        WindowSpec { num_steps, frameskip: self.model.action_block() }
    }
}

/// Frames of a compact model.
pub(crate) fn compact_frame(model: &CompactConfig) -> FrameSpec {
    FrameSpec { resolution: model.encoder.resolution, filter: Filter::Area }
}

fn check_compact(model: &CompactConfig) -> Result<(), TrainError> {
    check_encoder(&model.encoder, "model.encoder")?;
    if model.action_block == 0 || model.width < 2 || model.projections == 0 {
        let problem = "model.action_block and projections must be at least 1, model.width at least 2";
        return Err(TrainError::Config(problem.into()));
    }
    let compact::Weights { teacher_forcing, rollout, std, std_t, cov, temporal, sigreg, idm } = model.weights;
    check_weights([
        ("model.position_weight", model.position_weight.into()),
        ("model.weights.teacher_forcing", teacher_forcing.into()),
        ("model.weights.rollout", rollout.into()),
        ("model.weights.std", std.into()),
        ("model.weights.std_t", std_t.into()),
        ("model.weights.cov", cov.into()),
        ("model.weights.temporal", temporal.into()),
        ("model.weights.sigreg", sigreg.into()),
        ("model.weights.idm", idm.into()),
    ])
}

/// Checks weights of losses, each with its key.
pub(crate) fn check_weights<const N: usize>(weights: [(&str, f64); N]) -> Result<(), TrainError> {
    match weights.into_iter().find(|(_, weight)| !(weight.is_finite() && *weight >= 0.0)) {
        None => Ok(()),
        Some((key, weight)) => {
            Err(TrainError::Config(format!("{key} = {weight} must be at least 0 and finite")))
        }
    }
}

/// Checks the size of a compact encoder under `key`.
pub(crate) fn check_encoder(encoder: &EncoderConfig, key: &str) -> Result<(), TrainError> {
    let fail = |message: String| Err(TrainError::Config(format!("{key}.{message}")));
    if encoder.widths.is_empty() || encoder.widths.contains(&0) || encoder.patch == 0 {
        return fail("widths and patch must be at least 1".into());
    }
    if !(2..=3).contains(&encoder.kernel) {
        return fail(format!("kernel = {} must be 2 or 3", encoder.kernel));
    }
    if encoder.strides.len() + 1 != encoder.widths.len() {
        return fail(format!(
            "strides has {} values; it takes {}, one fewer than widths",
            encoder.strides.len(),
            encoder.widths.len() - 1
        ));
    }
    let strides = if encoder.kernel == 2 { 2..=2 } else { 1..=2 };
    if let Some(stride) = encoder.strides.iter().find(|&s| !strides.contains(s)) {
        return fail(format!(
            "strides: {stride} with kernel {} must lie in {} to {}",
            encoder.kernel,
            strides.start(),
            strides.end()
        ));
    }
    let (resolution, step) = (encoder.resolution, encoder.patch * encoder.strides.iter().product::<usize>());
    if !(16..=512).contains(&resolution) || !resolution.is_multiple_of(step) {
        return fail(format!("resolution = {resolution} must be a multiple of {step} in 16..=512"));
    }
    if !(2..=MOST_WIDTH).contains(&encoder.latent) {
        return fail(format!("latent = {} must lie in 2..={MOST_WIDTH}", encoder.latent));
    }
    let largest = encoder.widths.iter().copied().chain([encoder.hidden]).max().unwrap_or_default();
    if largest > MOST_WIDTH {
        return fail(format!("widths and hidden: {largest} is more than {MOST_WIDTH}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_would_end_a_run_or_spoil_it_are_refused() {
        let preset: toml::Table = include_str!("../../../configs/train/pldm-compact.toml").parse().unwrap();
        for (setting, expect) in [
            ("checkpoint_minutes = -1.0", "checkpoint_minutes = -1"),
            ("checkpoint_minutes = nan", "checkpoint_minutes = NaN"),
            ("checkpoint_minutes = inf", "checkpoint_minutes = inf"),
            ("checkpoint_minutes = 1e300", "at most a million"),
            ("threads = 100000", "at most 1024"),
            ("learning_rate = inf", "positive and finite"),
            ("model.position_weight = nan", "model.position_weight = NaN"),
            ("model.weights.std = -3.0", "model.weights.std = -3"),
            ("model.weights.sigreg = 1e300", "model.weights.sigreg = inf"),
            ("model.width = 1", "model.width at least 2"),
            ("model.encoder.latent = 100000000", "model.encoder.latent = 100000000 must lie in 2..=65536"),
            ("model.encoder.hidden = 100000000", "100000000 is more than 65536"),
        ] {
            let mut table = preset.clone();
            let (key, value) = setting.split_once(" = ").unwrap();
            let (last, tables) =
                key.rsplit_once('.').map_or((key, vec![]), |(t, k)| (k, t.split('.').collect()));
            let value: toml::Table = format!("v = {value}").parse().unwrap();
            let place = tables.iter().fold(&mut table, |table, name| table[*name].as_table_mut().unwrap());
            place.insert(last.into(), value["v"].clone());
            let message = table.try_into::<TrainConfig>().unwrap().check().unwrap_err().to_string();
            assert!(message.contains(expect), "{setting}: {message}");
        }
    }
}
