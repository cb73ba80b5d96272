//! DINO-WM as a [`Learner`]: a predictor on the features of a frozen encoder, on Burn.
//!
//! Features come from a cache beside the data ([`worldbench_data::features`]) where it fits `cache_gb`, else every
//! batch is encoded anew. Losses are means over windows, so a batch is split among threads ([`crate::shards`]).
//! The schedule is the trainer's; the reference clips gradients that are still multiplied by the loss scale, here they
//! are not scaled at all.

mod config;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use burn::tensor::{Device, Tensor as Array};
use serde::{Deserialize, Serialize};
use worldbench_data::features::Features;
use worldbench_data::{Batch, Normaliser, NormaliserKind, Split, Store, WindowSpec};
use worldbench_models::compact::{PROPRIO, Whitener};
use worldbench_models::dino_wm::{Clip, DinoWm};
use worldbench_models::encoders::FrozenEncoder;
use worldbench_models::losses::{Terms, mse};
use worldbench_models::patch_decoder::{PatchDecoder, cut, join};
use worldbench_models::planning::{BlockTransform, DinoWmModel, DinoWmPlanner, Picture, RolloutOptions};
use worldbench_nn::params::{from_vec, to_vec};
use worldbench_nn::{Params, Pass, Scope};
use worldbench_plan::ActionNormaliser;

use crate::checkpoint::{self, Tensor, Tensors};
use crate::compact::{moments, whitener};
use crate::frozen::{self, Encoding};
use crate::import::beside;
use crate::shards::Shards;
pub use config::{ActionScaling, DinoWmTraining};

use crate::{Group, Learner, Method, Metrics, TrainConfig, TrainError, metrics, named};

/// What is trained.
struct Networks {
    world: DinoWm,
    decoder: Option<PatchDecoder>,
}

/// Keys of the decoder begin with this.
const DECODER: &str = "decoder.";

impl Networks {
    fn build(scope: &mut Scope, config: &DinoWmTraining) -> Self {
        let width = config.network.features;
        let world = DinoWm::build(scope, &config.network);
        let decoder = config.decoder.as_ref().map(|c| PatchDecoder::new(scope, "decoder", width, c));
        Self { world, decoder }
    }
}

impl DinoWmTraining {
    /// Freshly initialised parameters; the decoder's come last.
    #[must_use]
    pub fn init(&self, seed: u64) -> Params {
        Params::init(seed, |scope| Networks::build(scope, self))
    }
}

/// Fitted on the training data.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Actions {
    Zscore(ActionNormaliser),
    Whiten(Whitener),
}

impl Actions {
    fn transform(&self) -> &dyn BlockTransform {
        match self {
            Self::Zscore(normaliser) => normaliser,
            Self::Whiten(whitener) => whitener,
        }
    }
}

/// Everything that evaluation needs beside weights.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    architecture: String,
    method: Method,
    /// SHA-256 of the encoder, which is not part of the checkpoint.
    encoder_sha256: String,
    model: DinoWmTraining,
    actions: Actions,
    proprio_mean: [f64; PROPRIO],
    proprio_std: [f64; PROPRIO],
}

/// A DINO-WM in training.
pub struct DinoWmLearner {
    saved: Saved,
    seed: u64,
    device: Device,
    params: Params,
    shards: Shards,
    encoder: Arc<dyn FrozenEncoder>,
    features: Option<Features>,
    spec: WindowSpec,
}

/// What the network sees of a batch.
struct Inputs {
    /// `[B, T, P, F]`
    features: Vec<f32>,
    /// `[B, T, 4]`
    proprio: Vec<f32>,
    /// `[B, T, A]`
    actions: Vec<f32>,
}

impl DinoWmLearner {
    /// A fresh model. Statistics are fitted on the training episodes; features are computed unless they lie there.
    ///
    /// # Errors
    /// When the configuration makes no sense, the encoder's weights are not found, or the data are too few.
    pub fn new(
        config: &TrainConfig,
        model: &DinoWmTraining,
        store: &Store,
        split: &Split,
        progress: Encoding,
    ) -> Result<Self, TrainError> {
        config.check()?;
        let encoder = model.open_encoder()?;
        let actions = match model.actions {
            ActionScaling::Whiten => Actions::Whiten(whitener(model.action_block, store, &split.train)?),
            ActionScaling::Zscore => {
                let fitted = Normaliser::fit_actions(NormaliserKind::Zscore, store, &split.train)?;
                let fitted = ActionNormaliser::new(fitted.offset, fitted.scale);
                Actions::Zscore(fitted.map_err(|e| TrainError::Config(e.to_string()))?)
            }
        };
        let [proprio_mean, proprio_std] = moments(model.action_block, store, &split.train)?;
        let saved = Saved {
            architecture: "dino-wm".into(),
            method: config.method,
            encoder_sha256: encoder.fingerprint(),
            model: model.clone(),
            actions,
            proprio_mean,
            proprio_std,
        };
        Ok(Self {
            features: frozen::cache(encoder.as_ref(), store, model.start_stride, model.cache_gb, progress)?,
            saved,
            seed: config.seed,
            device: worldbench_nn::device(&model.device)?,
            params: model.init(config.seed),
            shards: Shards::new(config.threads)?,
            encoder,
            spec: config.window_spec(),
        })
    }

    fn inputs(&self, batch: &Batch) -> Result<Inputs, TrainError> {
        let network = &self.saved.model.network;
        let (frames, size) = (batch.missing.len(), network.predictor.patches * network.features);
        let mut features = vec![0.0; frames * size];
        match &self.features {
            Some(cache) => {
                let mut out = features.chunks_exact_mut(size);
                for &window in &batch.windows {
                    for (row, out) in self.spec.frame_rows(window).zip(&mut out) {
                        cache.read(window.episode as usize, row, out)?;
                    }
                }
            }
            None => {
                let pixels = batch.frames.len() / frames.max(1);
                let images: Vec<&[u8]> = batch.frames.chunks_exact(pixels).collect();
                self.encoder.encode(&images, &mut features)?;
            }
        }
        let mut actions = batch.actions.clone();
        for (block, &missing) in actions.chunks_exact_mut(network.action).zip(&batch.missing) {
            self.saved.actions.transform().normalise(block);
            // The loader writes a missing action as raw 0; the method wants 0 after normalisation.
            if missing {
                block.fill(0.0);
            }
        }
        let (mean, std) = (&self.saved.proprio_mean, &self.saved.proprio_std);
        let normalised = |raw: &[f32]| {
            std::array::from_fn::<f32, PROPRIO, _>(|i| ((f64::from(raw[i]) - mean[i]) / std[i]) as f32)
        };
        let proprio = batch.proprio.chunks_exact(PROPRIO).flat_map(normalised).collect();
        Ok(Inputs { features, proprio, actions })
    }

    /// The part `windows` of a batch.
    fn clip(&self, inputs: &Inputs, windows: Range<usize>, device: &Device) -> Clip {
        let network = &self.saved.model.network;
        let (b, t) = (windows.len(), self.spec.num_steps);
        let (patches, features) = (network.predictor.patches, network.features);
        let part = |values: &[f32], width: usize| {
            values[windows.start * t * width..windows.end * t * width].to_vec()
        };
        Clip {
            features: from_vec(part(&inputs.features, patches * features), [b, t, patches, features], device),
            proprio: from_vec(part(&inputs.proprio, PROPRIO), [b, t, PROPRIO], device),
            actions: from_vec(part(&inputs.actions, network.action), [b, t, network.action], device),
        }
    }
}

/// Losses of the world model and of the decoder, which share no parameter.
struct Losses {
    world: Terms,
    decoder: Option<Array<1>>,
}

impl Losses {
    fn total(&self) -> Array<1> {
        let world = self.world.total.clone();
        self.decoder.iter().fold(world, |sum, decoder| sum + decoder.clone())
    }

    /// `loss` is the world model's alone.
    fn metrics(&self) -> Result<Metrics, TrainError> {
        let mut out = metrics(&self.world)?;
        if let Some(decoder) = &self.decoder {
            out.push(("decoder_loss", to_vec(decoder.clone().detach())?[0]));
        }
        Ok(out)
    }
}

impl DinoWmLearner {
    /// Losses of the windows `share`. The decoder sees one frame of each, another in every step.
    #[allow(clippy::too_many_arguments)]
    fn losses(
        &self,
        networks: &Networks,
        inputs: &Inputs,
        batch: &Batch,
        share: Range<usize>,
        step: u64,
        device: &Device,
        pass: &mut Pass,
    ) -> Losses {
        let world = networks.world.loss(self.clip(inputs, share.clone(), device), pass);
        let (Some(decoder), Some(sizes)) = (&networks.decoder, &self.saved.model.decoder) else {
            return Losses { world, decoder: None };
        };
        let network = &self.saved.model.network;
        let (patches, width) = (network.predictor.patches, network.features);
        let pixels = 3 * sizes.image * sizes.image;
        let (mut features, mut targets) = (Vec::new(), Vec::new());
        for window in share.clone() {
            let frame = window * self.spec.num_steps + (window + step as usize) % self.spec.num_steps;
            features.extend_from_slice(&inputs.features[frame * patches * width..][..patches * width]);
            cut(&batch.frames[frame * pixels..][..pixels], sizes.image, sizes.patch, &mut targets);
        }
        let features = from_vec(features, [share.len(), patches, width], device);
        let targets = from_vec(targets, [share.len(), patches, pixels / patches], device);
        let error = mse(decoder.decode(decoder.bridge(features)), targets);
        Losses { world, decoder: Some(error) }
    }
}

impl Learner for DinoWmLearner {
    fn params(&self) -> &[f32] {
        &self.params.values
    }

    fn params_mut(&mut self) -> &mut [f32] {
        &mut self.params.values
    }

    fn groups(&self, _: u64, steps: u64) -> Vec<Group> {
        let decoder = self.params.group(DECODER);
        let world = 0..if decoder.is_empty() { self.params.count() } else { decoder.start };
        let spans = [world, decoder].into_iter().filter(|span| !span.is_empty());
        spans.map(|span| Group { span, begun: 0, steps }).collect()
    }

    fn step(&mut self, batch: &Batch, step: u64, grads: &mut [f32]) -> Result<Metrics, TrainError> {
        let inputs = self.inputs(batch)?;
        self.shards.run(batch.windows.len(), grads, |share| {
            let mut pass = Pass::train(self.seed, step, share.start as u64);
            let build = |scope: &mut Scope| Networks::build(scope, &self.saved.model);
            let (networks, leaves) = self.params.bind(&self.device, build)?;
            let losses = self.losses(&networks, &inputs, batch, share, step, &self.device, &mut pass);
            Ok((losses.metrics()?, leaves.gradients(&losses.total())?))
        })
    }

    fn validate(&self, batch: &Batch) -> Result<Metrics, TrainError> {
        let device = self.device.clone().inner();
        let build = |scope: &mut Scope| Networks::build(scope, &self.saved.model);
        let (networks, _) = self.params.bind(&device, build)?;
        let (inputs, all) = (self.inputs(batch)?, 0..batch.windows.len());
        self.losses(&networks, &inputs, batch, all, 0, &device, &mut Pass::eval()).metrics()
    }

    fn tensors(&self) -> Vec<Tensor<'_>> {
        named::tensors(&self.params)
    }

    fn restore(&mut self, tensors: Tensors) -> Result<String, TrainError> {
        named::restore(&mut self.params, tensors, |_| true)
    }

    fn config(&self) -> toml::Table {
        toml::Table::try_from(self.saved.clone()).unwrap_or_default()
    }
}

/// Frames of context and plan that a limit on memory is reckoned with.
const LONGEST_PATH: usize = 8;

/// Loads a checkpoint directory for planning: the model, its method and a key report.
///
/// # Errors
/// Names the file and the key that is wrong, or says that the encoder is another than the one trained with.
pub fn load(
    directory: &Path,
    options: RolloutOptions,
) -> Result<(Arc<DinoWmModel>, Method, String), TrainError> {
    let path = directory.join("config.toml");
    let text = std::fs::read_to_string(&path).map_err(TrainError::io(&path))?;
    let problem = |problem: String| TrainError::Checkpoint { path: path.clone(), problem };
    let mut saved: Saved = crate::saved(&text).map_err(|e| problem(e.message().into()))?;
    let weights = &mut saved.model.encoder.weights;
    *weights = weights.take().map(|path| beside(directory, &path));
    saved.model.check(2)?;
    let encoder = saved.model.open_encoder()?;
    if encoder.fingerprint() != saved.encoder_sha256 {
        return Err(problem(format!(
            "the model was trained on an encoder with SHA-256 {}, the one found has {}; give those weights in \
             model.encoder.weights",
            saved.encoder_sha256,
            encoder.fingerprint()
        )));
    }
    let mut params = saved.model.init(0);
    let (tensors, _) = checkpoint::read_tensors(&directory.join("model.safetensors"))?;
    let report = named::restore(&mut params, tensors, |_| true)?;
    let planner = DinoWmPlanner::new(&saved.model.network, &params).map_err(|e| problem(e.to_string()))?;
    let actions: Box<dyn BlockTransform> = match saved.actions {
        Actions::Zscore(normaliser) => Box::new(normaliser),
        Actions::Whiten(whitener) => Box::new(whitener),
    };
    let statistics = [saved.proprio_mean, saved.proprio_std];
    let mut model = DinoWmModel::new(planner, encoder, actions, statistics, saved.model.action_block)
        .map_err(|e| problem(e.to_string()))?
        .in_precision(options.precision);
    if let Some(bytes) = options.memory {
        model = model.with_memory(bytes, LONGEST_PATH);
    }
    if let Some(picture) = picture(&saved.model, &params)? {
        model = model.with_picture(picture);
    }
    Ok((Arc::new(model), saved.method, report))
}

fn picture(model: &DinoWmTraining, params: &Params) -> Result<Option<Picture>, TrainError> {
    let device = worldbench_nn::device("cpu")?.inner();
    let (networks, _) = params.bind(&device, |scope| Networks::build(scope, model))?;
    let shape = [1, model.network.predictor.patches, model.network.features];
    Ok(networks.decoder.zip(model.decoder).map(|(decoder, sizes)| {
        Box::new(move |features: &[f32]| {
            let features = from_vec(features.to_vec(), shape, &device);
            let patches = to_vec(decoder.decode(decoder.bridge(features))).unwrap_or_default();
            join(&patches, sizes.image, sizes.patch)
        }) as Picture
    }))
}
