//! Full-size PLDM and LeWM (ViT-Tiny/14 at 224 pixels, 18 M parameters) as a [`Learner`], on Burn.
//!
//! Frames are ImageNet-normalised, actions z-scored per dimension over the training episodes, as in the published
//! recipe (lr 5e-5, weight decay 1e-3, batch 128, clip 1). The inverse dynamics head has its own optimiser there,
//! so its gradient is clipped on its own; it is kept for resumption and is no part of the checkpoint that
//! evaluation reads. The keys of that checkpoint are those of the reference.

use std::path::Path;
use std::sync::Arc;

use burn::tensor::{Device, Tensor as Array};
use serde::{Deserialize, Serialize};
use worldbench_data::{Batch, Normaliser, NormaliserKind, Split, Store};
use worldbench_models::compact::{ACTION, spread};
use worldbench_models::jepa::{Jepa, JepaConfig};
use worldbench_models::lewm::{Lewm, LewmConfig};
use worldbench_models::losses::Terms;
use worldbench_models::planning::{IMAGE_MEAN, IMAGE_STD, JepaModel, JepaPlanner, RolloutOptions};
use worldbench_models::pldm::{self, Pldm, PldmConfig, PldmLoss};
use worldbench_nn::params::{from_vec, to_vec};
use worldbench_nn::{Leaves, Params, Pass, Scope};
use worldbench_plan::ActionNormaliser;

use crate::checkpoint::{self, Tensor, Tensors};
use crate::config::check_weights;
use crate::{Group, Learner, Method, Metrics, TrainConfig, TrainError, metrics, named};

/// Keys of the inverse dynamics head begin with this.
const IDM: &str = "idm.";

/// Networks and losses of the full-size models; the method decides which losses count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FullConfig {
    /// Device that trains, e.g. `cpu` or `cuda:0`.
    pub device: String,
    /// Environment steps of one action block.
    pub action_block: usize,
    /// Hidden width of PLDM's inverse dynamics head.
    pub idm_hidden: usize,
    /// LeWM: weight of SIGReg beside the prediction error.
    pub sigreg: f64,
    /// PLDM: loss weights and variants.
    pub pldm: PldmLoss,
    /// Sizes of the network; `action` is twice `action_block`.
    pub network: JepaConfig,
}

impl FullConfig {
    /// The published size.
    #[must_use]
    pub fn published() -> Self {
        let PldmConfig { network, idm_hidden, loss } = PldmConfig::full(5 * ACTION);
        Self { device: "cpu".into(), action_block: 5, idm_hidden, sigreg: 0.09, pldm: loss, network }
    }

    /// Checks what would otherwise fail deep inside the network.
    ///
    /// # Errors
    /// Names the setting and what it may be.
    pub fn check(&self, frames: usize) -> Result<(), TrainError> {
        let fail = |message: String| Err(TrainError::Config(message));
        let (encoder, predictor) = (&self.network.encoder, &self.network.predictor);
        if self.action_block == 0 || self.network.action != self.action_block * ACTION {
            let action = self.network.action;
            return fail(format!("model.network.action = {action} must be {ACTION} x model.action_block"));
        }
        if encoder.patch == 0 || !encoder.image.is_multiple_of(encoder.patch.max(1)) || encoder.image == 0 {
            return fail("model.network.encoder.image must be a multiple of its patch".into());
        }
        if encoder.heads == 0 || !encoder.hidden.is_multiple_of(encoder.heads.max(1)) || encoder.hidden == 0 {
            return fail("model.network.encoder.hidden must be a multiple of its heads".into());
        }
        if predictor.width != encoder.hidden || predictor.depth == 0 || predictor.heads == 0 {
            return fail(
                "model.network.predictor needs the encoder's width, and depth and heads of at least 1".into(),
            );
        }
        if frames - 1 > predictor.frames {
            let (given, most) = (frames, predictor.frames + 1);
            return fail(format!("frames = {given}: model.network.predictor.frames leaves room for {most}"));
        }
        let loss = &self.pldm;
        check_weights([
            ("model.sigreg", self.sigreg),
            ("model.pldm.pred", loss.pred),
            ("model.pldm.std", loss.std),
            ("model.pldm.std_t", loss.std_t),
            ("model.pldm.cov", loss.cov),
            ("model.pldm.cov_t", loss.cov_t),
            ("model.pldm.temp_align", loss.temp_align),
            ("model.pldm.temp_straight", loss.temp_straight),
            ("model.pldm.idm", loss.idm),
        ])
    }

    fn pldm(&self) -> PldmConfig {
        PldmConfig { network: self.network, idm_hidden: self.idm_hidden, loss: self.pldm }
    }

    fn lewm(&self) -> LewmConfig {
        LewmConfig { network: self.network, sigreg: self.sigreg }
    }

    fn init(&self, method: Method, seed: u64) -> Params {
        match method {
            Method::Lewm => self.lewm().init(seed),
            _ => self.pldm().init(seed),
        }
    }
}

/// `config.toml` of a full-size checkpoint.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    architecture: String,
    method: Method,
    model: FullConfig,
    actions: ActionNormaliser,
}

// Built anew for every batch and never stored in bulk.
#[allow(clippy::large_enum_variant)]
enum Network {
    Pldm(Pldm),
    Lewm(Lewm),
}

impl Network {
    fn build(scope: &mut Scope, config: &FullConfig, method: Method) -> Self {
        match method {
            Method::Lewm => Self::Lewm(Lewm::build(scope, &config.lewm())),
            _ => Self::Pldm(Pldm::build(scope, &config.pldm())),
        }
    }

    fn loss(&self, frames: Array<5>, actions: Array<3>, pass: &mut Pass) -> Terms {
        match self {
            Self::Pldm(model) => model.loss(frames, actions, pass),
            Self::Lewm(model) => model.loss(frames, actions, pass),
        }
    }

    fn jepa(&self) -> &Jepa {
        match self {
            Self::Pldm(model) => &model.network,
            Self::Lewm(model) => &model.network,
        }
    }
}

/// A full-size model in training.
pub struct FullLearner {
    config: FullConfig,
    method: Method,
    seed: u64,
    device: Device,
    params: Params,
    actions: ActionNormaliser,
}

impl FullLearner {
    /// A fresh model; its action statistics are fitted on the training episodes.
    ///
    /// # Errors
    /// When the configuration makes no sense, the device is not there or the data are too few.
    pub fn new(
        config: &TrainConfig,
        full: &FullConfig,
        store: &Store,
        split: &Split,
    ) -> Result<Self, TrainError> {
        config.check()?;
        let fitted = Normaliser::fit_actions(NormaliserKind::Zscore, store, &split.train)?;
        let actions = ActionNormaliser::new(fitted.offset, fitted.scale)
            .map_err(|e| TrainError::Config(e.to_string()))?;
        let params = full.init(config.method, config.seed);
        let device = worldbench_nn::device(&full.device)?;
        Ok(Self { config: full.clone(), method: config.method, seed: config.seed, device, params, actions })
    }

    fn bind(&self, device: &Device) -> Result<(Network, Leaves), TrainError> {
        Ok(self.params.bind(device, |scope| Network::build(scope, &self.config, self.method))?)
    }

    /// Normalised frames `[B, T, 3, S, S]` and action blocks `[B, T, A]` of a batch.
    fn inputs(&self, batch: &Batch, device: &Device) -> (Array<5>, Array<3>) {
        let (b, side) = (batch.windows.len(), self.config.network.encoder.image);
        let t = batch.missing.len() / b.max(1);
        let pixels = side * side;
        let mut frames = vec![0.0f32; batch.frames.len()];
        for (out, frame) in frames.chunks_exact_mut(3 * pixels).zip(batch.frames.chunks_exact(3 * pixels)) {
            for (c, plane) in out.chunks_exact_mut(pixels).enumerate() {
                let (mean, std) = (IMAGE_MEAN[c], IMAGE_STD[c]);
                let channel = frame.iter().skip(c).step_by(3);
                plane.iter_mut().zip(channel).for_each(|(p, &v)| *p = (f32::from(v) / 255.0 - mean) / std);
            }
        }
        let raw: Vec<f64> = batch.actions.iter().map(|&a| f64::from(a)).collect();
        let mut actions = self.actions.normalise(&raw);
        // The loader writes a missing action as raw 0; the methods want 0 after normalisation.
        let block = self.config.network.action;
        let missing = actions.chunks_exact_mut(block).zip(&batch.missing).filter(|(_, missing)| **missing);
        missing.for_each(|(block, _)| block.fill(0.0));
        (from_vec(frames, [b, t, 3, side, side], device), from_vec(actions, [b, t, block], device))
    }
}

impl Learner for FullLearner {
    fn params(&self) -> &[f32] {
        &self.params.values
    }

    fn params_mut(&mut self) -> &mut [f32] {
        &mut self.params.values
    }

    fn groups(&self, _: u64, steps: u64) -> Vec<Group> {
        // Declared last, so what comes before is the model.
        let idm = self.params.group(IDM);
        let model = 0..if idm.is_empty() { self.params.count() } else { idm.start };
        let spans = [model, idm].into_iter().filter(|span| !span.is_empty());
        spans.map(|span| Group { span, begun: 0, steps }).collect()
    }

    fn step(&mut self, batch: &Batch, step: u64, grads: &mut [f32]) -> Result<Metrics, TrainError> {
        let mut pass = Pass::train(self.seed, step, 0);
        let (network, leaves) = self.bind(&self.device)?;
        let (frames, actions) = self.inputs(batch, &self.device);
        let terms = network.loss(frames, actions, &mut pass);
        grads.copy_from_slice(&leaves.gradients(&terms.total)?);
        pass.commit(&mut self.params)?;
        metrics(&terms)
    }

    fn validate(&self, batch: &Batch) -> Result<Metrics, TrainError> {
        let device = self.device.clone().inner();
        let (network, _) = self.bind(&device)?;
        let (frames, actions) = self.inputs(batch, &device);
        let terms = network.loss(frames.clone(), actions, &mut Pass::eval());
        let mut out = metrics(&terms)?;
        let z = to_vec(network.jepa().encode(frames, &mut Pass::eval()))?;
        let (std, rank) = spread(&z, self.config.network.encoder.hidden);
        out.extend([("embedding_std", std), ("effective_rank", rank)]);
        Ok(out)
    }

    fn tensors(&self) -> Vec<Tensor<'_>> {
        named::tensors(&self.params)
    }

    fn restore(&mut self, tensors: Tensors) -> Result<String, TrainError> {
        named::restore(&mut self.params, tensors, |_| true)
    }

    fn exported(&self, key: &str) -> bool {
        pldm::in_checkpoint(key)
    }

    fn config(&self) -> toml::Table {
        let saved = Saved {
            architecture: "full".into(),
            method: self.method,
            model: self.config.clone(),
            actions: self.actions.clone(),
        };
        toml::Table::try_from(saved).unwrap_or_default()
    }
}

/// Loads a full-size checkpoint directory for planning: the model, its method and a key report.
///
/// # Errors
/// Names the file and the key that is wrong.
pub fn load(
    directory: &Path,
    options: RolloutOptions,
) -> Result<(Arc<JepaModel>, Method, String), TrainError> {
    let path = directory.join("config.toml");
    let text = std::fs::read_to_string(&path).map_err(TrainError::io(&path))?;
    let problem = |problem: String| TrainError::Checkpoint { path: path.clone(), problem };
    let saved: Saved = crate::saved(&text).map_err(|e| {
        problem(format!("{}; it is not the config.toml of a full-size checkpoint", e.message()))
    })?;
    saved.model.check(2)?;
    let mut learner = FullLearner {
        params: saved.model.init(saved.method, 0),
        device: worldbench_nn::device("cpu")?,
        config: saved.model,
        method: saved.method,
        seed: 0,
        actions: saved.actions,
    };
    let (tensors, _) = checkpoint::read_tensors(&directory.join("model.safetensors"))?;
    let report = named::restore(&mut learner.params, tensors, pldm::in_checkpoint)?;
    let FullLearner { config, params, actions, .. } = learner;
    let planner = JepaPlanner::new(&config.network, &params).map_err(|e| problem(e.to_string()))?;
    let model = JepaModel::new(planner, Box::new(actions), config.action_block)
        .map_err(|e| problem(e.to_string()))?;
    Ok((Arc::new(model.in_precision(options.precision)), saved.method, report))
}
