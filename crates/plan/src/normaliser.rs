//! Normalised actions, in which planners search, and the environment's raw ones.

use serde::{Deserialize, Serialize};

use crate::error::PlanError;

/// Z-score of environment actions: `normalised = (raw - mean) / std`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Statistics")]
pub struct ActionNormaliser {
    mean: Vec<f64>,
    std: Vec<f64>,
}

/// Unchecked statistics as read from a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Statistics {
    mean: Vec<f64>,
    std: Vec<f64>,
}

impl TryFrom<Statistics> for ActionNormaliser {
    type Error = PlanError;

    fn try_from(s: Statistics) -> Result<Self, PlanError> {
        Self::new(s.mean, s.std)
    }
}

impl ActionNormaliser {
    /// From the statistics of the data's actions, `[d]` each.
    ///
    /// # Errors
    /// When the lengths differ, or a value is not finite or a deviation not above 0.
    pub fn new(mean: Vec<f64>, std: Vec<f64>) -> Result<Self, PlanError> {
        if mean.len() != std.len() || mean.is_empty() {
            let expected = format!("one per action mean, {}", mean.len().max(1));
            return Err(PlanError::Length { what: "action standard deviation", got: std.len(), expected });
        }
        if mean.iter().any(|m| !m.is_finite()) || std.iter().any(|&s| !(s > 0.0 && s.is_finite())) {
            let problem = format!("must be finite with deviations above 0, not mean {mean:?} std {std:?}");
            return Err(PlanError::config("action statistics", problem));
        }
        Ok(Self { mean, std })
    }

    /// Number of values of an action.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.mean.len()
    }

    /// Normalises raw actions `[.., d]`.
    #[must_use]
    pub fn normalise(&self, raw: &[f64]) -> Vec<f32> {
        self.map(raw.iter().copied(), |x, mean, std| (x - mean) / std).map(|x| x as f32).collect()
    }

    /// Raw actions of normalised ones, `[.., d]`; not clipped to the environment's bounds.
    #[must_use]
    pub fn denormalise(&self, actions: &[f32]) -> Vec<f64> {
        self.map(actions.iter().map(|&x| f64::from(x)), |x, mean, std| x * std + mean).collect()
    }

    fn map<'a>(
        &'a self,
        values: impl Iterator<Item = f64> + 'a,
        f: impl Fn(f64, f64, f64) -> f64 + 'a,
    ) -> impl Iterator<Item = f64> + 'a {
        let statistics = self.mean.iter().zip(&self.std).cycle();
        values.zip(statistics).map(move |(x, (&mean, &std))| f(x, mean, std))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_normalised_per_dimension() {
        let n = ActionNormaliser::new(vec![1.0, -1.0], vec![0.5, 2.0]).unwrap();
        assert_eq!(n.normalise(&[2.0, 3.0, 1.0, -1.0]), [2.0, 2.0, 0.0, 0.0]);
        assert_eq!(n.denormalise(&[2.0, 2.0]), [2.0, 3.0]);
        assert!(ActionNormaliser::new(vec![0.0], vec![0.0]).is_err());
        assert!(ActionNormaliser::new(vec![0.0], vec![1.0, 1.0]).is_err());
        assert!(toml::from_str::<ActionNormaliser>("mean = [0.0]\nstd = [-1.0]").is_err());
        assert_eq!(toml::from_str::<ActionNormaliser>(&toml::to_string(&n).unwrap()).unwrap(), n);
    }
}
