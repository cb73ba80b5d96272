//! Replays the recorded solves of the planner fixtures with their own noise and compares every step.

mod problem;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use worldbench_core::Stream;

use self::problem::AnalyticCost;
use crate::config::TopK;
use crate::error::PlanError;
use crate::gradient::{Gradient, Optimizer};
use crate::solver::{Cost, FixedNoise, Iteration, Problem, Shape, Solver};
use crate::{Cem, Colour, Icem, Mppi, PredictiveSampling, TemperatureUnit};

/// One compared tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Name of the fixture tensor.
    pub name: String,
    /// Largest absolute difference; infinite when the sizes differ or a value is NaN.
    pub max_error: f64,
    /// Largest accepted difference.
    pub tolerance: f64,
}

impl Item {
    /// True when the difference is accepted.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.max_error <= self.tolerance
    }
}

/// Checks the fixtures `models/planners.{json,safetensors,tol.json}` under the fixture root `dir`.
///
/// # Errors
/// [`PlanError::Fixture`] when a file is missing or lacks a tensor.
pub fn check(dir: &Path) -> Result<Vec<Item>, PlanError> {
    let read = |name: &str| {
        let path = dir.join("models").join(name);
        std::fs::read(&path).map_err(|e| PlanError::Fixture(format!("{}: {e}", path.display())))
    };
    check_bytes(&read("planners.json")?, &read("planners.safetensors")?, &read("planners.tol.json")?)
}

/// As [`check`], on the contents of the three files.
///
/// # Errors
/// [`PlanError::Fixture`] when a file cannot be parsed or lacks a tensor.
pub fn check_bytes(settings: &[u8], tensors: &[u8], tolerances: &[u8]) -> Result<Vec<Item>, PlanError> {
    let bad = |what: &str, e: &dyn std::fmt::Display| PlanError::Fixture(format!("{what}: {e}"));
    let settings: Settings = serde_json::from_slice(settings).map_err(|e| bad("planners.json", &e))?;
    let tolerances = serde_json::from_slice(tolerances).map_err(|e| bad("planners.tol.json", &e))?;
    let tensors = SafeTensors::deserialize(tensors).map_err(|e| bad("planners.safetensors", &e))?;
    if [settings.n_envs, settings.num_samples, settings.horizon, settings.blocked_action_dim].contains(&0) {
        return Err(PlanError::Fixture("planners.json: a size is 0".into()));
    }
    let mut check = Check { settings, tensors, tolerances, items: Vec::new() };
    check.cost()?;
    check.colours()?;
    for name in ["sgd", "adam", "adamw", "sgd_noise"] {
        check.solver(name)?;
    }
    check.clipped("sgd_clip")?;
    for name in ["cem", "cem_warm", "mppi_all", "mppi_topk", "predictive_sampling", "icem", "icem_best"] {
        check.solver(name)?;
    }
    Ok(check.items)
}

#[derive(Deserialize)]
struct Settings {
    n_envs: usize,
    num_samples: usize,
    horizon: usize,
    blocked_action_dim: usize,
    iterations: usize,
    topk: usize,
    env_bounds: [f32; 2],
    solvers: BTreeMap<String, Parameters>,
    gradient_common: Descent,
}

/// What the recorded gradient solvers share.
#[derive(Deserialize)]
struct Descent {
    steps: usize,
    num_samples: usize,
    var_scale: f32,
}

/// Parameters of one recorded solver; each solver has some of them.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Parameters {
    init: String,
    var_scale: f32,
    temperature: f32,
    topk: Option<usize>,
    noise_scale: f32,
    noise_beta: f32,
    alpha: f32,
    n_elite_keep: usize,
    return_mean: bool,
    lr: Option<f32>,
    weight_decay: f32,
    grad_clip: Option<f32>,
    action_noise: f32,
}

#[derive(Deserialize)]
struct Tolerance {
    tolerance: f64,
}

struct Check<'a> {
    settings: Settings,
    tensors: SafeTensors<'a>,
    tolerances: BTreeMap<String, Tolerance>,
    items: Vec<Item>,
}

impl Check<'_> {
    /// The values of a tensor.
    fn tensor(&self, name: &str) -> Result<Vec<f64>, PlanError> {
        let missing = |e| PlanError::Fixture(format!("planners.safetensors: tensor {name}: {e}"));
        let view = self.tensors.tensor(name).map_err(missing)?;
        let eight = |b: &[u8]| [b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]];
        let data = view.data();
        Ok(match view.dtype() {
            Dtype::F32 => data
                .chunks_exact(4)
                .map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])))
                .collect(),
            Dtype::F64 => data.chunks_exact(8).map(|b| f64::from_le_bytes(eight(b))).collect(),
            Dtype::I64 => data.chunks_exact(8).map(|b| i64::from_le_bytes(eight(b)) as f64).collect(),
            other => return Err(PlanError::Fixture(format!("tensor {name} has the unused type {other:?}"))),
        })
    }

    fn tensor_f32(&self, name: &str) -> Result<Vec<f32>, PlanError> {
        Ok(self.tensor(name)?.into_iter().map(|v| v as f32).collect())
    }

    /// Compares `got` with tensor `name`; tensors without a stated tolerance must be equal.
    fn compare(&mut self, name: &str, got: &[f64]) -> Result<(), PlanError> {
        let expected = self.tensor(name)?;
        let difference = |(a, b): (&f64, &f64)| if a == b { 0.0 } else { (a - b).abs() };
        let max_error = if expected.len() == got.len() {
            let errors = expected.iter().zip(got).map(difference);
            errors.fold(0.0, |m: f64, e| if e.is_nan() { f64::INFINITY } else { m.max(e) })
        } else {
            f64::INFINITY
        };
        let tolerance = self.tolerances.get(name).map_or(0.0, |t| t.tolerance);
        self.items.push(Item { name: name.into(), max_error, tolerance });
        Ok(())
    }

    fn shape(&self) -> Shape {
        Shape { horizon: self.settings.horizon, dim: self.settings.blocked_action_dim }
    }

    /// The analytic cost of the episodes `envs`.
    fn problem(&self, envs: Range<usize>) -> Result<AnalyticCost, PlanError> {
        let (weights, goals) = (self.tensor("in.cost.w")?, self.tensor("in.cost.goal")?);
        let (shape, len) = (self.shape(), self.shape().len());
        slice(&goals, envs.end - 1, len, "in.cost.goal")?;
        if weights.len() != shape.dim {
            return Err(PlanError::Fixture(format!("tensor in.cost.w has {} values", weights.len())));
        }
        Ok(AnalyticCost { weights, goals: goals[envs.start * len..envs.end * len].to_vec(), shape })
    }

    fn cost(&mut self) -> Result<(), PlanError> {
        let plans = self.tensor_f32("in.cost.x")?;
        let (envs, shape) = (self.settings.n_envs, self.shape());
        let samples = plans.len() / (envs * shape.len()).max(1);
        let mut costs = vec![0.0; envs * samples];
        let mut gradients = vec![0.0; plans.len()];
        for env in 0..envs {
            let plans = slice(&plans, env, samples * shape.len(), "in.cost.x")?;
            let costs = &mut costs[env * samples..(env + 1) * samples];
            let gradients = &mut gradients[env * plans.len()..(env + 1) * plans.len()];
            let evaluated = self.problem(env..env + 1)?.gradient(shape, plans, costs, gradients);
            evaluated.map_err(PlanError::Cost)?;
        }
        self.compare("out.cost.value", &widen(&costs))?;
        self.compare("out.cost.grad_of_sum", &widen(&gradients))
    }

    fn colours(&mut self) -> Result<(), PlanError> {
        let names: Vec<String> = self.tensors.names().into_iter().map(String::from).collect();
        let mut cases: Vec<_> = names.iter().filter_map(|n| n.strip_prefix("in.colour.")).collect();
        cases.sort_unstable();
        for case in cases {
            let parsed = case.strip_prefix('H').and_then(|c| c.split_once("_beta"));
            let parsed = parsed.and_then(|(h, b)| Some((h.parse::<usize>().ok()?, b.parse::<f64>().ok()?)));
            let (horizon, beta) = parsed
                .ok_or_else(|| PlanError::Fixture(format!("tensor in.colour.{case} has no H and beta")))?;
            let white = self.tensor_f32(&format!("in.colour.{case}"))?;
            let mut out = vec![0.0; white.len()];
            let mut colour = Colour::new(horizon, beta);
            let len = (horizon * self.settings.blocked_action_dim).max(1);
            for (white, plan) in white.chunks_exact(len).zip(out.chunks_exact_mut(len)) {
                colour.apply(white, plan);
            }
            self.compare(&format!("out.colour.{case}"), &widen(&out))?;
            let name = format!("out.colour.{case}.scale");
            self.compare(&name, &Colour::scale(horizon, beta))?;
            // The reference's frequencies were rounded to f32.
            if let Some(item) = self.items.last_mut() {
                item.tolerance = 1e-6;
            }
        }
        Ok(())
    }

    /// The solver recorded as `name`, and whether it starts from the recorded warm start.
    fn build(&self, name: &str) -> Result<(Box<dyn Solver>, bool), PlanError> {
        let p = self.settings.solvers.get(name);
        let p = p.ok_or_else(|| PlanError::Fixture(format!("planners.json: no solver {name}")))?;
        let &Settings { num_samples: samples, iterations, topk, env_bounds: [low, high], .. } =
            &self.settings;
        let descent = &self.settings.gradient_common;
        let solver: Box<dyn Solver> = match name {
            _ if p.lr.is_some() => Box::new(Gradient {
                samples: descent.num_samples,
                iterations: descent.steps,
                optimizer: if name.starts_with("sgd") { Optimizer::Sgd } else { Optimizer::Adamw },
                learning_rate: p.lr.unwrap_or_default(),
                weight_decay: p.weight_decay,
                grad_clip: p.grad_clip,
                var_scale: descent.var_scale,
                action_noise: p.action_noise,
            }),
            "predictive_sampling" => Box::new(PredictiveSampling { samples, noise_scale: p.noise_scale }),
            _ if name.starts_with("cem") => {
                Box::new(Cem { samples, iterations, topk, var_scale: p.var_scale })
            }
            _ if name.starts_with("mppi") => Box::new(Mppi {
                samples,
                iterations,
                topk: p.topk.map_or(TopK::All, TopK::Count),
                var_scale: p.var_scale,
                temperature: p.temperature,
                temperature_unit: TemperatureUnit::Raw,
                ..Mppi::default()
            }),
            _ => Box::new(Icem {
                samples,
                iterations,
                topk,
                var_scale: p.var_scale,
                noise_beta: p.noise_beta,
                alpha: p.alpha,
                n_elite_keep: p.n_elite_keep,
                return_mean: p.return_mean,
                low: vec![low],
                high: vec![high],
            }),
        };
        Ok((solver, p.init != "zeros"))
    }

    /// The recorded noise of episode `env`.
    fn noise(&self, name: &str, env: usize) -> Result<FixedNoise, PlanError> {
        if self.settings.solvers.get(name).is_some_and(|p| p.lr.is_some()) {
            return self.descent_noise(env..env + 1);
        }
        let name = if name.starts_with("icem") { "in.noise_white_time_last" } else { "in.noise_white" };
        let values = self.tensor_f32(name)?;
        let len = self.settings.num_samples * self.shape().len();
        let iterations = (0..self.settings.iterations)
            .map(|i| slice(&values, i * self.settings.n_envs + env, len, name).map(<[f32]>::to_vec))
            .collect::<Result<_, _>>()?;
        Ok(FixedNoise { iterations, initial: Vec::new() })
    }

    /// The recorded noise of a descent: of the starts of samples 1 and up, then of every step. The plans of several
    /// episodes follow each other along the horizon.
    fn descent_noise(&self, envs: Range<usize>) -> Result<FixedNoise, PlanError> {
        let &Descent { steps, num_samples: samples, .. } = &self.settings.gradient_common;
        let len = self.shape().len();
        let (starts, drift) =
            (self.tensor_f32("in.grad_init_noise")?, self.tensor_f32("in.grad_action_noise")?);
        let mut iterations = vec![vec![0.0; envs.len() * len]];
        for sample in 1..samples {
            for env in envs.clone() {
                let at = env * (samples - 1) + sample - 1;
                iterations[0].extend_from_slice(slice(&starts, at, len, "in.grad_init_noise")?);
            }
        }
        for step in 0..steps {
            let mut values = Vec::new();
            for sample in 0..samples {
                for env in envs.clone() {
                    let at = (step * self.settings.n_envs + env) * samples + sample;
                    values.extend_from_slice(slice(&drift, at, len, "in.grad_action_noise")?);
                }
            }
            iterations.push(values);
        }
        Ok(FixedNoise { iterations, initial: Vec::new() })
    }

    /// The warm start of episode `env`, `[h, D]`.
    fn warm_start(&self, env: usize) -> Result<Vec<f32>, PlanError> {
        let init = self.tensor_f32("in.init_action")?;
        let len = init.len() / self.settings.n_envs.max(1);
        Ok(slice(&init, env, len, "in.init_action")?.to_vec())
    }

    /// A descent whose gradient the reference clips over all episodes: solved as one problem, the plans end to end.
    fn clipped(&mut self, name: &str) -> Result<(), PlanError> {
        let (solver, _) = self.build(name)?;
        let (envs, shape, len) = (self.settings.n_envs, self.shape(), self.shape().len());
        let mut init = vec![0.0; envs * len];
        for (env, plan) in init.chunks_mut(len).enumerate() {
            let warm = self.warm_start(env)?;
            plan[..warm.len()].copy_from_slice(&warm);
        }
        let mut seen = Vec::new();
        let whole = Shape { horizon: envs * shape.horizon, dim: shape.dim };
        let mut observe = |it: &Iteration<'_>| seen.push(it.candidates.to_vec());
        let mut noise = self.descent_noise(0..envs)?;
        let (cost, noise, observe) = (&mut self.problem(0..envs)?, &mut noise, &mut observe);
        solver.solve_with(Problem { shape: whole, cost, init: Some(&init), noise, observe })?;
        for (index, candidates) in seen.iter().enumerate() {
            let plans = |env| candidates.chunks(len).skip(env).step_by(envs).flatten().copied();
            let by_env: Vec<f32> = (0..envs).flat_map(plans).collect();
            self.compare(&format!("out.{name}.iter{index}.candidates"), &widen(&by_env))?;
        }
        Ok(())
    }

    fn solver(&mut self, name: &str) -> Result<(), PlanError> {
        let (solver, warm) = self.build(name)?;
        let mut traces: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for env in 0..self.settings.n_envs {
            let mut cost = self.problem(env..env + 1)?;
            let mut noise = self.noise(name, env)?;
            let init = self.warm_start(env)?;
            let mut record = |key: String, values: Vec<f64>| traces.entry(key).or_default().extend(values);
            let mut observe = |it: &Iteration<'_>| {
                for (part, values) in parts(it) {
                    record(format!("out.{name}.iter{}.{part}", it.index), values);
                }
            };
            let init = warm.then_some(&init[..]);
            let (shape, cost, noise, observe) = (self.shape(), &mut cost, &mut noise, &mut observe);
            let solution = solver.solve_with(Problem { shape, cost, init, noise, observe })?;
            record(format!("out.{name}.actions"), widen(&solution.actions));
            record(format!("out.{name}.final_cost"), vec![f64::from(solution.cost)]);
        }
        let recorded = |key: &str| self.tensors.tensor(key).is_ok();
        let traces: Vec<_> = traces.into_iter().filter(|(key, _)| recorded(key)).collect();
        if traces.is_empty() {
            return Err(PlanError::Fixture(format!("planners.safetensors: no tensor out.{name}")));
        }
        traces.iter().try_for_each(|(key, values)| self.compare(key, values))
    }
}

/// The comparable parts of an iteration, named as in the fixtures.
fn parts(it: &Iteration<'_>) -> [(&'static str, Vec<f64>); 6] {
    [
        ("candidates", widen(it.candidates)),
        ("cost", widen(it.costs)),
        ("elite_index", it.elites.iter().map(|&s| s as f64).collect()),
        ("elite_cost", it.elites.iter().map(|&s| f64::from(it.costs[s])).collect()),
        ("mean", widen(it.mean)),
        ("std", widen(it.std)),
    ]
}

fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

/// Row `index` of `len` values.
fn slice<'v, T>(values: &'v [T], index: usize, len: usize, name: &str) -> Result<&'v [T], PlanError> {
    let row = values.get(index * len..(index + 1) * len);
    row.ok_or_else(|| PlanError::Fixture(format!("tensor {name} has {} values, too few", values.len())))
}

/// Solves a small problem in many chunk sizes and returns the largest difference of the plans, which is 0.
///
/// # Errors
/// When a solve fails.
pub fn chunk_independence(solver: &dyn Solver) -> Result<Item, PlanError> {
    let shape = Shape { horizon: 4, dim: 3 };
    let cost = |shape: Shape, plans: &[f32], costs: &mut [f32]| {
        for (plan, cost) in plans.chunks(shape.len()).zip(costs) {
            *cost = plan.iter().enumerate().map(|(i, x)| (x - 0.1 * i as f32).powi(2)).sum();
        }
    };
    let stream = Stream::new(0, "chunk-independence", &[]);
    let whole = solver.solve(shape, &mut cost.clone(), None, &stream)?.actions;
    let mut max_error = 0.0f64;
    for chunk in [1, 7, 64] {
        let part = solver.solve(shape, &mut crate::Chunked { cost, chunk }, None, &stream)?.actions;
        let errors = whole.iter().zip(&part).map(|(a, b)| f64::from((a - b).abs()));
        max_error = errors.fold(max_error, f64::max);
    }
    Ok(Item { name: format!("{} in chunks", solver.name()), max_error, tolerance: 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_recorded_solves_are_reproduced() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
        let items = check(&dir).unwrap();
        let misses: Vec<_> = items.iter().filter(|i| !i.ok()).collect();
        assert!(misses.is_empty(), "{misses:#?}");
        // 4 x 17 + 12 elite indices, 2 x 11, 4, 5 colours and scales, cost and gradient, descents.
        assert_eq!(items.len(), 4 * 20 + 2 * 11 + 4 + 10 + 2 + 4 * 24 + 11);
    }

    #[test]
    fn chunks_change_no_solver() {
        for kind in ["cem", "mppi", "icem", "predictive-sampling", "mppi-pldm", "gradient"] {
            let config: crate::SolverConfig = toml::from_str(&format!("kind = \"{kind}\"")).unwrap();
            assert!(chunk_independence(&*config.build().unwrap()).unwrap().ok(), "{kind}");
        }
    }

    #[test]
    fn a_missing_fixture_names_its_file() {
        let message = check(Path::new("no/such/place")).unwrap_err().to_string();
        assert!(message.contains("planners.json"), "{message}");
    }
}
