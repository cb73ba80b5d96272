//! One training step on several threads: every thread takes its share of the batch through the whole network.
//!
//! Burn's CPU operations keep two threads half idle, since each is split and joined by itself; shares of the batch
//! meet only once a step. For losses that are means over windows the mean of the shares' gradients is the gradient. Sums
//! stand in the order of the shares, so results depend on the number of threads but on nothing else.

use std::ops::Range;

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::TrainError;

/// Threads that each work through a share of the batch on their own.
pub(crate) struct Shards {
    pools: Vec<ThreadPool>,
    all: ThreadPool,
}

impl Shards {
    /// `threads` shares, at least one.
    pub fn new(threads: usize) -> Result<Self, TrainError> {
        let pool = |count: usize| {
            ThreadPoolBuilder::new()
                .num_threads(count)
                .build()
                .map_err(|e| TrainError::Config(format!("threads: {e}")))
        };
        let threads = threads.max(1);
        let pools = (0..threads).map(|_| pool(1)).collect::<Result<_, _>>()?;
        Ok(Self { pools, all: pool(threads)? })
    }

    /// Runs `step` on every share of `windows`, and averages what comes back (metrics, gradient) by the shares' sizes.
    pub fn run(
        &self,
        windows: usize,
        grads: &mut [f32],
        step: impl Fn(Range<usize>) -> Result<(crate::Metrics, Vec<f32>), TrainError> + Sync,
    ) -> Result<crate::Metrics, TrainError> {
        let count = self.pools.len().min(windows).max(1);
        let share = |i: usize| windows * i / count..windows * (i + 1) / count;
        let work = || {
            let each = (0..count).into_par_iter();
            each.map(|i| self.pools[i].install(|| step(share(i)))).collect::<Vec<_>>()
        };
        let results = self.all.install(work);
        let mut metrics = crate::Metrics::new();
        grads.fill(0.0);
        for (i, result) in results.into_iter().enumerate() {
            let (found, gradient) = result?;
            let weight = share(i).len() as f32 / windows as f32;
            grads.iter_mut().zip(&gradient).for_each(|(sum, g)| *sum += weight * g);
            if i == 0 {
                metrics = found.into_iter().map(|(name, value)| (name, weight * value)).collect();
            } else {
                metrics.iter_mut().zip(found).for_each(|((_, sum), (_, value))| *sum += weight * value);
            }
        }
        Ok(metrics)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_weighted_by_their_size() {
        let shards = Shards::new(3).unwrap();
        let mut grads = vec![9.0; 2];
        let mean = |r: Range<usize>| r.clone().sum::<usize>() as f32 / r.len() as f32;
        let step = |r: Range<usize>| Ok((vec![("loss", mean(r.clone()))], vec![mean(r), 1.0]));
        let metrics = shards.run(8, &mut grads, step).unwrap();
        assert!((metrics[0].1 - 3.5).abs() < 1e-6 && (grads[0] - 3.5).abs() < 1e-6);
        assert!((grads[1] - 1.0).abs() < 1e-6);
    }
}
