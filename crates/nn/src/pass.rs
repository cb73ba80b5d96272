//! One forward pass: training or evaluation mode, dropout masks, and the state updates it causes.

use burn::tensor::{Tensor, TensorData};
use worldbench_core::Stream;

use crate::params::to_vec;
use crate::{Error, Params};

/// The mode of a forward pass, and what it leaves behind.
///
/// Dropout masks come from a stream keyed by (seed, step, part, call), never from a global generator, so a resumed
/// run draws the same masks.
#[derive(Clone, Debug)]
pub struct Pass {
    train: bool,
    key: [u64; 3],
    calls: u64,
    updates: Vec<(String, Tensor<1>)>,
    counted: Vec<String>,
}

impl Pass {
    /// Evaluation: running statistics, no dropout, no updates.
    #[must_use]
    pub fn eval() -> Self {
        Self { train: false, key: [0; 3], calls: 0, updates: vec![], counted: vec![] }
    }

    /// Training step `step`; `part` numbers the micro-batches of gradient accumulation.
    #[must_use]
    pub fn train(seed: u64, step: u64, part: u64) -> Self {
        Self { train: true, key: [seed, step, part], ..Self::eval() }
    }

    /// Whether this is a training pass.
    #[must_use]
    pub fn is_train(&self) -> bool {
        self.train
    }

    /// Randomness for `purpose` in this pass; always the same in evaluation.
    #[must_use]
    pub fn stream(&self, purpose: &str) -> Stream {
        let [seed, step, part] = self.key;
        Stream::new(seed, purpose, &[step, part])
    }

    /// Zeroes each value with probability `p` and scales the rest by `1/(1-p)`; the identity in evaluation.
    pub fn dropout<const D: usize>(&mut self, x: Tensor<D>, p: f64) -> Tensor<D> {
        if !self.train || p <= 0.0 {
            return x;
        }
        let mut stream = self.stream("dropout").child(&[self.calls]);
        self.calls += 1;
        let shape = x.dims();
        let threshold = (p * f64::from(u32::MAX)) as u32;
        let keep = (1.0 / (1.0 - p)) as f32;
        let len = shape.iter().product();
        let mask: Vec<f32> =
            (0..len).map(|_| if stream.next_u32() < threshold { 0.0 } else { keep }).collect();
        let mask = Tensor::from_data(TensorData::new(mask, shape), &x.device());
        x * mask
    }

    /// Notes the new value of the buffer `key`, to be stored by [`Pass::commit`].
    pub fn update(&mut self, key: String, value: Tensor<1>) {
        self.updates.push((key, value));
    }

    /// Notes that the counter `key` goes up by one.
    pub fn count(&mut self, key: String) {
        self.counted.push(key);
    }

    /// Stores the state updates (running statistics) of this pass.
    ///
    /// # Errors
    /// The device cannot deliver the values, or `params` belongs to another model.
    pub fn commit(self, params: &mut Params) -> Result<(), Error> {
        let missing = |key: &str| Error::Parameter { key: key.to_owned(), problem: "no such buffer".into() };
        for (key, tensor) in self.updates {
            let values = to_vec(tensor)?;
            let target = params.get_mut(&key).ok_or_else(|| missing(&key))?;
            if target.len() != values.len() {
                return Err(missing(&key));
            }
            target.copy_from_slice(&values);
        }
        for key in self.counted {
            let target = params.get_mut(&key).and_then(|v| v.first_mut()).ok_or_else(|| missing(&key))?;
            *target += 1.0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_depend_on_the_key_and_keep_the_mean() {
        let device = crate::device("cpu").unwrap();
        let draw = |pass: &mut Pass| to_vec(pass.dropout(Tensor::<1>::ones([10_000], &device), 0.1)).unwrap();
        let mut pass = Pass::train(3, 5, 0);
        let (a, b) = (draw(&mut pass), draw(&mut pass));
        assert_ne!(a, b);
        assert_eq!(a, draw(&mut Pass::train(3, 5, 0)));
        assert_ne!(a, draw(&mut Pass::train(3, 6, 0)));
        let mean = a.iter().sum::<f32>() / 10_000.0;
        assert!((mean - 1.0).abs() < 0.02, "{mean}");
        assert!(draw(&mut Pass::eval()).iter().all(|&v| v == 1.0));
    }
}
