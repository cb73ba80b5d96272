//! Ridge regression from latents to poses: how much of the state a linear reader finds in a latent.

use serde::Serialize;
use worldbench_env::push_t::angle_error;

/// Quantities regressed: agent x, y, block x, y (px), cosine and sine of the block's angle.
const TARGETS: usize = 6;
/// Ridge per row, on features of unit variance.
const RIDGE: f64 = 1e-3;

/// A linear map from latents to poses.
#[derive(Clone, Debug)]
pub struct Probe {
    mean: Vec<f64>,
    scale: Vec<f64>,
    /// One row per latent value, then the intercepts.
    weights: Vec<[f64; TARGETS]>,
}

/// How well one quantity is read from latents that the probe was not fitted on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProbeError {
    /// What is read, with its unit.
    pub quantity: &'static str,
    /// Median absolute error.
    pub median: f64,
    /// Root mean squared error.
    pub rms: f64,
    /// Root mean squared error of always answering the mean.
    pub rms_of_mean: f64,
}

fn targets(state: &[f64; 7]) -> [f64; TARGETS] {
    [state[0], state[1], state[2], state[3], 100.0 * state[4].cos(), 100.0 * state[4].sin()]
}

impl Probe {
    /// Fits on latents `[N, width]` and the states they show, `[N]`.
    #[must_use]
    pub fn fit(latents: &[f32], width: usize, states: &[[f64; 7]]) -> Self {
        let n = states.len().max(1) as f64;
        let rows = || latents.chunks_exact(width).map(|row| row.iter().map(|&v| f64::from(v)));
        let (mut mean, mut square) = (vec![0.0; width], vec![0.0; width]);
        for row in rows() {
            for (j, v) in row.enumerate() {
                mean[j] += v / n;
                square[j] += v * v / n;
            }
        }
        let scale: Vec<f64> = square.iter().zip(&mean).map(|(s, m)| (s - m * m).max(1e-12).sqrt()).collect();
        let mut answer = [0.0; TARGETS];
        states.iter().for_each(|s| answer.iter_mut().zip(targets(s)).for_each(|(a, t)| *a += t / n));
        // Normal equations, the right-hand sides beside the matrix.
        let columns = width + TARGETS;
        let mut system = vec![0.0; width * columns];
        for (row, state) in rows().zip(states) {
            let x: Vec<f64> = row.enumerate().map(|(j, v)| (v - mean[j]) / scale[j]).collect();
            let y = targets(state);
            for (i, line) in system.chunks_exact_mut(columns).enumerate() {
                line[..width].iter_mut().zip(&x).for_each(|(a, v)| *a += x[i] * v);
                line[width..].iter_mut().zip(y).zip(answer).for_each(|((a, y), m)| *a += x[i] * (y - m));
            }
        }
        (0..width).for_each(|i| system[i * columns + i] += RIDGE * n);
        let mut weights = solve(system, width, columns);
        weights.push(answer);
        Self { mean, scale, weights }
    }

    /// The pose that `latent` shows, laid out as a state with velocity 0.
    #[must_use]
    pub fn decode(&self, latent: &[f32]) -> [f64; 7] {
        let (intercept, weights) = self.weights.split_last().unwrap_or((&[0.0; TARGETS], &[]));
        let mut y = *intercept;
        for (j, w) in weights.iter().enumerate() {
            let x = (f64::from(latent[j]) - self.mean[j]) / self.scale[j];
            y.iter_mut().zip(w).for_each(|(y, w)| *y += w * x);
        }
        [y[0], y[1], y[2], y[3], y[5].atan2(y[4]).rem_euclid(std::f64::consts::TAU), 0.0, 0.0]
    }

    /// Errors on latents `[N, width]` of known states. Block angles count modulo `symmetry`, rad.
    #[must_use]
    pub fn errors(
        &self,
        latents: &[f32],
        width: usize,
        states: &[[f64; 7]],
        symmetry: f64,
    ) -> Vec<ProbeError> {
        let read: Vec<[f64; 7]> = latents.chunks_exact(width).map(|z| self.decode(z)).collect();
        let centre = self.decode(&self.mean.iter().map(|&m| m as f32).collect::<Vec<f32>>());
        let gap = |a: &[f64; 7], b: &[f64; 7], i: usize| match i {
            4 => angle_error(a[4], b[4], symmetry).to_degrees(),
            _ => (a[i] - b[i]).abs(),
        };
        let names = ["agent x, px", "agent y, px", "block x, px", "block y, px", "block angle, degrees"];
        let of = |(i, quantity): (usize, &'static str)| {
            let mut errors: Vec<f64> = read.iter().zip(states).map(|(a, b)| gap(a, b, i)).collect();
            let rms = |e: &mut dyn Iterator<Item = f64>| {
                (e.map(|e| e * e).sum::<f64>() / states.len().max(1) as f64).sqrt()
            };
            let rms_of_mean = rms(&mut states.iter().map(|s| gap(&centre, s, i)));
            let total = rms(&mut errors.iter().copied());
            errors.sort_by(f64::total_cmp);
            let median = errors.get(errors.len() / 2).copied().unwrap_or_default();
            ProbeError { quantity, median, rms: total, rms_of_mean }
        };
        names.into_iter().enumerate().map(of).collect()
    }
}

/// Gauss-Jordan elimination; the matrix is positive definite, so no pivoting is needed.
fn solve(mut system: Vec<f64>, n: usize, columns: usize) -> Vec<[f64; TARGETS]> {
    for p in 0..n {
        let pivot = system[p * columns + p];
        let line: Vec<f64> = system[p * columns..(p + 1) * columns].iter().map(|v| v / pivot).collect();
        for (r, row) in system.chunks_exact_mut(columns).enumerate() {
            let factor = if r == p { 0.0 } else { row[p] };
            if r != p && factor != 0.0 {
                row.iter_mut().zip(&line).for_each(|(a, b)| *a -= factor * b);
            }
        }
        system[p * columns..(p + 1) * columns].copy_from_slice(&line);
    }
    system.chunks_exact(columns).map(|row| std::array::from_fn(|t| row[n + t])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use worldbench_core::Stream;

    #[test]
    fn a_linear_code_is_read_and_noise_is_not() {
        let mut stream = Stream::new(1, "probe test", &[]);
        let mut draw = |n: usize| {
            let (mut code, mut noise, mut states) = (vec![], vec![], vec![]);
            for _ in 0..n {
                let state = [0, 1, 2, 3, 4, 5, 6]
                    .map(|i| stream.uniform(0.0, if i == 4 { std::f64::consts::TAU } else { 500.0 }));
                let t = targets(&state);
                code.extend([t[0] + t[2], t[1] - t[3], t[2], t[3], t[4], t[5] + t[0], 1.0].map(|v| v as f32));
                noise.extend((0..7).map(|_| stream.normal() as f32));
                states.push(state);
            }
            (code, noise, states)
        };
        let ((code, noise, states), (test_code, test_noise, test_states)) = (draw(400), draw(200));
        let tau = std::f64::consts::TAU;
        for error in Probe::fit(&code, 7, &states).errors(&test_code, 7, &test_states, tau) {
            assert!(error.median < 2.0 && error.rms < 0.1 * error.rms_of_mean, "{error:?}");
        }
        for error in Probe::fit(&noise, 7, &states).errors(&test_noise, 7, &test_states, tau) {
            assert!(error.rms > 0.8 * error.rms_of_mean, "{error:?}");
        }
    }
}
