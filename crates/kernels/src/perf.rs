//! What the machine can do: the yardstick of the kernels' speed.

use crate::gemm::bf16::{self, Precision, Unit};
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

/// Measured limit of the machine in FLOP/s: register-only multiply-adds on `threads` threads. In f32 each runs
/// `iterations` rounds of 384 operations (10 million rounds take about 25 ms on a 3 GHz AVX-512 core); in bf16 about as
/// long with what its unit offers.
pub fn peak_flops(precision: Precision, threads: usize, iterations: u64) -> f64 {
    let threads = threads.max(1);
    let start = Instant::now();
    let operations = std::thread::scope(|scope| {
        let run = move || match precision {
            Precision::Bf16 if bf16::unit() != Unit::Rounded => bf16::saturate(iterations),
            _ => {
                black_box(chains(iterations, black_box(0.999_9)));
                (2 * CHAINS * crate::simd::LANES) as f64 * iterations as f64
            }
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        // A thread that panicked has done nothing.
        threads.into_iter().map(|t| t.join().unwrap_or(0.0)).sum::<f64>()
    });
    operations / start.elapsed().as_secs_f64()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_limit_is_a_rate() {
        for precision in [super::Precision::F32, super::Precision::Bf16] {
            assert!(super::peak_flops(precision, 2, 1000) > 0.0);
        }
    }
}
