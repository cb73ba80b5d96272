//! Goal-conditioned policies (GCBC, IQ-Learn, GCIQL, GCIVL) as a [`Learner`]: networks on the features of an encoder, on
//! Burn.
//!
//! With a frozen encoder a step never draws a frame: the features of every row of the store are computed once and cached
//! beside it ([`worldbench_data::features`]), unless they would exceed `cache_gb`. The encoder of a compact checkpoint
//! becomes part of the policy's own, and so does one that is trained along ([`TrainedEncoder`]). Target networks belong to
//! a run's state, not to its checkpoint.

mod batch;
mod config;
mod load;
mod methods;
mod observations;
mod trained;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use worldbench_core::Stream;
use worldbench_data::{Batch, Normaliser, NormaliserKind, Split, Store};
use worldbench_models::compact::{self, PROPRIO};
use worldbench_models::encoders::FrozenEncoder;
use worldbench_models::goal::{ACTOR, Bounds, CRITIC, GoalSizes, LOG_STDS, VALUE};
use worldbench_nn::optim::ema;
use worldbench_nn::params::Leaves;
use worldbench_nn::{Params, Scope};
use worldbench_plan::ActionNormaliser;

use crate::checkpoint::{Tensor, Tensors};
use crate::compact::moments;
use crate::frozen::Encoding;
use crate::shards::Shards;
use crate::{Group, Learner, Method, Metrics, TrainConfig, TrainError, metrics, named};
use batch::{Goals, Inputs, Moments};
pub use config::{CompactSource, GoalEncoder, GoalTraining, Objective, Phases, Reached, TrainedEncoder};
pub use load::load;
use load::{ENCODER_KEYS, OpenEncoder, same_environment};
use methods::{Bound, Networks, Share};
use observations::{Observations, Observed};
use trained::{Pass, Trained};

/// Rows of a clip that a policy with a context of `frames` and chunks of `chunk` actions learns from.
pub(crate) fn clip_rows(frames: usize, chunk: usize) -> usize {
    batch::rows(frames, chunk)
}

/// Keys of moving averages begin with this.
const TARGET: &str = "target.";

/// `config.toml` of a policy's checkpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    architecture: String,
    method: Method,
    /// Longest context T.
    frames: usize,
    /// Of a frozen encoder; empty where it is trained along.
    encoder_sha256: String,
    proprio_mean: [f64; PROPRIO],
    proprio_std: [f64; PROPRIO],
    actions: ActionNormaliser,
    /// Bounds of both values of a raw action.
    action_bounds: [f32; 2],
    model: GoalTraining,
    /// Sizes of the encoder whose weights lie in the same checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    compact_encoder: Option<compact::EncoderConfig>,
}

impl Saved {
    /// The environment's bounds of a chunk of actions, normalised.
    fn bounds(&self) -> Bounds {
        let edge = |limit: f32| self.actions.normalise(&[f64::from(limit); 2].repeat(self.model.chunk));
        let [low, high] = self.action_bounds;
        Bounds { low: edge(low), high: edge(high) }
    }

    fn statistics(&self) -> Option<[[f64; PROPRIO]; 2]> {
        self.model.proprio.then_some([self.proprio_mean, self.proprio_std])
    }

    fn init(&self, sizes: &GoalSizes, seed: u64) -> Params {
        match &self.model.objective {
            Objective::Gcbc(c) => c.init(sizes, seed),
            Objective::IqLearn(c) => c.init(sizes, seed),
            Objective::Gciql(c) => c.init(sizes, seed),
            Objective::Gcivl(c) => c.init(sizes, seed),
        }
    }
}

/// What turns frames into features.
enum Eyes {
    Frozen(Arc<dyn FrozenEncoder>),
    Trained(Box<Trained>),
}

/// Size and tensors of a compact encoder that are copied into the policy's checkpoint.
type Own = (compact::EncoderConfig, Tensors);

impl Eyes {
    /// Finds or makes the encoder; one that is trained is declared in `params`.
    fn open(
        config: &TrainConfig,
        model: &GoalTraining,
        data: (&Store, &Split),
        params: &mut Params,
    ) -> Result<(Self, Option<Own>), TrainError> {
        let GoalEncoder::Trained(source) = &model.encoder else {
            let OpenEncoder { encoder, own } = OpenEncoder::of(&model.encoder)?;
            if let GoalEncoder::Compact(source) = &model.encoder {
                same_environment(&source.checkpoint, data.0)?;
            }
            return Ok((Self::Frozen(encoder), own));
        };
        let run = (config.seed, config.threads);
        let trained = Trained::new(source, model.objective.looks_at(), data, run, params)?;
        // Its tensors are among the policy's own; only its size is copied.
        let own = (trained.config().clone(), Tensors::new());
        Ok((Self::Trained(Box::new(trained)), Some(own)))
    }

    /// The encoder as it stands in `params`.
    fn frozen(&self, params: &Params) -> Arc<dyn FrozenEncoder> {
        match self {
            Self::Frozen(encoder) => Arc::clone(encoder),
            Self::Trained(trained) => Arc::new(trained.frozen(params)),
        }
    }
}

/// A goal-conditioned policy in training.
pub struct GoalLearner {
    saved: Saved,
    sizes: GoalSizes,
    seed: u64,
    /// Batches of an optimiser step, and steps of the run.
    accumulate: u64,
    steps: u64,
    device: Device,
    params: Params,
    /// Moving averages; those of the actor are not used.
    target: Params,
    bounds: Bounds,
    /// The encoder's tensors that belong to the checkpoint.
    encoder: Tensors,
    eyes: Eyes,
    observations: Observations,
    goals: (Goals, Option<Goals>),
    shards: Shards,
}

impl GoalLearner {
    /// Fresh networks; statistics are fitted on the training episodes, and every row of `store` is encoded unless a cache
    /// stands beside it.
    ///
    /// # Errors
    /// When the configuration makes no sense, the encoder is not found, or the data are too few.
    pub fn new(
        config: &TrainConfig,
        model: &GoalTraining,
        store: &Arc<Store>,
        split: &Split,
        progress: Encoding,
    ) -> Result<Self, TrainError> {
        config.check()?;
        let mut encoder_params = Params::default();
        let (eyes, own) = Eyes::open(config, model, (store, split), &mut encoder_params)?;
        let fitted = Normaliser::fit_actions(NormaliserKind::Zscore, store, &split.train)?;
        let actions = ActionNormaliser::new(fitted.offset, fitted.scale)
            .map_err(|e| TrainError::Config(e.to_string()))?;
        let [proprio_mean, proprio_std] = moments(1, store, &split.train)?;
        let (compact_encoder, tensors) = own.unzip();
        let (encoder, frozen) = (eyes.frozen(&encoder_params), matches!(eyes, Eyes::Frozen(_)));
        let saved = Saved {
            architecture: "goal-policy".into(),
            method: config.method,
            frames: config.frames,
            encoder_sha256: if frozen { encoder.fingerprint() } else { String::new() },
            proprio_mean,
            proprio_std,
            actions,
            action_bounds: store.env().spec().action_bounds,
            model: model.clone(),
            compact_encoder,
        };
        let cache = frozen.then_some((model.cache_gb, progress));
        let observations = Observations::new(store, encoder.as_ref(), saved.statistics(), cache)?;
        let sizes = model.sizes(config.frames, (encoder.tokens(), encoder.width()));
        let mut params = saved.init(&sizes, config.seed);
        params.extend(&encoder_params);
        Ok(Self {
            observations,
            eyes,
            goals: Goals::of(model, store, split, config.seed)?,
            bounds: saved.bounds(),
            saved,
            sizes,
            seed: config.seed,
            accumulate: config.accumulate,
            steps: config.steps,
            device: worldbench_nn::device(&model.device)?,
            target: params.clone(),
            params,
            encoder: tensors.unwrap_or_default(),
            shards: Shards::new(config.threads)?,
        })
    }

    /// Whether optimiser step `step` moves value and critic, and the actor.
    fn moves(&self, step: u64) -> [bool; 2] {
        match self.saved.model.phases {
            Phases::Joint => [true; 2],
            Phases::TwoPhase => [step < self.steps / 2, step >= self.steps / 2],
        }
    }

    /// Spans of value and critic.
    fn value_spans(&self) -> impl Iterator<Item = Range<usize>> {
        [VALUE, CRITIC].into_iter().map(|key| self.params.group(key)).filter(|span| !span.is_empty())
    }

    /// Metrics and, with `graded`, gradients of the losses that count in optimiser step `step`.
    fn losses<N: Networks>(
        &self,
        config: &N::Config,
        share: &Share,
        step: u64,
        graded: bool,
    ) -> Result<(Metrics, Vec<f32>), TrainError> {
        let build = |scope: &mut Scope| N::build(scope, &self.sizes, config);
        let (online, leaves) = self.params.bind(share.device, build)?;
        let fixed = |params: &Params| Ok(params.bind_frozen(share.device, build)?);
        let (frozen, target) = (|| fixed(&self.params), || fixed(&self.target));
        let losses = N::losses(&Bound { online, frozen: &frozen, target: &target }, share)?;
        let [value, actor] = self.moves(step);
        // In a phase of its own the other loss is for the logs only.
        let total = match &losses.value {
            Some(terms) if value && actor => terms.total.clone() + losses.actor.total.clone(),
            Some(terms) if value => terms.total.clone(),
            _ => losses.actor.total.clone(),
        };
        let gradient = if graded { self.gradient(&leaves, &total, share)? } else { Vec::new() };
        let mut all = match losses.value {
            Some(value) => value.and(losses.actor),
            None => losses.actor,
        };
        all.total = total;
        Ok((metrics(&all)?, gradient))
    }

    /// Gradient of the parameters; where the encoder is trained, that of everything the whole batch looks at behind it,
    /// which is zero outside of this share.
    fn gradient(
        &self,
        leaves: &Leaves,
        total: &burn::tensor::Tensor<1>,
        share: &Share,
    ) -> Result<Vec<f32>, TrainError> {
        let found = leaves.gradients_with(total, &share.looks)?;
        if share.looks.is_empty() {
            return Ok(found);
        }
        let (own, mut looks) = found.split_at(self.params.values.len());
        let mut gradient = own.to_vec();
        gradient.resize(own.len() + share.inputs.len(), 0.0);
        for place in share.inputs.places(&share.windows) {
            let (part, rest) = looks.split_at(place.len());
            gradient[own.len()..][place].copy_from_slice(part);
            looks = rest;
        }
        Ok(gradient)
    }

    fn run(&self, share: &Share, step: u64, graded: bool) -> Result<(Metrics, Vec<f32>), TrainError> {
        match &self.saved.model.objective {
            Objective::Gcbc(c) => self.losses::<worldbench_models::gcbc::Gcbc>(c, share, step, graded),
            Objective::IqLearn(c) => {
                self.losses::<worldbench_models::iq_learn::IqLearn>(c, share, step, graded)
            }
            Objective::Gciql(c) => self.losses::<worldbench_models::gciql::Gciql>(c, share, step, graded),
            Objective::Gcivl(c) => self.losses::<worldbench_models::gcivl::Gcivl>(c, share, step, graded),
        }
    }

    /// The batch as networks take it, made of what is `observed` at `moments`.
    fn inputs(&self, batch: &Batch, moments: &Moments, observed: Observed, noise: u64) -> Inputs {
        let noise = Stream::new(self.seed, "policy noise", &[noise]);
        let how = (&self.saved.actions, self.saved.model.reached);
        Inputs::new(batch, self.sizes, (moments, observed), how, noise)
    }

    /// What the batch looks at, and what a trained encoder needs for the way back.
    fn observe(&mut self, moments: &Moments) -> Result<(Observed, Option<Pass>), TrainError> {
        match &self.eyes {
            Eyes::Frozen(encoder) => Ok((self.observations.read(encoder.as_ref(), moments)?, None)),
            Eyes::Trained(trained) => {
                let (pass, observed) = trained.forward(&mut self.params, &self.observations, moments)?;
                Ok((observed, Some(pass)))
            }
        }
    }
}

impl Learner for GoalLearner {
    fn params(&self) -> &[f32] {
        &self.params.values
    }

    fn params_mut(&mut self) -> &mut [f32] {
        &mut self.params.values
    }

    fn groups(&self, step: u64, steps: u64) -> Vec<Group> {
        let [value, actor] = self.moves(step);
        let half = steps / 2;
        let (begun, steps) = match self.saved.model.phases {
            Phases::Joint => (0, steps),
            Phases::TwoPhase if step < half => (0, half),
            Phases::TwoPhase => (half, steps - half),
        };
        let spans =
            [ACTOR, LOG_STDS, ENCODER_KEYS].into_iter().map(|key| self.params.group(key)).filter(|_| actor);
        let values = self.value_spans().filter(|_| value);
        let spans = spans.chain(values).filter(|span| !span.is_empty());
        spans.map(|span| Group { span, begun, steps }).collect()
    }

    fn step(&mut self, batch: &Batch, step: u64, grads: &mut [f32]) -> Result<Metrics, TrainError> {
        let moments = Moments::draw(batch, self.sizes.frames, &self.goals.0);
        let (observed, pass) = self.observe(&moments)?;
        let inputs = self.inputs(batch, &moments, observed, step);
        let optimiser_step = step / self.accumulate;
        let run = |windows| {
            let share = Share::new(&inputs, windows, &self.device, &self.bounds, pass.is_some());
            self.run(&share, optimiser_step, true)
        };
        let windows = batch.windows.len();
        let (Some(pass), Eyes::Trained(trained)) = (&pass, &self.eyes) else {
            return self.shards.run(windows, grads, run);
        };
        let mut all = vec![0.0; grads.len() + inputs.len()];
        let metrics = self.shards.run(windows, &mut all, run)?;
        let (own, looks) = all.split_at(grads.len());
        grads.copy_from_slice(own);
        let seen = (&inputs.observed_gradient(looks), windows);
        let span = &mut grads[trained.span(&self.params)];
        trained.backward(&self.params, &self.observations, pass, seen, span);
        Ok(metrics)
    }

    fn moved(&mut self, step: u64) {
        let Some(rate) = self.saved.model.objective.ema().filter(|_| self.moves(step)[0]) else { return };
        let spans: Vec<_> = self.value_spans().collect();
        for span in spans {
            ema(&mut self.target.values[span.clone()], &self.params.values[span], rate);
        }
    }

    fn validate(&self, batch: &Batch) -> Result<Metrics, TrainError> {
        let goals = self.goals.1.as_ref().unwrap_or(&self.goals.0);
        let moments = Moments::draw(batch, self.sizes.frames, goals);
        let observed = self.observations.read(self.eyes.frozen(&self.params).as_ref(), &moments)?;
        let inputs = self.inputs(batch, &moments, observed, u64::MAX);
        let (windows, device) = (0..batch.windows.len(), self.device.clone().inner());
        let share = Share::new(&inputs, windows, &device, &self.bounds, false);
        Ok(self.run(&share, 0, false)?.0)
    }

    fn exported(&self, key: &str) -> bool {
        !key.starts_with(TARGET)
    }

    fn tensors(&self) -> Vec<Tensor<'_>> {
        let mut tensors = named::tensors(&self.params);
        for tensor in named::tensors(&self.target) {
            if self.saved.model.objective.ema().is_some() && averaged(&tensor.key) {
                tensors.push(Tensor { key: format!("{TARGET}{}", tensor.key), ..tensor });
            }
        }
        let own = self.encoder.iter();
        let own = own.map(|(key, (shape, values))| Tensor {
            key: key.clone(),
            shape: shape.clone(),
            values,
            integer: false,
        });
        tensors.extend(own);
        tensors
    }

    fn restore(&mut self, tensors: Tensors) -> Result<String, TrainError> {
        let (mut own, mut averages, mut rest) = (Tensors::new(), Tensors::new(), Tensors::new());
        let count = tensors.len();
        for (key, tensor) in tensors {
            if key.starts_with(ENCODER_KEYS) && matches!(self.eyes, Eyes::Frozen(_)) {
                own.insert(key, tensor);
            } else if let Some(key) = key.strip_prefix(TARGET) {
                averages.insert(key.to_owned(), tensor);
            } else {
                rest.insert(key, tensor);
            }
        }
        if own != self.encoder {
            let problem = "the run was begun on another encoder; give the checkpoint it was begun with, or another --out";
            return Err(TrainError::Checkpoint {
                path: Path::new("model.safetensors").into(),
                problem: problem.into(),
            });
        }
        named::restore(&mut self.params, rest, |_| true)?;
        if let Eyes::Trained(trained) = &mut self.eyes {
            trained.restored(&self.params);
        }
        self.target.values.copy_from_slice(&self.params.values);
        let has_targets = self.saved.model.objective.ema().is_some();
        named::restore(&mut self.target, averages, |key| has_targets && averaged(key))?;
        Ok(format!("{count}/{count} tensors"))
    }

    fn config(&self) -> toml::Table {
        toml::Table::try_from(self.saved.clone()).unwrap_or_default()
    }
}

/// Whether the tensor `key` has a moving average.
fn averaged(key: &str) -> bool {
    [VALUE, CRITIC].iter().any(|prefix| key.starts_with(prefix))
}

#[cfg(test)]
mod tests;
