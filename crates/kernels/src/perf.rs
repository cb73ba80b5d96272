//! What the machine can do: the yardstick of the kernels' speed.

use crate::simd::kernel;
use std::hint::black_box;
use std::time::Instant;

/// Independent chains of fused multiply-adds: enough to fill the pipelines of two units.
const CHAINS: usize = 12;

kernel! {
    /// `iterations` rounds of [`CHAINS`] fused multiply-adds that never leave the registers.
    fn chains<V>(iterations: u64, x: f32) -> f32 {
        let (a, b) = (V::splat(x), V::splat(1e-9));
        let mut acc = [a; CHAINS];
        for _ in 0..iterations {
            for y in &mut acc {
                *y = y.mul_add(a, b);
            }
        }
        acc.into_iter().fold(V::zero(), |s, y| s + y).reduce_add()
    }
}

/// Measured f32 limit of the machine in FLOP/s: register-only fused multiply-adds on `threads` threads, each
/// `iterations` rounds of 384 operations (10 million rounds take about 25 ms on a 3 GHz AVX-512 core).
pub fn peak_flops(threads: usize, iterations: u64) -> f64 {
    let threads = threads.max(1);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| black_box(chains(iterations, black_box(0.999_9))));
        }
    });
    let operations = (2 * CHAINS * crate::simd::LANES * threads) as f64 * iterations as f64;
    operations / start.elapsed().as_secs_f64()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_limit_is_a_rate() {
        assert!(super::peak_flops(2, 1000) > 0.0);
    }
}
