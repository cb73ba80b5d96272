//! Frozen encoders of goal-conditioned policies, and policies out of checkpoints.

use std::path::Path;
use std::sync::Arc;

use worldbench_data::Store;
use worldbench_models::compact;
use worldbench_models::encoders::{self, FrozenEncoder};
use worldbench_models::policy::{GoalActor, PolicyNets, PolicySpec, ValueSource};

use super::{GoalEncoder, Objective, Saved};
use crate::checkpoint::{self, Tensors};
use crate::compact::{encoder_of, encoder_tensors};
use crate::import::beside;
use crate::{Method, TrainError, named};

/// Keys of a compact encoder begin with this, in its own checkpoint as in a policy's.
pub(super) const ENCODER_KEYS: &str = "encoder.";

/// A frozen encoder, and what of it belongs into a policy's checkpoint.
pub(super) struct OpenEncoder {
    pub encoder: Arc<dyn FrozenEncoder>,
    pub own: Option<(compact::EncoderConfig, Tensors)>,
}

impl OpenEncoder {
    /// Finds the encoder that `source` names.
    pub fn of(source: &GoalEncoder) -> Result<Self, TrainError> {
        match source {
            GoalEncoder::Compact(source) if source.checkpoint.as_os_str().is_empty() => {
                let remedy = "give the directory of a trained compact PLDM or LeWM, whose encoder is used: \
                              --set model.encoder.checkpoint=DIR";
                Err(TrainError::Config(format!("model.encoder.checkpoint is empty; {remedy}")))
            }
            GoalEncoder::Compact(source) => {
                let (config, tensors) = encoder_tensors(&source.checkpoint)?;
                let encoder = encoder_of(&source.checkpoint, &config, tensors.clone())?;
                Ok(Self { encoder: Arc::new(encoder), own: Some((config, tensors)) })
            }
            GoalEncoder::Pretrained(config) => {
                Ok(Self { encoder: encoders::open(config)?.into(), own: None })
            }
            GoalEncoder::Trained(_) => Err(TrainError::Config("a trained encoder is not frozen".into())),
        }
    }
}

/// Refuses the frozen encoder in `checkpoint` for a `store` of another environment than its own, whose background it takes
/// away.
///
/// # Errors
/// Names both.
pub(super) fn same_environment(checkpoint: &Path, store: &Store) -> Result<(), TrainError> {
    let (theirs, ours) = (crate::environment_of(checkpoint)?, store.env().spec().name);
    if theirs == ours {
        return Ok(());
    }
    Err(TrainError::Config(format!(
        "model.encoder.checkpoint = {} was trained on {theirs}, but {} holds {ours}; give one that was trained on {ours}",
        checkpoint.display(),
        store.path().display()
    )))
}

/// Loads a checkpoint directory: the policy, its method, what a row is to say of it, and a key report.
///
/// # Errors
/// Names the file and the key that is wrong, or says that the encoder is another than the one trained with.
pub fn load(directory: &Path) -> Result<(GoalActor, Method, String, String), TrainError> {
    let path = directory.join("config.toml");
    let text = std::fs::read_to_string(&path).map_err(TrainError::io(&path))?;
    let problem = |problem: String| TrainError::Checkpoint { path: path.clone(), problem };
    let mut saved: Saved = crate::saved(&text).map_err(|e| problem(e.message().into()))?;
    if let GoalEncoder::Pretrained(config) = &mut saved.model.encoder {
        config.weights = config.weights.take().map(|weights| beside(directory, &weights));
    }
    saved.model.check(saved.method, saved.frames).map_err(|e| problem(e.to_string()))?;
    let weights = directory.join("model.safetensors");
    let (tensors, _) = checkpoint::read_tensors(&weights)?;
    let count = tensors.len();
    let (own, rest): (Tensors, Tensors) =
        tensors.into_iter().partition(|(key, _)| key.starts_with(ENCODER_KEYS));
    let encoder: Arc<dyn FrozenEncoder> = match (&saved.compact_encoder, &saved.model.encoder) {
        (Some(config), _) => Arc::new(encoder_of(&weights, config, own)?),
        (None, source) => pretrained(source, &saved.encoder_sha256).map_err(|e| problem(e.to_string()))?,
    };
    let sizes = saved.model.sizes(saved.frames, (encoder.tokens(), encoder.width()));
    let mut params = saved.init(&sizes, 0);
    named::restore(&mut params, rest, |_| true)?;
    let (squashed, value) = match &saved.model.objective {
        Objective::Gcbc(_) => (None, ValueSource::None),
        Objective::IqLearn(c) => (Some(saved.bounds()), ValueSource::Critic(c.heads)),
        Objective::Gciql(_) => (None, ValueSource::Value(1)),
        Objective::Gcivl(c) => (None, ValueSource::Value(c.heads)),
    };
    let spec = PolicySpec { network: *saved.model.objective.network(), sizes, squashed, value };
    let nets = PolicyNets::new(spec, &params).map_err(|e| problem(e.to_string()))?;
    let actor = GoalActor::new(nets, encoder, saved.actions.clone(), saved.statistics())
        .map_err(|e| problem(e.to_string()))?;
    Ok((actor, saved.method, saved.model.objective.label(), format!("{count}/{count} tensors")))
}

/// The pretrained encoder of a policy, which must be the one it was trained on.
fn pretrained(source: &GoalEncoder, wanted: &str) -> Result<Arc<dyn FrozenEncoder>, TrainError> {
    let GoalEncoder::Pretrained(_) = source else {
        let problem = "the checkpoint says nothing of its compact encoder; export or train it again";
        return Err(TrainError::Config(problem.into()));
    };
    let encoder = OpenEncoder::of(source)?.encoder;
    let found = encoder.fingerprint();
    if found == wanted {
        return Ok(encoder);
    }
    Err(TrainError::Config(format!(
        "the policy was trained on an encoder with SHA-256 {wanted}, the one found has {found}; give those weights in \
         model.encoder.weights"
    )))
}
