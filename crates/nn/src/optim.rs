//! AdamW on flat parameter slices (Loshchilov and Hutter 2019), with clipping by the global norm.
//!
//! The order of operations is PyTorch's, in f32: decay the parameter, update both moments, then step. Everything
//! is element-wise, so threads change nothing; the norm is summed in f64 over fixed chunks.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::Error;

/// Values per parallel work item.
const CHUNK: usize = 1 << 16;

/// Settings of [`AdamW`] other than the learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamWConfig {
    /// Decay of the first moment, in [0, 1).
    pub beta1: f64,
    /// Decay of the second moment, in [0, 1).
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay, applied to all parameters.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 1e-3 }
    }
}

/// AdamW and its state. Each instance owns a slice of the parameters of fixed length.
#[derive(Clone, Debug, PartialEq)]
pub struct AdamW {
    /// The settings.
    pub config: AdamWConfig,
    /// First moments.
    m: Vec<f32>,
    /// Second moments.
    v: Vec<f32>,
    step: u64,
}

impl AdamW {
    /// A fresh optimiser for `len` parameters.
    #[must_use]
    pub fn new(len: usize, config: AdamWConfig) -> Self {
        Self { config, m: vec![0.0; len], v: vec![0.0; len], step: 0 }
    }

    /// Continues from an exported state.
    ///
    /// # Errors
    /// The moments have different lengths.
    pub fn restore(config: AdamWConfig, m: Vec<f32>, v: Vec<f32>, step: u64) -> Result<Self, Error> {
        if m.len() != v.len() {
            return Err(Error::State { expected: m.len(), found: v.len() });
        }
        Ok(Self { config, m, v, step })
    }

    /// The state to export: first moments, second moments, number of steps done.
    #[must_use]
    pub fn state(&self) -> (&[f32], &[f32], u64) {
        (&self.m, &self.v, self.step)
    }

    /// One step with learning rate `rate` on `params`, with every gradient multiplied by `scale`, the factor from
    /// [`clip_factor`].
    ///
    /// # Errors
    /// `params` or `gradients` have another length than the state.
    pub fn step(
        &mut self,
        params: &mut [f32],
        gradients: &[f32],
        rate: f64,
        scale: f32,
    ) -> Result<(), Error> {
        for found in [params.len(), gradients.len()] {
            if found != self.m.len() {
                return Err(Error::State { expected: self.m.len(), found });
            }
        }
        self.step += 1;
        let AdamWConfig { beta1, beta2, eps, weight_decay } = self.config;
        let exponent = self.step.min(i32::MAX as u64) as i32;
        let decay = (1.0 - rate * weight_decay) as f32;
        let size = (rate / (1.0 - beta1.powi(exponent))) as f32;
        let root = (1.0 - beta2.powi(exponent)).sqrt() as f32;
        let (mix1, keep2, mix2, eps) = ((1.0 - beta1) as f32, beta2 as f32, (1.0 - beta2) as f32, eps as f32);
        let moments = self.m.par_chunks_mut(CHUNK).zip(self.v.par_chunks_mut(CHUNK));
        let work = params.par_chunks_mut(CHUNK).zip(gradients.par_chunks(CHUNK)).zip(moments);
        work.for_each(|((p, g), (m, v))| {
            for (((p, g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
                let g = g * scale;
                *m += (g - *m) * mix1;
                *v = *v * keep2 + mix2 * (g * g);
                *p = *p * decay - size * (*m / (v.sqrt() / root + eps));
            }
        });
        Ok(())
    }
}

/// Euclidean norm of all gradients together.
#[must_use]
pub fn global_norm(gradients: &[f32]) -> f64 {
    let parts: Vec<f64> = gradients
        .par_chunks(CHUNK)
        .map(|part| part.iter().map(|&g| f64::from(g) * f64::from(g)).sum())
        .collect();
    parts.iter().sum::<f64>().sqrt()
}

/// The factor that brings gradients of norm `norm` to at most `max_norm`: `min(1, max_norm / (norm + 1e-6))`.
#[must_use]
pub fn clip_factor(norm: f64, max_norm: f64) -> f32 {
    (max_norm / (norm + 1e-6)).min(1.0) as f32
}

/// Moves `target` towards `online` by the exponential moving average with rate `rate` in [0, 1]:
/// `target = (1 - rate) target + rate online`. Values beyond the shorter of the two stay.
pub fn ema(target: &mut [f32], online: &[f32], rate: f64) {
    let (keep, rate) = ((1.0 - rate) as f32, rate as f32);
    target.par_chunks_mut(CHUNK).zip(online.par_chunks(CHUNK)).for_each(|(target, online)| {
        for (t, o) in target.iter_mut().zip(online) {
            *t = *t * keep + o * rate;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resume_is_bit_identical() {
        let gradients: Vec<f32> = (0..1000).map(|i| (i as f32 * 0.37).sin()).collect();
        let mut params = vec![1.0f32; 1000];
        let mut adam = AdamW::new(1000, AdamWConfig::default());
        adam.step(&mut params, &gradients, 1e-3, 0.5).unwrap();
        let (m, v, step) = adam.state();
        let mut resumed = AdamW::restore(adam.config, m.to_vec(), v.to_vec(), step).unwrap();
        let mut copy = params.clone();
        adam.step(&mut params, &gradients, 1e-3, 0.5).unwrap();
        resumed.step(&mut copy, &gradients, 1e-3, 0.5).unwrap();
        assert_eq!(params, copy);
        assert_eq!(adam, resumed);
        assert!(adam.step(&mut params, &gradients[1..], 1e-3, 1.0).is_err());
    }

    #[test]
    fn clipping_caps_the_norm() {
        let gradients = vec![3.0f32, 4.0];
        assert_eq!(global_norm(&gradients), 5.0);
        assert!((clip_factor(5.0, 1.0) - 0.2).abs() < 1e-6);
        assert_eq!(clip_factor(0.5, 1.0), 1.0);
    }
}
