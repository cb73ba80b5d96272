//! An encoder that learns together with the policy: compact PLDM's network, with our own kernels before Burn's graph.
//!
//! Its gradient comes from the losses of value and critic and from an actor that regresses on data; where an actor climbs a
//! critic, what it sees is held fixed (`Networks::losses`). Target networks see the present embedding. BatchNorm looks
//! at all frames of a batch together, whatever window they belong to; validation and evaluation use running statistics.

use std::ops::Range;

use worldbench_data::{FrameSpec, Moment, Split, Store};
use worldbench_env::raster::Filter;
use worldbench_models::compact::{CompactEncoder, Encoder, EncoderConfig, EncoderTape, ParamTable, Workers};
use worldbench_nn::{Kind, Params};

use super::TrainedEncoder;
use super::batch::Moments;
use super::load::ENCODER_KEYS;
use super::observations::{Observations, Observed};
use crate::TrainError;
use crate::checkpoint::Tensors;
use crate::compact::{BACKGROUND, RUNNING, encoder_tensors, frame_shape, median_frame};

/// The encoder's layers, and who works on them; its values are among the policy's [`Params`].
pub(super) struct Trained {
    encoder: Encoder,
    workers: Workers,
    /// Whether losses look at successors, and at goals of the value.
    looks_at: [bool; 2],
}

/// What the backward pass needs of a batch.
pub(super) struct Pass {
    pixels: Vec<u8>,
    tape: EncoderTape,
}

impl Trained {
    /// The encoder as it begins; its tensors are declared in `params`.
    pub fn new(
        source: &TrainedEncoder,
        looks_at: [bool; 2],
        (store, split): (&Store, &Split),
        (seed, threads): (u64, usize),
        params: &mut Params,
    ) -> Result<Self, TrainError> {
        let (config, given) = match (&source.checkpoint, &source.size) {
            (Some(directory), _) => {
                encoder_tensors(directory).map(|(config, tensors)| (config, Some(tensors)))?
            }
            (None, Some(size)) => (size.clone(), None),
            (None, None) => {
                return Err(TrainError::Config("model.encoder needs a checkpoint or a size".into()));
            }
        };
        let (mut encoder, table) = CompactEncoder::declare(&config);
        let tensors = match given {
            Some(tensors) => tensors,
            None => fresh(&table, &config, (store, split), seed)?,
        };
        for param in table.params() {
            params.push(&param.name, &param.shape, Kind::Trainable, &values(&tensors, &param.name)?);
        }
        for key in RUNNING {
            params.push(key, &[config.normed()], Kind::Buffer, &values(&tensors, key)?);
        }
        encoder.background = values(&tensors, BACKGROUND)?;
        params.push(BACKGROUND, &frame_shape(&config), Kind::Buffer, &encoder.background);
        let workers = Workers::new(threads).map_err(|e| TrainError::Config(format!("threads: {e}")))?;
        Ok(Self { encoder, workers, looks_at })
    }

    /// Its size.
    pub fn config(&self) -> &EncoderConfig {
        &self.encoder.config
    }

    /// The encoder as it stands in `params`.
    pub fn frozen(&self, params: &Params) -> CompactEncoder {
        let running = params.buffers[self.running(params)].to_vec();
        CompactEncoder::new(self.encoder.clone(), &params.values[self.span(params)], &running)
    }

    /// Takes the background out of `params`, which a checkpoint may have changed.
    pub fn restored(&mut self, params: &Params) {
        if let Some(background) = params.get(BACKGROUND) {
            self.encoder.background = background.to_vec();
        }
    }

    /// Where the encoder stands among the trainable values.
    pub fn span(&self, params: &Params) -> Range<usize> {
        params.group(ENCODER_KEYS)
    }

    fn running(&self, params: &Params) -> Range<usize> {
        let start = params.entry(RUNNING[0]).map_or(0, |entry| entry.range.start);
        start..start + 2 * self.encoder.config.normed()
    }

    /// The moments that losses look at, one after the other.
    pub fn seen(&self, moments: &Moments) -> Vec<Moment> {
        let [next, value] = self.looks_at;
        let rows = moments.windows.len() / moments.actor.len().max(1);
        let mut seen = Vec::new();
        for window in moments.windows.chunks_exact(rows) {
            seen.extend_from_slice(&window[..rows - usize::from(!next)]);
        }
        seen.extend_from_slice(&moments.actor);
        if value {
            seen.extend_from_slice(&moments.value);
        }
        seen
    }

    /// Observations of a batch in training mode; what nothing looks at is zero. Moves the running statistics.
    pub fn forward(
        &self,
        params: &mut Params,
        observations: &Observations,
        moments: &Moments,
    ) -> Result<(Pass, Observed), TrainError> {
        let pixels = observations.pixels(&self.seen(moments))?;
        let (span, running) = (self.span(params), self.running(params));
        let frames = observations.split(&pixels);
        let Params { values, buffers, .. } = params;
        let (tape, z) = self.encoder.forward(&values[span], &mut buffers[running], &frames, &self.workers);
        let observed = self.spread(&z, moments, |moments, z| observations.join(moments, z, 1))?;
        Ok((Pass { pixels, tape }, observed))
    }

    /// Embeddings `z` of what losses look at where [`Moments`] have them, made into something by `join`.
    pub fn spread(
        &self,
        z: &[f32],
        moments: &Moments,
        join: impl Fn(&[Moment], &[f32]) -> Result<Vec<f32>, TrainError>,
    ) -> Result<Observed, TrainError> {
        let [next, value] = self.looks_at;
        let (count, width) = (moments.actor.len(), self.encoder.config.latent);
        let row = moments.windows.len() / count.max(1) * width;
        let seen = row - if next { 0 } else { width };
        let (windows, goals) = z.split_at(count * seen);
        let (actor, values) = goals.split_at(count * width);
        let mut spread = Vec::with_capacity(count * row);
        for window in windows.chunks_exact(seen) {
            let start = spread.len();
            spread.extend_from_slice(window);
            spread.resize(start + row, 0.0);
        }
        let none = vec![0.0; count * width];
        let values = if value { values } else { &none[..] };
        Ok(Observed {
            windows: join(&moments.windows, &spread)?,
            actor: join(&moments.actor, actor)?,
            value: join(&moments.value, values)?,
        })
    }

    /// Gradient of the embeddings of what losses look at, given that of the observations.
    pub fn gather(&self, gradient: &Observed, count: usize) -> Vec<f32> {
        let [next, value] = self.looks_at;
        let (width, latent) = (gradient.actor.len() / count.max(1), self.encoder.config.latent);
        let row = gradient.windows.len() / count.max(1);
        let seen = row - if next { 0 } else { width };
        let windows =
            gradient.windows.chunks_exact(row).flat_map(|window| window[..seen].chunks_exact(width));
        let goals = gradient.actor.chunks_exact(width);
        let values = gradient.value.chunks_exact(width).filter(|_| value);
        windows.chain(goals).chain(values).flat_map(|observation| &observation[..latent]).copied().collect()
    }

    /// Gradient of the encoder's values (overwrites `grads`), given that of the observations.
    pub fn backward(
        &self,
        params: &Params,
        observations: &Observations,
        pass: &Pass,
        (gradient, windows): (&Observed, usize),
        grads: &mut [f32],
    ) {
        let values = &params.values[self.span(params)];
        let (frames, d_z) = (observations.split(&pass.pixels), self.gather(gradient, windows));
        self.encoder.backward(values, &frames, &pass.tape, &d_z, &self.workers, grads);
    }
}

/// Tensors of a fresh encoder that sees what differs from the median frame of the training data.
fn fresh(
    table: &ParamTable,
    config: &EncoderConfig,
    (store, split): (&Store, &Split),
    seed: u64,
) -> Result<Tensors, TrainError> {
    let start = table.init(seed);
    let params = table.params().iter();
    let mut tensors: Tensors =
        params.map(|p| (p.name.clone(), (p.shape.clone(), start[p.range.clone()].to_vec()))).collect();
    for (key, value) in RUNNING.iter().zip([0.0, 1.0]) {
        tensors.insert((*key).into(), (vec![config.normed()], vec![value; config.normed()]));
    }
    let frame = FrameSpec { resolution: config.resolution, filter: Filter::Area };
    tensors.insert(BACKGROUND.into(), (frame_shape(config), median_frame(frame, store, &split.train)?));
    Ok(tensors)
}

fn values(tensors: &Tensors, key: &str) -> Result<Vec<f32>, TrainError> {
    tensors.get(key).map(|(_, values)| values.clone()).ok_or_else(|| TrainError::Checkpoint {
        path: "model.safetensors".into(),
        problem: format!("the encoder that training is to begin with has no {key}"),
    })
}
