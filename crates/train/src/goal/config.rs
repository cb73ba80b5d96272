//! Settings of a goal-conditioned policy's training.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use worldbench_data::GoalSampling;
use worldbench_models::compact::{self, ACTION};
use worldbench_models::encoders;
use worldbench_models::gcbc::GcbcConfig;
use worldbench_models::gciql::GciqlConfig;
use worldbench_models::gcivl::GcivlConfig;
use worldbench_models::goal::{GoalNetConfig, GoalSizes};
use worldbench_models::iq_learn::IqLearnConfig;

use crate::config::check_encoder;
use crate::{Method, TrainError};

/// Encoder, networks, objective and goals.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoalTraining {
    /// Device that trains, e.g. `cpu` or `cuda:0`.
    pub device: String,
    /// Actions that the policy gives at a time, K.
    pub chunk: usize,
    /// Whether observation and goal hold the agent's position and velocity.
    pub proprio: bool,
    /// Largest feature cache in gigabytes; a larger one is not made, and every batch is encoded anew.
    pub cache_gb: f64,
    /// Whether value and actor learn side by side (the default) or one after the other.
    #[serde(default)]
    pub phases: Phases,
    /// The encoder.
    pub encoder: GoalEncoder,
    /// Goals of the actor, and of everything in methods without a value of their own; by default any later row.
    #[serde(default)]
    pub actor_goals: GoalSampling,
    /// Goals of value and critic; by default OGBench's.
    #[serde(default = "value_goals")]
    pub value_goals: GoalSampling,
    /// When a goal counts as reached.
    #[serde(default)]
    pub reached: Reached,
    /// Networks and loss.
    pub objective: Objective,
}

/// When a goal counts as reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reached {
    /// In the moment that it was taken from, as in OGBench.
    #[default]
    Moment,
    /// In any moment that looks the same, as in stable-worldmodel: where nothing moves, too early.
    Observation,
}

fn value_goals() -> GoalSampling {
    let (random, geometric, uniform, current) = (0.3, 0.5, 0.0, 0.2);
    GoalSampling { random, geometric, uniform, current, ..GoalSampling::default() }
}

/// When value and actor learn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phases {
    /// Every step moves both, as in OGBench.
    #[default]
    Joint,
    /// The first half of the steps moves value and critic, the second half the actor, each with its own course of the
    /// learning rate, as in stable-worldmodel.
    TwoPhase,
}

/// What turns frames into features.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum GoalEncoder {
    /// The encoder of a trained compact PLDM or LeWM. It is copied into the policy's own checkpoint.
    Compact(CompactSource),
    /// A pretrained encoder.
    Pretrained(encoders::EncoderConfig),
    /// An encoder like compact PLDM's that learns together with the policy.
    Trained(TrainedEncoder),
}

/// How an encoder that is trained begins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainedEncoder {
    /// Checkpoint directory of the compact PLDM or LeWM whose encoder it is at first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<PathBuf>,
    /// Size of a fresh one, where no checkpoint is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<compact::EncoderConfig>,
}

/// Where a compact encoder lies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompactSource {
    /// Checkpoint directory of the compact PLDM or LeWM.
    pub checkpoint: PathBuf,
}

/// The method's own settings; `kind` repeats the method.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Objective {
    /// Behavioural cloning.
    Gcbc(GcbcConfig),
    /// Inverse soft Q-learning.
    IqLearn(IqLearnConfig),
    /// Implicit Q-learning.
    Gciql(GciqlConfig),
    /// Implicit V-learning.
    Gcivl(GcivlConfig),
}

impl Objective {
    /// The method that it belongs to.
    #[must_use]
    pub fn method(&self) -> Method {
        match self {
            Self::Gcbc(_) => Method::Gcbc,
            Self::IqLearn(_) => Method::IqLearn,
            Self::Gciql(_) => Method::Gciql,
            Self::Gcivl(_) => Method::Gcivl,
        }
    }

    /// The kind of network.
    #[must_use]
    pub fn network(&self) -> &GoalNetConfig {
        match self {
            Self::Gcbc(c) => &c.network,
            Self::IqLearn(c) => &c.network,
            Self::Gciql(c) => &c.network,
            Self::Gcivl(c) => &c.network,
        }
    }

    /// What a row is to say beside the method's name: the weight of a behaviour term that the published method lacks.
    #[must_use]
    pub fn label(&self) -> String {
        match self {
            Self::IqLearn(c) if c.beta_bc > 0.0 => format!("+ BC, beta {}", c.beta_bc),
            _ => String::new(),
        }
    }

    /// Rate of the moving average that target networks are; none without targets.
    #[must_use]
    pub fn ema(&self) -> Option<f64> {
        match self {
            Self::Gcbc(_) => None,
            Self::IqLearn(c) => Some(c.ema),
            Self::Gciql(c) => Some(c.ema),
            Self::Gcivl(c) => Some(c.ema),
        }
    }

    /// What the losses look at beside observation and actor's goal: successors, and goals of the value.
    pub(super) fn looks_at(&self) -> [bool; 2] {
        match self {
            Self::Gcbc(_) => [false; 2],
            Self::IqLearn(_) => [true, false],
            Self::Gciql(_) | Self::Gcivl(_) => [true; 2],
        }
    }

    fn check(&self, sizes: &GoalSizes) -> Result<(), TrainError> {
        let checked = match self {
            Self::Gcbc(c) => c.check(sizes),
            Self::IqLearn(c) => c.check(sizes),
            Self::Gciql(c) => c.check(sizes),
            Self::Gcivl(c) => c.check(sizes),
        };
        checked.map_err(|e| TrainError::Config(format!("model.objective.{e}")))
    }
}

impl GoalTraining {
    /// Checks what would otherwise fail deep inside; `frames` is the length of the context.
    ///
    /// # Errors
    /// Names the setting and what it may be.
    pub fn check(&self, method: Method, frames: usize) -> Result<(), TrainError> {
        let fail = |message: String| Err(TrainError::Config(message));
        let (own, method) = (self.objective.method().name(), method.name());
        if own != method {
            return fail(format!(
                "method = \"{method}\" needs model.objective.kind = \"{method}\", not \"{own}\""
            ));
        }
        if self.chunk == 0 {
            return fail("model.chunk must be at least 1".into());
        }
        if self.chunk > 1 && matches!(self.objective, Objective::Gciql(_) | Objective::IqLearn(_)) {
            let chunk = self.chunk;
            return fail(format!(
                "model.chunk = {chunk}: the critic of {method} judges single actions; use 1"
            ));
        }
        if self.cache_gb.is_nan() || self.cache_gb < 0.0 {
            return fail(format!("model.cache_gb = {} must be at least 0", self.cache_gb));
        }
        if self.phases == Phases::TwoPhase
            && matches!(self.objective, Objective::Gcbc(_) | Objective::IqLearn(_))
        {
            return fail(format!("model.phases = \"two-phase\": {method} has no phases; use \"joint\""));
        }
        if let GoalEncoder::Trained(encoder) = &self.encoder {
            if encoder.checkpoint.is_none() && encoder.size.is_none() {
                return fail(
                    "model.encoder of kind \"trained\" needs a checkpoint or a size to begin with".into(),
                );
            }
            if let Some(size) = &encoder.size {
                check_encoder(size, "model.encoder.size")?;
            }
            if self.phases == Phases::TwoPhase || self.reached == Reached::Observation {
                let which = "model.phases = \"joint\" and model.reached = \"moment\"";
                return fail(format!(
                    "an encoder that is trained needs {which}: its features do not stand still"
                ));
            }
        }
        self.actor_goals.check("model.actor_goals")?;
        self.value_goals.check("model.value_goals")?;
        // Sizes of the encoder are not known yet; everything else is checked with any.
        self.objective.check(&self.sizes(frames, (1, 1)))
    }

    /// Sizes of the networks on an encoder with so many tokens of such a width.
    #[must_use]
    pub fn sizes(&self, frames: usize, (patches, width): (usize, usize)) -> GoalSizes {
        let width = width + if self.proprio { 4 } else { 0 };
        GoalSizes { frames, patches, width, goal_width: width, action: self.chunk * ACTION }
    }
}
