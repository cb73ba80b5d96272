//! Learning-rate schedules, evaluated per optimiser step in f64.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// Shape of the learning rate over a run of known length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Linear from 0 over `max(1, floor(0.01 K))` steps, then half a cosine to 0.
    WarmupCosine,
    /// Half a cosine from the base rate to 0.
    Cosine,
    /// The base rate throughout.
    Constant,
}

impl Schedule {
    /// The rate in force for optimiser step `step` (from 0) of `total`.
    #[must_use]
    pub fn rate(self, base: f64, step: u64, total: u64) -> f64 {
        let cosine =
            |step: u64, total: u64| 0.5 * base * (1.0 + (PI * step as f64 / total.max(1) as f64).cos());
        match self {
            Self::Constant => base,
            Self::Cosine => cosine(step, total),
            Self::WarmupCosine => {
                let warmup = warmup_steps(total);
                if step < warmup {
                    base * step as f64 / warmup as f64
                } else {
                    cosine(step - warmup, total.saturating_sub(warmup))
                }
            }
        }
    }
}

/// Number of warm-up steps of [`Schedule::WarmupCosine`] in a run of `total` steps.
#[must_use]
pub fn warmup_steps(total: u64) -> u64 {
    (total / 100).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warmup_starts_at_zero_peaks_and_ends_at_zero() {
        let rate = |step| Schedule::WarmupCosine.rate(2.0, step, 1000);
        assert_eq!((rate(0), rate(5), rate(10)), (0.0, 1.0, 2.0));
        assert!(rate(1000).abs() < 1e-15);
        assert_eq!(Schedule::Cosine.rate(2.0, 0, 10), 2.0);
    }
}
