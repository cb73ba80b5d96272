//! AdamW (Loshchilov & Hutter 2019) in one pass, and the squared norm that clipping needs.

use crate::gemm::{load, store};
use crate::simd::{LANES, kernel};

/// Hyper-parameters of AdamW.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate of this step.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the corrected second moment.
    pub eps: f64,
    /// Decoupled weight decay: parameters shrink by `lr * weight_decay`.
    pub weight_decay: f64,
}

impl AdamW {
    /// One step, number `step` (from 1), on a slice of parameters with gradients `grad_scale * grad` and the
    /// moments `m` and `v` (0 before step 1). `grad_scale` carries the clipping factor.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub fn update(
        &self,
        step: u64,
        grad_scale: f32,
        param: &mut [f32],
        grad: &[f32],
        m: &mut [f32],
        v: &mut [f32],
    ) {
        let n = param.len();
        assert!(grad.len() == n && m.len() == n && v.len() == n, "param, grad, m and v differ in length");
        let correction = |beta: f64| 1.0 - beta.powf(step as f64);
        let constants = [
            grad_scale,
            (1.0 - self.lr * self.weight_decay) as f32,
            (1.0 - self.beta1) as f32,
            self.beta2 as f32,
            (1.0 - self.beta2) as f32,
            correction(self.beta2).sqrt() as f32,
            self.eps as f32,
            (-self.lr / correction(self.beta1)) as f32,
        ];
        update(constants, param, grad, m, v);
    }
}

kernel! {
    fn update<V>(constants: [f32; 8], param: &mut [f32], grad: &[f32], m: &mut [f32], v: &mut [f32]) {
        let [scale, decay, rise1, beta2, rise2, root, eps, lr] = constants.map(|c| V::splat(c));
        let moments = m.chunks_mut(LANES).zip(v.chunks_mut(LANES));
        for ((p, g), (m, v)) in param.chunks_mut(LANES).zip(grad.chunks(LANES)).zip(moments) {
            let g = load::<V>(g) * scale;
            let first = rise1.mul_add(g - load(m), load(m));
            let second = (load::<V>(v) * beta2) + rise2 * g * g;
            store(first, m);
            store(second, v);
            let denominator = second.sqrt() / root + eps;
            store((lr * first / denominator) + load::<V>(p) * decay, p);
        }
    }
}

/// Values whose squares are summed in f32 before they join the f64 total.
const BLOCK: usize = 4096;

kernel! {
    fn block_norm<V>(x: &[f32]) -> f32 {
        let mut sum = V::zero();
        for x in x.chunks(LANES) {
            let x = load::<V>(x);
            sum = x.mul_add(x, sum);
        }
        sum.reduce_add()
    }
}

/// Sum of squares in one fixed order: blocks of 4096 values in f32 lanes, their sums in f64.
pub fn squared_norm(x: &[f32]) -> f64 {
    x.chunks(BLOCK).map(|x| f64::from(block_norm(x))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::tests::{same_bits, values};

    #[test]
    fn steps_follow_the_definition() {
        let n = 37;
        let adam = AdamW { lr: 1e-2, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1 };
        let start = values(1, n);
        let got = same_bits(|| {
            let (mut p, mut m, mut v) = (start.clone(), vec![0.0; n], vec![0.0; n]);
            for step in 1..=3 {
                adam.update(step, 0.5, &mut p, &values(1 + step, n), &mut m, &mut v);
            }
            p
        });
        for i in 0..n {
            let (mut p, mut m, mut v) = (f64::from(start[i]), 0.0, 0.0);
            for step in 1..=3 {
                let g = 0.5 * f64::from(values(1 + step, n)[i]);
                p -= adam.lr * adam.weight_decay * p;
                m = 0.9 * m + 0.1 * g;
                v = 0.999 * v + 0.001 * g * g;
                let (m, v) = (m / (1.0 - 0.9f64.powi(step as i32)), v / (1.0 - 0.999f64.powi(step as i32)));
                p -= adam.lr * m / (f64::sqrt(v) + adam.eps);
            }
            assert!((f64::from(got[i]) - p).abs() < 1e-5, "{i}: {} against {p}", got[i]);
        }
    }

    #[test]
    fn norm_is_accurate() {
        let x = values(9, 10_001);
        let expected: f64 = x.iter().map(|&x| f64::from(x).powi(2)).sum();
        assert!((same_bits(|| vec![squared_norm(&x) as f32])[0] as f64 - expected).abs() < 1e-3);
    }
}
