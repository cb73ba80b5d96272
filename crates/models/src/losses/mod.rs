//! Training loss terms, each a scalar tensor.

pub mod sigreg;
pub mod vcreg;

use burn::tensor::Tensor;
use worldbench_nn::Error;

/// A training loss and the terms it is made of (unweighted, for the logs).
#[derive(Clone, Debug)]
pub struct Terms {
    /// The weighted sum to differentiate, `[1]`.
    pub total: Tensor<1>,
    /// Every term by name, `[1]` each.
    pub items: Vec<(&'static str, Tensor<1>)>,
}

impl Terms {
    /// Sums `(name, weight, term)`; terms of weight 0 are kept for the logs only.
    #[must_use]
    pub fn weighted(terms: Vec<(&'static str, f64, Tensor<1>)>) -> Self {
        let active = terms.iter().filter(|(_, weight, _)| *weight != 0.0);
        let total = active
            .map(|(_, weight, term)| term.clone() * *weight)
            .reduce(|a, b| a + b)
            .unwrap_or_else(|| Tensor::zeros([1], &terms[0].2.device()));
        Self { total, items: terms.into_iter().map(|(name, _, term)| (name, term)).collect() }
    }

    /// Both losses together: the totals are added.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.items.extend(other.items);
        Self { total: self.total + other.total, items: self.items }
    }

    /// The numbers: `loss` (the total) first, then every term.
    ///
    /// # Errors
    /// The device cannot deliver them.
    pub fn metrics(&self) -> Result<Vec<(&'static str, f64)>, Error> {
        let all = std::iter::once(("loss", &self.total)).chain(self.items.iter().map(|(n, t)| (*n, t)));
        all.map(|(name, term)| {
            let value = worldbench_nn::params::to_vec(term.clone().detach())?;
            Ok((name, value.first().map_or(f64::NAN, |&v| f64::from(v))))
        })
        .collect()
    }
}

/// Mean squared difference over all elements.
#[must_use]
pub fn mse<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> Tensor<1> {
    let difference = a - b;
    (difference.clone() * difference).mean()
}
