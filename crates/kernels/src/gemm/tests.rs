use super::*;
use crate::simd::tests::{same_bits, values};

/// The definition: one fused chain per element, bias, residual.
fn reference(m: usize, k: usize, n: usize, a: &[f32], w: &[f32]) -> Vec<f32> {
    let dot = |i: usize, j: usize| (0..k).fold(0.0, |s, p| a[i * k + p].mul_add(w[p * n + j], s));
    (0..m * n).map(|at| dot(at / n, at % n)).collect()
}

#[test]
fn equals_the_ordered_sum_on_every_path() {
    for (m, k, n) in [(1, 1, 1), (3, 7, 5), (14, 32, 32), (29, 257, 33), (45, 600, 70), (200, 20, 17)] {
        let (a, w) = (values(1, m * k), values(2, k * n));
        let packed = PackedMatrix::from_in_out(&w, k, n);
        let got = same_bits(|| {
            let mut c = vec![f32::NAN; m * n];
            gemm(m, &a, k, &packed, &mut c, n, Epilogue::NONE);
            c
        });
        assert_eq!(got, reference(m, k, n, &a, &w), "{m} {k} {n}");
    }
}

#[test]
fn both_weight_orders_agree() {
    let (k, n) = (37, 45);
    let w = values(3, k * n);
    let turned: Vec<f32> = (0..k * n).map(|i| w[i % k * n + i / k]).collect();
    let (x, y) = (PackedMatrix::from_in_out(&w, k, n), PackedMatrix::from_out_in(&turned, k, n));
    for panel in 0..2 {
        assert_eq!(x.panel(panel, 0), y.panel(panel, 0));
    }
}

#[test]
fn rows_do_not_depend_on_the_batch() {
    let (m, k, n) = (61, 300, 40);
    let (a, w, bias) = (values(4, m * k), values(5, k * n), values(6, n));
    let packed = PackedMatrix::from_in_out(&w, k, n);
    let epilogue = Epilogue::bias(&bias).activate(Activation::Gelu);
    let mut all = vec![0.0; m * n];
    gemm(m, &a, k, &packed, &mut all, n, epilogue);
    for row in [0, 13, 14, 60] {
        let mut one = vec![0.0; n];
        gemm(1, &a[row * k..], k, &packed, &mut one, n, epilogue);
        assert_eq!(one, all[row * n..][..n]);
    }
}

#[test]
fn epilogues_follow_their_definition() {
    let (m, k, n, ldc) = (20, 50, 35, 40);
    let (a, w, bias) = (values(7, m * k), values(8, k * n), values(9, n));
    let (gate, residual) = (values(10, 5 * 64), values(11, m * ldc));
    let packed = PackedMatrix::from_in_out(&w, k, n);
    let sums = reference(m, k, n, &a, &w);
    type Scalar = fn(f64) -> f64;
    let acts: [(Activation, Scalar); 5] = [
        (Activation::Identity, |x| x),
        (Activation::Relu, |x| x.max(0.0)),
        (Activation::Relu6, |x| x.clamp(0.0, 6.0)),
        (Activation::Silu, |x| x / (1.0 + (-x).exp())),
        (Activation::Gelu, crate::math::tests::gelu64),
    ];
    for (activation, f) in acts {
        for kind in 0..3 {
            let epilogue = Epilogue::bias(&bias).activate(activation);
            let epilogue = [epilogue, epilogue.add(), epilogue.gate(&gate, 64, 4)][kind];
            let got = same_bits(|| {
                let mut c = residual.clone();
                gemm(m, &a, k, &packed, &mut c, ldc, epilogue);
                c
            });
            for (at, &got) in got.iter().enumerate() {
                let (i, j) = (at / ldc, at % ldc);
                let r = f64::from(residual[at]);
                let expected = if j >= n {
                    r
                } else {
                    let y = f(f64::from(sums[i * n + j] + bias[j]));
                    [y, r + y, r + y * f64::from(gate[i / 4 * 64 + j])][kind]
                };
                assert!(
                    (f64::from(got) - expected).abs() < 2e-6,
                    "{activation:?} {kind} {at}: {got} {expected}"
                );
            }
        }
    }
}

#[test]
fn blocks_resume_and_transposed_operands_keep_the_sums() {
    let (m, k, n) = (33, 530, 50);
    let (a, w) = (values(12, m * k), values(13, k * n));
    let turned: Vec<f32> = (0..m * k).map(|i| a[i % m * k + i / m]).collect();
    let packed = PackedMatrix::from_in_out(&w, k, n);
    let got = same_bits(|| {
        let mut c = vec![0.0; m * n];
        gemm_block(m, &turned, m, Layout::Transposed, &packed, 0..300, &mut c, n, false, Epilogue::NONE);
        gemm_block(m, &turned, m, Layout::Transposed, &packed, 300..k, &mut c, n, true, Epilogue::NONE);
        c
    });
    assert_eq!(got, reference(m, k, n, &a, &w));
}
