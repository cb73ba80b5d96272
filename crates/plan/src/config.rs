//! Solver configuration: one table whose `kind` names the solver.

use serde::{Deserialize, Serialize};

use crate::cem::Cem;
use crate::error::PlanError;
use crate::gradient::Gradient;
use crate::icem::Icem;
use crate::mppi::Mppi;
use crate::mppi_pldm::MppiPldm;
use crate::predictive::PredictiveSampling;
use crate::solver::Solver;

/// A solver with its parameters, e.g. `kind = "cem"`, `samples = 300`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum SolverConfig {
    /// Cross-entropy method.
    Cem(Cem),
    /// Path integral control with elites.
    Mppi(Mppi),
    /// Improved cross-entropy method.
    Icem(Icem),
    /// Best of one round of samples.
    PredictiveSampling(PredictiveSampling),
    /// Path integral control as in the original PLDM.
    MppiPldm(MppiPldm),
    /// Gradient descent.
    Gradient(Gradient),
}

impl Default for SolverConfig {
    fn default() -> Self {
        Self::Cem(Cem::default())
    }
}

impl SolverConfig {
    /// Checks the values and makes the solver.
    ///
    /// # Errors
    /// [`PlanError::Config`] naming the first key that is out of range.
    pub fn build(&self) -> Result<Box<dyn Solver>, PlanError> {
        match self {
            Self::Cem(c) => c.validate().map(|()| Box::new(c.clone()) as Box<dyn Solver>),
            Self::Mppi(c) => c.validate().map(|()| Box::new(c.clone()) as Box<dyn Solver>),
            Self::Icem(c) => c.validate().map(|()| Box::new(c.clone()) as Box<dyn Solver>),
            Self::PredictiveSampling(c) => c.validate().map(|()| Box::new(c.clone()) as Box<dyn Solver>),
            Self::MppiPldm(c) => c.validate().map(|()| Box::new(c.clone()) as Box<dyn Solver>),
            Self::Gradient(c) => c.validate().map(|()| Box::new(c.clone()) as Box<dyn Solver>),
        }
    }
}

/// Number of elites: a count or `"all"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "topk must be a number of samples or \"all\"")]
pub enum TopK {
    /// This many; all where there are fewer samples.
    Count(usize),
    /// Every sample.
    #[serde(with = "all")]
    All,
}

impl TopK {
    /// The number of elites among `samples`.
    #[must_use]
    pub fn of(self, samples: usize) -> usize {
        match self {
            Self::Count(k) => k.min(samples),
            Self::All => samples,
        }
    }
}

/// The word `"all"`.
mod all {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("all")
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "all" => Ok(()),
            other => Err(D::Error::custom(format!("expected \"all\", not {other:?}"))),
        }
    }
}

pub(crate) fn check_count(key: &'static str, value: usize) -> Result<(), PlanError> {
    if value == 0 { Err(PlanError::config(key, "must be at least 1, not 0")) } else { Ok(()) }
}

/// Candidates of an iteration, and iterations of a plan: far more than any planner gains by, and few enough that a slip of
/// the finger neither fills the memory nor plans for days.
const MOST_SAMPLES: usize = 1_000_000;
const MOST_ITERATIONS: usize = 100_000;

pub(crate) fn check_samples(samples: usize) -> Result<(), PlanError> {
    check_within("samples", samples, MOST_SAMPLES)
}

pub(crate) fn check_iterations(iterations: usize) -> Result<(), PlanError> {
    check_within("iterations", iterations, MOST_ITERATIONS)
}

pub(crate) fn check_within(key: &'static str, value: usize, most: usize) -> Result<(), PlanError> {
    if (1..=most).contains(&value) {
        return Ok(());
    }
    Err(PlanError::config(key, format!("must lie in 1..={most}, not {value}")))
}

pub(crate) fn check_positive(key: &'static str, value: f32) -> Result<(), PlanError> {
    if value > 0.0 && value.is_finite() {
        return Ok(());
    }
    Err(PlanError::config(key, format!("must be above 0 and finite, not {value}")))
}

/// Elites whose standard deviation is fitted: at least two, at most all samples.
pub(crate) fn check_topk(topk: usize, samples: usize) -> Result<(), PlanError> {
    if (2..=samples).contains(&topk) {
        return Ok(());
    }
    Err(PlanError::config("topk", format!("must lie in 2..={samples} (the key `samples`), not {topk}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::solver::Shape;

    fn parse(text: &str) -> SolverConfig {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn every_kind_builds_with_its_defaults() {
        for kind in ["cem", "mppi", "icem", "predictive-sampling", "mppi-pldm", "gradient"] {
            let config = parse(&format!("kind = \"{kind}\""));
            assert_eq!(config.build().unwrap().name(), kind);
            let text = toml::to_string(&config).unwrap();
            assert_eq!(parse(&text), config, "{text}");
        }
    }

    #[test]
    fn topk_may_be_all() {
        let SolverConfig::Mppi(mppi) = parse("kind = \"mppi\"\ntopk = \"all\"") else { panic!() };
        assert_eq!(mppi.topk.of(300), 300);
        assert!(toml::from_str::<SolverConfig>("kind = \"mppi\"\ntopk = \"some\"").is_err());
    }

    #[test]
    fn errors_name_the_key() {
        for (text, key) in [
            ("kind = \"cem\"\ntopk = 301", "topk"),
            ("kind = \"cem\"\nsamples = 0", "samples"),
            ("kind = \"mppi\"\nsamples = 100000000000", "samples"),
            ("kind = \"gradient\"\niterations = 1000000", "iterations"),
            ("kind = \"cem\"\nvar_scale = 0.0", "var_scale"),
            ("kind = \"mppi\"\ntemperature = -1.0", "temperature"),
            ("kind = \"icem\"\nalpha = 1.5", "alpha"),
            ("kind = \"icem\"\nlow = [1.0]\nhigh = [0.0]", "high"),
            ("kind = \"mppi-pldm\"\nlambda = 0.0", "lambda"),
            ("kind = \"gradient\"\noptimizer = \"sgd\"", "weight_decay"),
        ] {
            let message = parse(text).build().unwrap_err().to_string();
            assert!(message.contains(&format!("`{key}`")), "{message}");
        }
        let unknown = toml::from_str::<SolverConfig>("kind = \"cem\"\nsampels = 3").unwrap_err().to_string();
        assert!(unknown.contains("sampels"), "{unknown}");
    }

    #[test]
    fn candidates_that_would_fill_the_memory_are_refused() {
        let solver = parse("kind = \"cem\"\nsamples = 1000000").build().unwrap();
        let mut cost = |_: Shape, _: &[f32], _: &mut [f32]| panic!("nothing is to be evaluated");
        let stream = worldbench_core::Stream::new(0, "config", &[]);
        let shape = Shape { horizon: 1000, dim: 10 };
        let message = solver.solve(shape, &mut cost, None, &stream).unwrap_err().to_string();
        assert!(message.contains("`samples` must be at most 26843"), "{message}");
    }
}
