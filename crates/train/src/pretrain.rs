//! The masked autoencoder as a [`Learner`], and the frozen encoder that is exported from it.

use std::path::Path;

use burn::tensor::Device;
use safetensors::tensor::{Dtype, TensorView};
use worldbench_data::Batch;
use worldbench_models::mae::{Mae, MaeConfig, Masked, encoder_tensors};
use worldbench_nn::Params;
use worldbench_nn::params::to_vec;

use crate::checkpoint::{self, Tensor, Tensors, write_atomic};
use crate::shards::Shards;
use crate::{Learner, Metrics, ModelConfig, TrainConfig, TrainError, named};

/// A masked autoencoder in training.
pub struct MaeLearner {
    config: MaeConfig,
    seed: u64,
    device: Device,
    params: Params,
    shards: Shards,
}

impl MaeLearner {
    /// A fresh model.
    ///
    /// # Errors
    /// When the configuration makes no sense or the device is not there.
    pub fn new(config: &TrainConfig, mae: &MaeConfig) -> Result<Self, TrainError> {
        config.check()?;
        let device = worldbench_nn::device(&mae.device)?;
        let shards = Shards::new(config.threads)?;
        Ok(Self { config: mae.clone(), seed: config.seed, device, params: mae.init(config.seed), shards })
    }
}

/// Checks what would otherwise fail deep inside the network.
///
/// # Errors
/// Names the setting and what it may be.
pub(crate) fn check(config: &MaeConfig) -> Result<(), TrainError> {
    let fail = |message: String| Err(TrainError::Config(message));
    for (name, c) in [("encoder", &config.encoder), ("decoder", &config.decoder)] {
        if c.patch == 0 || c.image == 0 || !c.image.is_multiple_of(c.patch) {
            return fail(format!("model.{name}.image = {} must be a multiple of its patch", c.image));
        }
        if c.heads == 0 || c.hidden == 0 || !c.hidden.is_multiple_of(c.heads) {
            return fail(format!("model.{name}.hidden = {} must be a multiple of its heads", c.hidden));
        }
    }
    if (config.encoder.image, config.encoder.patch) != (config.decoder.image, config.decoder.patch) {
        return fail("model.decoder needs the encoder's image and patch".into());
    }
    if !(1..=config.patches()).contains(&config.visible) {
        return fail(format!("model.visible = {} must lie in 1..={}", config.visible, config.patches()));
    }
    if !(config.noise.is_finite() && config.noise >= 0.0) {
        return fail(format!("model.noise = {} must be 0 or more", config.noise));
    }
    Ok(())
}

impl Learner for MaeLearner {
    fn params(&self) -> &[f32] {
        &self.params.values
    }

    fn params_mut(&mut self) -> &mut [f32] {
        &mut self.params.values
    }

    fn step(&mut self, batch: &Batch, step: u64, grads: &mut [f32]) -> Result<Metrics, TrainError> {
        let frame = 3 * self.config.encoder.image.pow(2);
        self.shards.run(batch.windows.len(), grads, |share| {
            let (model, leaves) = self.params.bind(&self.device, |scope| Mae::build(scope, &self.config))?;
            let frames = &batch.frames[share.start * frame..share.end * frame];
            let masked = Masked::new(&self.config, frames, share.start, self.seed, step);
            let loss = model.loss(masked, &self.device);
            let gradient = leaves.gradients(&loss)?;
            Ok((metrics(loss)?, gradient))
        })
    }

    fn validate(&self, batch: &Batch) -> Result<Metrics, TrainError> {
        let device = self.device.clone().inner();
        let (model, _) = self.params.bind(&device, |scope| Mae::build(scope, &self.config))?;
        metrics(model.loss(Masked::new(&self.config, &batch.frames, 0, self.seed, 0), &device))
    }

    fn tensors(&self) -> Vec<Tensor<'_>> {
        named::tensors(&self.params)
    }

    fn restore(&mut self, tensors: Tensors) -> Result<String, TrainError> {
        named::restore(&mut self.params, tensors, |_| true)
    }

    fn config(&self) -> toml::Table {
        let model = ModelConfig::Mae(self.config.clone());
        toml::Table::try_from(model).unwrap_or_default()
    }
}

fn metrics(loss: burn::tensor::Tensor<1>) -> Result<Metrics, TrainError> {
    Ok(vec![("loss", to_vec(loss.detach())?[0])])
}

/// Writes the encoder of the finished run in `run` to `file` as f16 safetensors under DINOv2's keys.
///
/// # Errors
/// When the run holds no such model or the file cannot be written.
pub fn export_encoder(config: &MaeConfig, run: &Path, file: &Path) -> Result<(), TrainError> {
    let mut params = config.init(0);
    let (tensors, _) = checkpoint::read_tensors(&run.join("model.safetensors"))?;
    named::restore(&mut params, tensors, |_| true)?;
    let tensors = encoder_tensors(config, &params);
    let half = |values: &[f32]| values.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect();
    let bytes: Vec<Vec<u8>> = tensors.iter().map(|(_, _, values)| half(values)).collect();
    let problem = |e: safetensors::SafeTensorError| TrainError::Checkpoint {
        path: file.into(),
        problem: e.to_string(),
    };
    let mut views = Vec::new();
    for ((key, shape, _), bytes) in tensors.into_iter().zip(&bytes) {
        views.push((key, TensorView::new(Dtype::F16, shape, bytes).map_err(problem)?));
    }
    write_atomic(file, &safetensors::serialize(views, None).map_err(problem)?)
}
