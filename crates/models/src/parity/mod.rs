//! Comparison of models with the numbers of the PyTorch reference.
//!
//! Every fixture is a safetensors file of inputs, weights and expected values beside a table of tolerances. Where it
//! holds a float64 twin of an expected value (`out64.*`), that is the truth.

pub(crate) mod dino_wm;
mod encoders;
mod gcrl;
mod pldm;

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Device, Tensor};
use serde::Deserialize;
use worldbench_nn::Params;
use worldbench_nn::params::{from_vec, to_vec};
use worldbench_nn::weights::{self, Array, Arrays};
pub use worldbench_plan::parity::Item;

use crate::losses::Terms;

/// What keeps the checks from running at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A network operation or the weight file failed.
    #[error(transparent)]
    Nn(#[from] worldbench_nn::Error),
    /// A JSON file is missing or malformed.
    #[error("{path}: {problem}; copy it again from the fixtures")]
    File {
        /// The file.
        path: String,
        /// Why.
        problem: String,
    },
    /// The fixture lacks a tensor.
    #[error("{file}.safetensors has no tensor `{key}`; copy it again from the fixtures")]
    Missing {
        /// Name of the fixture.
        file: &'static str,
        /// The tensor.
        key: String,
    },
    /// An encoder could not be built.
    #[error(transparent)]
    Encoder(#[from] crate::encoders::Error),
    /// The weight file of an encoder is damaged or does not fit.
    #[error(transparent)]
    StateDict(#[from] crate::state_dict::Error),
}

/// A subject of the fixtures: its name, and all its checks on a directory and a device (with differentiation). A
/// missing or unreadable file is an error, a wrong number an [`Item`] that is not ok.
pub type Subject = (&'static str, fn(&Path, &Device) -> Result<Vec<Item>, Error>);

/// What can be compared.
pub const SUBJECTS: [Subject; 6] = [
    ("pldm", pldm::check),
    ("dino-wm", dino_wm::check),
    ("goal-conditioned", gcrl::check),
    ("image preprocessing", encoders::preprocessing),
    ("dinov2 tiny", encoders::dinov2_tiny),
    ("dinov2 small", encoders::dinov2_small),
];

#[derive(Deserialize)]
struct Tolerance {
    tolerance: f64,
}

fn json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let fail = |problem: String| Error::File { path: path.display().to_string(), problem };
    let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
    serde_json::from_str(&text).map_err(|e| fail(e.to_string()))
}

/// Largest absolute difference, infinite when the lengths differ or a difference is not a number.
fn max_error(found: &[f32], expected: &[f64]) -> f64 {
    if found.len() != expected.len() {
        return f64::INFINITY;
    }
    let differences = found.iter().zip(expected).map(|(&a, &b)| (f64::from(a) - b).abs());
    differences.fold(0.0, |max, d| if d.is_nan() { f64::INFINITY } else { max.max(d) })
}

/// A fixture file and what was found by it.
struct Fixture {
    name: &'static str,
    arrays: Arrays,
    tolerances: BTreeMap<String, Tolerance>,
    device: Device,
    items: Vec<Item>,
}

impl Fixture {
    fn open(directory: &Path, name: &'static str, device: &Device) -> Result<Self, Error> {
        Ok(Self {
            name,
            arrays: weights::read(&directory.join(format!("{name}.safetensors")))?,
            tolerances: json(&directory.join(format!("{name}.tol.json")))?,
            device: device.clone(),
            items: Vec::new(),
        })
    }

    fn missing(&self, key: String) -> Error {
        Error::Missing { file: self.name, key }
    }

    fn array(&self, key: &str) -> Result<&Array, Error> {
        self.arrays.get(key).ok_or_else(|| self.missing(key.to_owned()))
    }

    fn tensor<const D: usize>(&self, key: &str) -> Result<Tensor<D>, Error> {
        let array = self.array(key)?;
        let shape = <[usize; D]>::try_from(array.shape.as_slice())
            .map_err(|_| self.missing(format!("{key} of rank {D}")))?;
        Ok(from_vec(array.f32(), shape, &self.device))
    }

    fn compare(&mut self, name: &str, found: &[f32]) -> Result<(), Error> {
        let twin = name.strip_prefix("out.").map(|rest| format!("out64.{rest}"));
        let truth = twin.and_then(|key| self.arrays.get(&key)).map_or_else(|| self.array(name), Ok)?;
        let max_error = max_error(found, &truth.values);
        // Expected values without a tolerance are integers, which must be exact.
        let tolerance = self.tolerances.get(name).map_or(0.0, |t| t.tolerance);
        self.items.push(Item { name: name.to_owned(), max_error, tolerance });
        Ok(())
    }

    fn compare_tensor<const D: usize>(&mut self, name: &str, found: Tensor<D>) -> Result<(), Error> {
        let values = to_vec(found)?;
        self.compare(name, &values)
    }

    /// Compares the gradients of all parameters for which the fixture has `{prefix}{key}`; a parameter without an
    /// entry is left out.
    fn compare_gradients(&mut self, prefix: &str, params: &Params, flat: &[f32]) -> Result<(), Error> {
        for entry in params.entries() {
            let name = format!("{prefix}{}", entry.key);
            if self.arrays.contains_key(&name) {
                self.compare(&name, &flat[entry.range.clone()])?;
            }
        }
        Ok(())
    }

    fn compare_terms(&mut self, prefix: &str, terms: &Terms) -> Result<(), Error> {
        for (name, value) in terms.metrics()? {
            self.compare(&format!("{prefix}{name}"), &[value as f32])?;
        }
        Ok(())
    }

    /// Replaces the values of `params` by the fixture's weights, which are the tensors that are nothing else and not
    /// `ignored`.
    fn load(&self, mut params: Params, ignored: impl Fn(&str) -> bool) -> Result<Params, Error> {
        let prefixes = ["in.", "out.", "out64.", "grad", "delta_", "aux."];
        let weight = |key: &str| !prefixes.iter().any(|p| key.starts_with(p)) && !ignored(key);
        let plain = self.arrays.iter().filter(|(key, _)| weight(key));
        let plain: Arrays = plain.map(|(key, array)| (key.clone(), array.clone())).collect();
        let path = format!("{}.safetensors", self.name);
        weights::load_arrays(Path::new(&path), &plain, &mut params, |_| true)?;
        Ok(params)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_the_reference_is_met() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models");
        let device = worldbench_nn::device("cpu").unwrap();
        for (subject, check) in SUBJECTS {
            let items = check(&directory, &device).unwrap();
            let misses: Vec<&Item> = items.iter().filter(|i| !i.ok()).collect();
            let worst = items.iter().map(|i| i.max_error / i.tolerance.max(1e-300)).fold(0.0, f64::max);
            println!("{subject}: {} items, worst use of a tolerance {worst:.2}", items.len());
            assert!(misses.is_empty(), "{misses:#?}");
            let file = match subject {
                "pldm" => "pldm",
                "dino-wm" => dino_wm::FILE,
                "goal-conditioned" => gcrl::FILE,
                // The repository holds a part of the encoders' fixtures.
                _ => continue,
            };
            let expected: BTreeMap<String, Tolerance> =
                json(&directory.join(format!("{file}.tol.json"))).unwrap();
            let unchecked: Vec<_> =
                expected.keys().filter(|key| !items.iter().any(|i| &i.name == *key)).collect();
            assert!(unchecked.is_empty(), "{subject}: {unchecked:?}");
        }
    }

    #[test]
    fn a_missing_directory_is_named() {
        let device = worldbench_nn::device("cpu").unwrap();
        let error = pldm::check(Path::new("nowhere"), &device).unwrap_err().to_string();
        assert!(error.contains("nowhere"), "{error}");
    }
}
