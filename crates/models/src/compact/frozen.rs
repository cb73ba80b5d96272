//! The encoder of a trained compact model by itself: made ready for inference, and a frozen encoder for other models.

use sha2::{Digest, Sha256};
use worldbench_kernels::gemm::{Activation, Epilogue, PackedMatrix, gemm};
use worldbench_kernels::par_rows_mut;

use super::encoder::{Encoder, EncoderConfig, Packed};
use super::params::{Linear, ParamTable};
use crate::encoders::{self, FrozenEncoder, check_frames};
use crate::state_dict::hash_values;

/// Frames encoded at a time.
const CHUNK: usize = 8;

/// A packed dense layer.
#[derive(Debug)]
pub(super) struct Dense {
    pub weight: PackedMatrix,
    bias: Vec<f32>,
}

impl Dense {
    pub fn new(params: &[f32], layer: &Linear) -> Self {
        Self {
            weight: PackedMatrix::from_in_out(&params[layer.weight.clone()], layer.inputs, layer.outputs),
            bias: params[layer.bias.clone()].to_vec(),
        }
    }

    /// `norm(x W + b)` with running statistics is a dense layer with other weights.
    fn with_norm(encoder: &Encoder, params: &[f32], running: &[f32]) -> Self {
        let layer = &encoder.dense;
        let (mean, variance) = running.split_at(layer.outputs);
        let (gamma, beta) = (&params[encoder.norm.weight.clone()], &params[encoder.norm.bias.clone()]);
        let scale: Vec<f32> = gamma.iter().zip(variance).map(|(g, v)| g / (v + 1e-5).sqrt()).collect();
        let mut weight = params[layer.weight.clone()].to_vec();
        for row in weight.chunks_exact_mut(layer.outputs) {
            row.iter_mut().zip(&scale).for_each(|(w, s)| *w *= s);
        }
        let bias = params[layer.bias.clone()].iter().zip(mean).zip(&scale).zip(beta);
        let bias = bias.map(|(((b, m), s), beta)| (b - m) * s + beta).collect();
        Self { weight: PackedMatrix::from_in_out(&weight, layer.inputs, layer.outputs), bias }
    }

    pub fn apply(&self, x: &[f32], out: &mut Vec<f32>, activation: Activation) {
        let (k, n) = (self.weight.k(), self.weight.n());
        let rows = x.len() / k;
        out.resize(rows * n, 0.0);
        gemm(rows, x, k, &self.weight, out, n, Epilogue::bias(&self.bias).activate(activation));
    }

    pub fn add(&self, x: &[f32], out: &mut [f32]) {
        let (k, n) = (self.weight.k(), self.weight.n());
        gemm(x.len() / k, x, k, &self.weight, out, n, Epilogue::bias(&self.bias).add());
    }
}

/// The encoder of a compact PLDM or LeWM: a frame of 64 pixels (as a rule) to one embedding of 12 numbers.
pub struct CompactEncoder {
    encoder: Encoder,
    trunk: Packed,
    /// With BatchNorm folded in.
    dense: Dense,
    head: Option<Dense>,
    fingerprint: String,
}

impl std::fmt::Debug for CompactEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CompactEncoder").field("config", &self.encoder.config).finish_non_exhaustive()
    }
}

impl CompactEncoder {
    /// Packs `encoder` with its `params`, which may be those of a whole model. `running` holds the BatchNorm mean and
    /// variance, [2 * normed].
    #[must_use]
    pub fn new(encoder: Encoder, params: &[f32], running: &[f32]) -> Self {
        // The encoder's parameters are the first of every model that holds it.
        let own = Self::declare(&encoder.config).1.len();
        let mut hash = Sha256::new();
        hash.update(format!("compact {:?}", encoder.config));
        for values in [&params[..own], running, &encoder.background[..]] {
            hash_values(&mut hash, values);
        }
        Self {
            trunk: encoder.pack(params),
            dense: Dense::with_norm(&encoder, params, running),
            head: encoder.head.as_ref().map(|layer| Dense::new(params, layer)),
            fingerprint: format!("{:x}", hash.finalize()),
            encoder,
        }
    }

    /// Lays out an encoder alone: its layers, and the names, shapes and places of their parameters.
    #[must_use]
    pub fn declare(config: &EncoderConfig) -> (Encoder, ParamTable) {
        let mut table = ParamTable::default();
        (Encoder::declare(&mut table, config), table)
    }

    /// Its size.
    #[must_use]
    pub fn config(&self) -> &EncoderConfig {
        &self.encoder.config
    }

    /// Embeddings [N, D] of frames, each [R, R, 3] bytes.
    #[must_use]
    pub fn embed(&self, frames: &[&[u8]]) -> Vec<f32> {
        let mut z = Vec::with_capacity(frames.len() * self.encoder.config.latent);
        let (mut a, mut b) = (vec![], vec![]);
        for chunk in frames.chunks(CHUNK) {
            let features = self.encoder.features(&self.trunk, chunk);
            match &self.head {
                Some(head) => {
                    self.dense.apply(&features, &mut b, Activation::Gelu);
                    head.apply(&b, &mut a, Activation::Identity);
                }
                None => self.dense.apply(&features, &mut a, Activation::Identity),
            }
            z.extend_from_slice(&a);
        }
        z
    }
}

impl FrozenEncoder for CompactEncoder {
    fn name(&self) -> &str {
        "compact"
    }

    fn image_size(&self) -> usize {
        self.encoder.config.resolution
    }

    fn area_filter(&self) -> bool {
        true
    }

    fn tokens(&self) -> usize {
        1
    }

    fn width(&self) -> usize {
        self.encoder.config.latent
    }

    fn encode(&self, frames: &[&[u8]], out: &mut [f32]) -> Result<(), encoders::Error> {
        check_frames(self, frames, out)?;
        let width = self.width();
        par_rows_mut(out, frames.len(), width, |rows, out| out.copy_from_slice(&self.embed(&frames[rows])));
        Ok(())
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}
