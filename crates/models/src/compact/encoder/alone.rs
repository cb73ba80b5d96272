//! The encoder trained by somebody else's loss: embeddings of a batch of frames, and the way back from their gradient.

use std::ops::Range;

use super::{BatchNorm, Encoder, Trunk};
use crate::compact::Workers;

/// What [`Encoder::backward`] needs of [`Encoder::forward`].
pub struct EncoderTape {
    parts: Vec<Part>,
    /// Dense features of all frames before BatchNorm, [N, normed].
    dense: Vec<f32>,
    norm: BatchNorm,
    /// Input of the activation before the head; empty without one.
    pre: Vec<f32>,
}

/// The frames of one thread.
struct Part {
    frames: Range<usize>,
    trunk: Trunk,
}

impl Encoder {
    /// Embeddings [N, D] of `frames`, each [R, R, 3] bytes, in training mode: BatchNorm looks at this batch, and `running`,
    /// its mean and variance [2 * normed], moves towards it.
    #[must_use]
    pub fn forward(
        &self,
        params: &[f32],
        running: &mut [f32],
        frames: &[&[u8]],
        workers: &Workers,
    ) -> (EncoderTape, Vec<f32>) {
        let (n, count, width) = (frames.len(), workers.count().min(frames.len()), self.config.normed());
        let mut shares: Vec<_> = (0..count).map(|i| (i * n / count..(i + 1) * n / count, None)).collect();
        workers.each(&mut shares, |(range, trunk)| *trunk = Some(self.trunk(params, &frames[range.clone()])));
        let parts = shares.into_iter().filter_map(|(frames, trunk)| Some(Part { frames, trunk: trunk? }));
        let parts: Vec<Part> = parts.collect();
        let dense = parts.iter().map(|part| &part.trunk.dense[..]).collect::<Vec<_>>().concat();
        let norm = BatchNorm::of(&dense, width);
        let (mean, variance) = running.split_at_mut(width);
        norm.update_running(mean, variance, n);
        let (pre, z) = self.embed(params, &dense, &norm);
        (EncoderTape { parts, dense, norm, pre }, z)
    }

    /// Gradient of the parameters (overwrites `grads`), given that of the embeddings [N, D].
    pub fn backward(
        &self,
        params: &[f32],
        frames: &[&[u8]],
        tape: &EncoderTape,
        d_z: &[f32],
        workers: &Workers,
        grads: &mut [f32],
    ) {
        let EncoderTape { parts, dense, norm, pre } = tape;
        grads.fill(0.0);
        let d_normalised = self.embed_backward(params, dense, norm, pre, d_z, grads);
        let d_dense = norm.backward(dense, &d_normalised);
        let (width, size) = (self.config.normed(), grads.len());
        let mut parts: Vec<_> = parts.iter().map(|part| (part, vec![0.0; size])).collect();
        workers.each(&mut parts, |(part, grads)| {
            let grad = &d_dense[part.frames.start * width..part.frames.end * width];
            self.trunk_backward(params, &frames[part.frames.clone()], &part.trunk, grad, grads);
        });
        for (_, part) in &parts {
            grads.iter_mut().zip(part).for_each(|(sum, g)| *sum += g);
        }
    }
}
