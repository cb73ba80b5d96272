//! Ridge regression from latents to poses: how much of the state a linear reader finds in a latent.

use serde::Serialize;
use worldbench_env::{DomainRef, EnvError, Scene, Spec};

/// Ridge per row, on features of unit variance.
const RIDGE: f64 = 1e-3;

/// A linear map from latents to poses.
#[derive(Clone, Debug)]
pub struct Probe {
    env: DomainRef,
    mean: Vec<f64>,
    scale: Vec<f64>,
    /// One row per latent value, then the intercepts.
    weights: Vec<Vec<f64>>,
}

/// How well one quantity is read from latents that the probe was not fitted on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProbeError {
    /// What is read, with its unit.
    pub quantity: String,
    /// Median absolute error.
    pub median: f64,
    /// Root mean squared error.
    pub rms: f64,
    /// Root mean squared error of always answering the mean.
    pub rms_of_mean: f64,
}

/// Indices of the state's values that are read as they are: neither velocities nor angles.
fn positions(spec: &Spec) -> impl Iterator<Item = usize> + '_ {
    (0..spec.state.len()).filter(|i| !spec.velocity.contains(i) && !spec.angles.contains(i))
}

/// Quantities regressed: positions, then cosine and sine of each angle.
fn targets(spec: &Spec, state: &[f64]) -> Vec<f64> {
    let angles = spec.angles.iter().flat_map(|&i| [100.0 * state[i].cos(), 100.0 * state[i].sin()]);
    positions(spec).map(|i| state[i]).chain(angles).collect()
}

impl Probe {
    /// Fits on latents `[N, width]` and the states of `env` that they show, `[N]`.
    #[must_use]
    pub fn fit(env: DomainRef, latents: &[f32], width: usize, states: &[Vec<f64>]) -> Self {
        let targets = |state: &Vec<f64>| targets(env.spec(), state);
        let count = positions(env.spec()).count() + 2 * env.spec().angles.len();
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
        let mut answer = vec![0.0; count];
        states.iter().for_each(|s| answer.iter_mut().zip(targets(s)).for_each(|(a, t)| *a += t / n));
        // Normal equations, the right-hand sides beside the matrix.
        let columns = width + count;
        let mut system = vec![0.0; width * columns];
        for (row, state) in rows().zip(states) {
            let x: Vec<f64> = row.enumerate().map(|(j, v)| (v - mean[j]) / scale[j]).collect();
            let y = targets(state);
            for (i, line) in system.chunks_exact_mut(columns).enumerate() {
                line[..width].iter_mut().zip(&x).for_each(|(a, v)| *a += x[i] * v);
                line[width..].iter_mut().zip(&y).zip(&answer).for_each(|((a, y), m)| *a += x[i] * (y - m));
            }
        }
        (0..width).for_each(|i| system[i * columns + i] += RIDGE * n);
        let mut weights = solve(system, width, columns);
        weights.push(answer);
        Self { env, mean, scale, weights }
    }

    /// The pose that `latent` shows, laid out as a state with velocity 0.
    #[must_use]
    pub fn decode(&self, latent: &[f32]) -> Vec<f64> {
        let Some((intercept, weights)) = self.weights.split_last() else { return Vec::new() };
        let mut y = intercept.clone();
        for (j, w) in weights.iter().enumerate() {
            let x = (f64::from(latent[j]) - self.mean[j]) / self.scale[j];
            y.iter_mut().zip(w).for_each(|(y, w)| *y += w * x);
        }
        let spec = self.env.spec();
        let mut state = vec![0.0; spec.state.len()];
        let mut read = y.into_iter();
        positions(spec).zip(&mut read).for_each(|(i, v)| state[i] = v);
        for &i in spec.angles {
            let (cos, sin) = (read.next().unwrap_or(1.0), read.next().unwrap_or(0.0));
            state[i] = sin.atan2(cos).rem_euclid(std::f64::consts::TAU);
        }
        state
    }

    /// Errors on latents `[N, width]` of known states. Angles count modulo the symmetry of what turns in `scene`.
    ///
    /// # Errors
    /// When a state does not fit the environment.
    pub fn errors(
        &self,
        scene: &Scene,
        latents: &[f32],
        width: usize,
        states: &[Vec<f64>],
    ) -> Result<Vec<ProbeError>, EnvError> {
        let spec = self.env.spec();
        let read: Vec<Vec<f64>> = latents.chunks_exact(width).map(|z| self.decode(z)).collect();
        let centre = self.decode(&self.mean.iter().map(|&m| m as f32).collect::<Vec<f32>>());
        let gap = |a: &[f64], b: &[f64], i: usize| {
            if !spec.angles.contains(&i) {
                return Ok((a[i] - b[i]).abs());
            }
            Ok(self.env.errors(scene, a, b)?.angle.unwrap_or_default().to_degrees())
        };
        let rms =
            |errors: &[f64]| (errors.iter().map(|e| e * e).sum::<f64>() / states.len().max(1) as f64).sqrt();
        let of = |i: usize| {
            let pairs = read.iter().zip(states);
            let mut errors: Vec<f64> = pairs.map(|(a, b)| gap(a, b, i)).collect::<Result<_, EnvError>>()?;
            let of_mean: Vec<f64> =
                states.iter().map(|s| gap(&centre, s, i)).collect::<Result<_, EnvError>>()?;
            let total = rms(&errors);
            errors.sort_by(f64::total_cmp);
            let median = errors.get(errors.len() / 2).copied().unwrap_or_default();
            let name = spec.state[i].split(" (").next().unwrap_or_default();
            let unit = if spec.angles.contains(&i) { "degrees" } else { "px" };
            Ok(ProbeError {
                quantity: format!("{name}, {unit}"),
                median,
                rms: total,
                rms_of_mean: rms(&of_mean),
            })
        };
        positions(spec).chain(spec.angles.iter().copied()).map(of).collect()
    }
}

/// Gauss-Jordan elimination; the matrix is positive definite, so no pivoting is needed.
fn solve(mut system: Vec<f64>, n: usize, columns: usize) -> Vec<Vec<f64>> {
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
    system.chunks_exact(columns).map(|row| row[n..].to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use worldbench_core::Stream;

    #[test]
    fn a_linear_code_is_read_and_noise_is_not() {
        let env = worldbench_env::domain::find("push_t").unwrap();
        let scene = env.scene(&Default::default()).unwrap();
        let mut stream = Stream::new(1, "probe test", &[]);
        let mut draw = |n: usize| {
            let (mut code, mut noise, mut states) = (vec![], vec![], vec![]);
            for _ in 0..n {
                let most = |i| if i == 4 { std::f64::consts::TAU } else { 500.0 };
                let state: Vec<f64> = (0..7).map(|i| stream.uniform(0.0, most(i))).collect();
                let t = targets(env.spec(), &state);
                code.extend([t[0] + t[2], t[1] - t[3], t[2], t[3], t[4], t[5] + t[0], 1.0].map(|v| v as f32));
                noise.extend((0..7).map(|_| stream.normal() as f32));
                states.push(state);
            }
            (code, noise, states)
        };
        let ((code, noise, states), (test_code, test_noise, test_states)) = (draw(400), draw(200));
        let probe = |latents: &[f32]| Probe::fit(env, latents, 7, &states);
        for error in probe(&code).errors(&scene, &test_code, 7, &test_states).unwrap() {
            assert!(error.median < 2.0 && error.rms < 0.1 * error.rms_of_mean, "{error:?}");
        }
        for error in probe(&noise).errors(&scene, &test_noise, 7, &test_states).unwrap() {
            assert!(error.rms > 0.8 * error.rms_of_mean, "{error:?}");
        }
    }
}
