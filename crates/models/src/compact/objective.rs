//! Training objective of the compact models: values and hand-derived gradients.
//!
//! Embeddings are time-major, `z[t][b][d]`. The terms are those of `losses::vcreg` and `losses::sigreg` (PLDM,
//! arXiv 2502.14819; LeWM), written with their gradients. The tests hold every gradient against finite differences.

use serde::{Deserialize, Serialize};
use worldbench_core::Stream;

/// What keeps the embedding from collapsing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weights {
    /// Weight of the one-step prediction error from encoded frames (teacher forcing).
    pub teacher_forcing: f32,
    /// Weight of the prediction error along the open-loop rollout from the first frame.
    pub rollout: f32,
    /// PLDM: hinge on the standard deviation over the batch.
    pub std: f32,
    /// PLDM: hinge on the standard deviation over time.
    pub std_t: f32,
    /// PLDM: off-diagonal covariance over the batch.
    pub cov: f32,
    /// PLDM: squared difference of consecutive embeddings.
    pub temporal: f32,
    /// LeWM: sketched isotropic Gaussian regulariser.
    pub sigreg: f32,
    /// Inverse dynamics: error of the block-mean action predicted from two consecutive embeddings.
    pub idm: f32,
}

/// Shape of a time-major embedding.
#[derive(Clone, Copy, Debug)]
pub struct Dims {
    /// Frames of a window.
    pub t: usize,
    /// Windows of the batch.
    pub b: usize,
    /// Embedding width.
    pub d: usize,
}

/// VCReg with its gradient. `grad` is added to; returns (std, std_t, cov), unweighted.
pub fn vcreg(z: &[f32], dims: Dims, weights: &Weights, grad: &mut [f32]) -> (f32, f32, f32) {
    let Dims { t, b, d } = dims;
    let mut centred = z.to_vec(); // [T, B, D]
    for frame in centred.chunks_exact_mut(b * d) {
        centre_columns(frame, d);
    }
    let (mut std, mut cov) = (0.0, 0.0);
    for (frame, grad) in centred.chunks_exact(b * d).zip(grad.chunks_exact_mut(b * d)) {
        std += std_batch(frame, dims, weights.std, grad);
        cov += covariance(frame, dims, weights.cov, grad);
    }
    let std_t = std_time(&centred, dims, weights.std_t, grad);
    (std / t as f32, std_t, cov / t as f32)
}

fn centre_columns(frame: &mut [f32], d: usize) {
    let b = frame.len() / d;
    for j in 0..d {
        let mean = frame.iter().skip(j).step_by(d).sum::<f32>() / b as f32;
        frame.iter_mut().skip(j).step_by(d).for_each(|v| *v -= mean);
    }
}

/// mean_d relu(1 - sqrt(Var_b + 1e-4)) of one time step, unbiased variance.
fn std_batch(centred: &[f32], dims: Dims, weight: f32, grad: &mut [f32]) -> f32 {
    let Dims { t, b, d } = dims;
    let mut loss = 0.0;
    for j in 0..d {
        let sum: f32 = centred.iter().skip(j).step_by(d).map(|v| v * v).sum();
        let std = (sum / (b - 1) as f32 + 1e-4).sqrt();
        if std < 1.0 {
            loss += 1.0 - std;
            let scale = weight / ((t * d) as f32 * (b - 1) as f32 * std);
            for (g, v) in grad.iter_mut().skip(j).step_by(d).zip(centred.iter().skip(j).step_by(d)) {
                *g -= scale * v;
            }
        }
    }
    loss / d as f32
}

/// Off-diagonal squared covariance of one time step, divided by D^2 - D.
fn covariance(centred: &[f32], dims: Dims, weight: f32, grad: &mut [f32]) -> f32 {
    let Dims { t, b, d } = dims;
    let mut c = vec![0.0f32; d * d];
    for row in centred.chunks_exact(d) {
        for (i, &x) in row.iter().enumerate() {
            for (slot, &y) in c[i * d..(i + 1) * d].iter_mut().zip(row) {
                *slot += x * y;
            }
        }
    }
    let norm = 1.0 / (b - 1) as f32;
    c.iter_mut().for_each(|v| *v *= norm);
    (0..d).for_each(|i| c[i * d + i] = 0.0);
    let pairs = (d * d - d).max(1) as f32;
    let scale = 4.0 * weight * norm / (pairs * t as f32);
    for (row, grad) in centred.chunks_exact(d).zip(grad.chunks_exact_mut(d)) {
        for (i, &x) in row.iter().enumerate() {
            let scaled = scale * x;
            for (g, &cij) in grad.iter_mut().zip(&c[i * d..(i + 1) * d]) {
                *g += scaled * cij;
            }
        }
    }
    c.iter().map(|v| v * v).sum::<f32>() / pairs
}

/// mean_b mean_d relu(1 - sqrt(Var_t + 1e-4)) of the batch-centred embedding, unbiased variance over time.
fn std_time(centred: &[f32], dims: Dims, weight: f32, grad: &mut [f32]) -> f32 {
    let Dims { t, b, d } = dims;
    let row = b * d;
    let mut local = vec![0.0f32; centred.len()];
    let mut loss = 0.0;
    for k in 0..row {
        let series = || (0..t).map(|i| centred[i * row + k]);
        let mean = series().sum::<f32>() / t as f32;
        let std = (series().map(|v| (v - mean) * (v - mean)).sum::<f32>() / (t - 1) as f32 + 1e-4).sqrt();
        if std < 1.0 {
            loss += 1.0 - std;
            let scale = weight / (row as f32 * (t - 1) as f32 * std);
            (0..t).for_each(|i| local[i * row + k] = -scale * (centred[i * row + k] - mean));
        }
    }
    // The centring over the batch is part of the graph.
    for (frame, grad) in local.chunks_exact_mut(row).zip(grad.chunks_exact_mut(row)) {
        centre_columns(frame, d);
        grad.iter_mut().zip(frame.iter()).for_each(|(g, v)| *g += v);
    }
    loss / row as f32
}

/// mean((z_t - z_{t+1})^2) with its gradient.
pub fn temporal(z: &[f32], dims: Dims, weight: f32, grad: &mut [f32]) -> f32 {
    let row = dims.b * dims.d;
    let count = ((dims.t - 1) * row) as f32;
    let mut loss = 0.0;
    for k in 0..z.len() - row {
        let diff = z[k + row] - z[k];
        loss += diff * diff;
        let g = 2.0 * weight * diff / count;
        grad[k + row] += g;
        grad[k] -= g;
    }
    loss / count
}

/// `weight * mean((pred - target)^2)`, the gradient going to both sides. Returns the unweighted mean.
pub fn squared_error(
    pred: &[f32],
    target: &[f32],
    weight: f32,
    grad_pred: &mut [f32],
    grad_target: Option<&mut [f32]>,
) -> f32 {
    let scale = 2.0 * weight / pred.len() as f32;
    let mut loss = 0.0;
    for ((p, t), g) in pred.iter().zip(target).zip(grad_pred) {
        loss += (p - t) * (p - t);
        *g += scale * (p - t);
    }
    if let Some(grad_target) = grad_target {
        for ((p, t), g) in pred.iter().zip(target).zip(grad_target) {
            *g -= scale * (p - t);
        }
    }
    loss / pred.len() as f32
}

const KNOTS: usize = 17;
const KNOT_STEP: f32 = 3.0 / 16.0;

/// `count` random unit vectors of width `d`, [M, D].
pub fn directions(stream: &mut Stream, count: usize, d: usize) -> Vec<f32> {
    let mut out = vec![0.0f32; count * d];
    stream.fill_normal(&mut out);
    for direction in out.chunks_exact_mut(d) {
        let norm = direction.iter().map(|v| v * v).sum::<f32>().sqrt().max(1e-12);
        direction.iter_mut().for_each(|v| *v /= norm);
    }
    out
}

/// SIGReg: Epps-Pulley distance of one-dimensional projections on `directions` [M, D] from a standard normal,
/// with its gradient.
///
/// All knots are multiples of 3/16, so one sine and cosine a value and a rotation a knot replace 17 of each.
pub fn sigreg(z: &[f32], dims: Dims, directions: &[f32], weight: f32, grad: &mut [f32]) -> f32 {
    let Dims { t, b, d } = dims;
    let projections = directions.len() / d;
    let knots: Vec<(f32, f32)> = (0..KNOTS)
        .map(|j| {
            let position = j as f32 * KNOT_STEP;
            let phi = (-0.5 * position * position).exp();
            let trapezoid = if j == 0 || j == KNOTS - 1 { KNOT_STEP } else { 2.0 * KNOT_STEP };
            (phi, trapezoid * phi)
        })
        .collect();
    let scale = weight / (t * projections) as f32;
    let mut loss = 0.0;
    let mut scratch = Sketch::new(b);
    for (frame, grad) in z.chunks_exact(b * d).zip(grad.chunks_exact_mut(b * d)) {
        for direction in directions.chunks_exact(d) {
            loss += scratch.project(frame, direction, &knots, scale, grad);
        }
    }
    loss / (t * projections) as f32
}

/// Work space for one projection of one time step.
struct Sketch {
    sin1: Vec<f32>,
    cos1: Vec<f32>,
    /// sin and cos of every knot and sample: [KNOTS, B] each.
    sin: Vec<f32>,
    cos: Vec<f32>,
    dx: Vec<f32>,
}

impl Sketch {
    fn new(b: usize) -> Self {
        let zeros = || vec![0.0; b];
        Self {
            sin1: zeros(),
            cos1: zeros(),
            sin: vec![0.0; KNOTS * b],
            cos: vec![0.0; KNOTS * b],
            dx: zeros(),
        }
    }

    fn project(
        &mut self,
        z: &[f32],
        direction: &[f32],
        knots: &[(f32, f32)],
        scale: f32,
        grad: &mut [f32],
    ) -> f32 {
        let (b, d) = (self.dx.len(), direction.len());
        for ((row, s), c) in z.chunks_exact(d).zip(&mut self.sin1).zip(&mut self.cos1) {
            let x: f32 = row.iter().zip(direction).map(|(a, b)| a * b).sum();
            (*s, *c) = (KNOT_STEP * x).sin_cos();
        }
        self.sin[..b].fill(0.0);
        self.cos[..b].fill(1.0);
        for j in 1..KNOTS {
            let (done, next) = (((j - 1) * b)..(j * b), j * b);
            for (i, k) in done.enumerate() {
                let (s, c) = (self.sin[k], self.cos[k]);
                self.sin[next + i] = s * self.cos1[i] + c * self.sin1[i];
                self.cos[next + i] = c * self.cos1[i] - s * self.sin1[i];
            }
        }
        self.dx.fill(0.0);
        let inverse = 1.0 / b as f32;
        let mut loss = 0.0;
        for (j, &(phi, knot_weight)) in knots.iter().enumerate() {
            let (sin, cos) = (&self.sin[j * b..(j + 1) * b], &self.cos[j * b..(j + 1) * b]);
            let mean_cos = cos.iter().sum::<f32>() * inverse;
            let mean_sin = sin.iter().sum::<f32>() * inverse;
            let error = mean_cos - phi;
            loss += knot_weight * (error * error + mean_sin * mean_sin);
            // The statistic carries a factor B, which cancels the 1/B of the means' gradient.
            let factor = 2.0 * scale * knot_weight * j as f32 * KNOT_STEP;
            for ((dx, s), c) in self.dx.iter_mut().zip(sin).zip(cos) {
                *dx += factor * (mean_sin * c - error * s);
            }
        }
        for (row, &dx) in grad.chunks_exact_mut(d).zip(&self.dx) {
            for (g, &a) in row.iter_mut().zip(direction) {
                *g += dx * a;
            }
        }
        loss * b as f32
    }
}

/// Spread of an embedding: mean standard deviation over its dimensions, and the effective rank
/// (exponential of the entropy of the covariance spectrum; Roy and Vetterli 2007), from `rows` of width `d`.
#[must_use]
pub fn spread(rows: &[f32], d: usize) -> (f32, f32) {
    let n = rows.len() / d;
    let mut centred = rows.to_vec();
    centre_columns(&mut centred, d);
    let mut c = vec![0.0f64; d * d];
    for row in centred.chunks_exact(d) {
        for i in 0..d {
            for j in 0..d {
                c[i * d + j] += f64::from(row[i]) * f64::from(row[j]) / n as f64;
            }
        }
    }
    let std = (0..d).map(|i| c[i * d + i].sqrt()).sum::<f64>() / d as f64;
    let spectrum = symmetric_eigenvalues(&mut c, d);
    let total: f64 = spectrum.iter().map(|v| v.max(0.0)).sum::<f64>().max(1e-30);
    let entropy: f64 = spectrum.iter().map(|v| (v.max(0.0) / total).max(1e-30)).map(|p| -p * p.ln()).sum();
    (std as f32, entropy.exp() as f32)
}

/// Eigenvalues of a symmetric matrix by cyclic Jacobi rotations (destroys `a`).
fn symmetric_eigenvalues(a: &mut [f64], n: usize) -> Vec<f64> {
    for _ in 0..30 {
        let off: f64 =
            (0..n).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| a[i * n + j].powi(2)).sum();
        if off < 1e-18 {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                if a[p * n + q].abs() < 1e-300 {
                    continue;
                }
                let theta = (a[q * n + q] - a[p * n + p]) / (2.0 * a[p * n + q]);
                let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
                let c = 1.0 / (t * t + 1.0).sqrt();
                let s = t * c;
                for k in 0..n {
                    let (x, y) = (a[k * n + p], a[k * n + q]);
                    a[k * n + p] = c * x - s * y;
                    a[k * n + q] = s * x + c * y;
                }
                for k in 0..n {
                    let (x, y) = (a[p * n + k], a[q * n + k]);
                    a[p * n + k] = c * x - s * y;
                    a[q * n + k] = s * x + c * y;
                }
            }
        }
    }
    (0..n).map(|i| a[i * n + i]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIMS: Dims = Dims { t: 4, b: 5, d: 3 };

    /// The test vector that the published terms were checked with.
    fn vector() -> Vec<f32> {
        let mut z = vec![];
        for t in 0..DIMS.t {
            for b in 0..DIMS.b {
                for d in 0..DIMS.d {
                    let (t, b, d) = (t as f64, b as f64, d as f64);
                    z.push(((1.7 * b + 0.9 * t + 2.3 * d).sin() * (1.0 + 0.1 * d) + 0.05 * b * t) as f32);
                }
            }
        }
        z
    }

    fn only(set: impl Fn(&mut Weights)) -> Weights {
        let mut w = Weights {
            teacher_forcing: 0.0,
            rollout: 0.0,
            std: 0.0,
            std_t: 0.0,
            cov: 0.0,
            temporal: 0.0,
            sigreg: 0.0,
            idm: 0.0,
        };
        set(&mut w);
        w
    }

    fn check_gradient(loss: impl Fn(&[f32], &mut [f32]) -> f32) {
        let z = vector();
        let mut grad = vec![0.0; z.len()];
        loss(&z, &mut grad);
        for k in 0..z.len() {
            let eval = |h: f32| {
                let mut moved = z.clone();
                moved[k] += h;
                f64::from(loss(&moved, &mut vec![0.0; z.len()]))
            };
            let numeric = (eval(1e-2) - eval(-1e-2)) / 2e-2;
            assert!((numeric - f64::from(grad[k])).abs() < 2e-3, "{k}: {numeric} against {}", grad[k]);
        }
    }

    #[test]
    fn terms_match_the_published_values() {
        let z = vector();
        let weights = only(|_| ());
        let (std, std_t, cov) = vcreg(&z, DIMS, &weights, &mut vec![0.0; z.len()]);
        let align = temporal(&z, DIMS, 0.0, &mut vec![0.0; z.len()]);
        let axes = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];
        let sketch = sigreg(&z, DIMS, &axes, 0.0, &mut vec![0.0; z.len()]);
        for (got, expected) in [
            (sketch, 0.400_639_4),
            (std, 0.142_971_4),
            (std_t, 0.338_830_8),
            (cov, 0.145_829_6),
            (align, 0.481_518_3),
        ] {
            assert!((got - expected).abs() < 1e-6, "{got} against {expected}");
        }
    }

    #[test]
    fn gradients_match_finite_differences() {
        check_gradient(|z, g| vcreg(z, DIMS, &only(|w| w.std = 1.0), g).0);
        check_gradient(|z, g| vcreg(z, DIMS, &only(|w| w.std_t = 1.0), g).1);
        check_gradient(|z, g| vcreg(z, DIMS, &only(|w| w.cov = 1.0), g).2);
        check_gradient(|z, g| temporal(z, DIMS, 1.0, g));
        let directions = directions(&mut Stream::new(1, "sketch", &[]), 8, DIMS.d);
        check_gradient(|z, g| sigreg(z, DIMS, &directions, 1.0, g));
    }

    #[test]
    fn effective_rank_counts_directions() {
        let mut rows = vec![0.0f32; 4000 * 3];
        Stream::new(5, "rank", &[]).fill_normal(&mut rows);
        assert!((spread(&rows, 3).1 - 3.0).abs() < 0.05);
        rows.chunks_exact_mut(3).for_each(|r| (r[1], r[2]) = (r[0], 2.0 * r[0]));
        assert!(spread(&rows, 3).1 < 1.01);
    }
}
