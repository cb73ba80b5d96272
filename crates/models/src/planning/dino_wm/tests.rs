use std::path::Path;

use worldbench_core::Stream;
use worldbench_nn::params::{from_vec, to_vec};
use worldbench_nn::patch_predictor::PatchPredictorConfig;
use worldbench_nn::weights;
use worldbench_nn::{Params, device};
use worldbench_plan::{Objective, Reduction, Shape};

use super::*;
use crate::dino_wm::{DinoWm, is_mask};
use crate::parity::dino_wm::small;

const MEAN: Objective =
    Objective { steps: worldbench_plan::Steps::Last, reduction: Reduction::Sum, control: 0.0 };

fn random(purpose: &str, len: usize) -> Vec<f32> {
    let mut values = vec![0.0; len];
    Stream::new(11, purpose, &[]).fill_normal(&mut values);
    values
}

/// Sizes that are multiples of nothing.
fn odd() -> DinoWmConfig {
    let predictor = PatchPredictorConfig {
        frames: 3,
        patches: 49,
        depth: 3,
        heads: 3,
        head_width: 20,
        mlp: 70,
        dropout: 0.1,
        residual: false,
    };
    DinoWmConfig {
        features: 37,
        proprio: 4,
        proprio_width: 5,
        action: 6,
        action_width: 7,
        predictor,
        rollout: false,
    }
}

fn random_params(config: &DinoWmConfig) -> Params {
    let mut params = config.init(5);
    let noise = random("values", params.values.len());
    params.values.iter_mut().zip(noise).for_each(|(v, n)| *v += 0.05 * n);
    params
}

/// A context of `n` frames, `samples` plans and a goal.
struct Case {
    n: usize,
    features: Vec<f32>,
    proprio: Vec<f32>,
    history: Vec<f32>,
    goal_features: Vec<f32>,
    goal_proprio: Vec<f32>,
    plans: Vec<f32>,
    shape: Shape,
}

impl Case {
    fn random(c: &DinoWmConfig, n: usize, horizon: usize, samples: usize) -> Self {
        let (size, shape) = (c.predictor.patches * c.features, Shape { horizon, dim: c.action });
        Self {
            n,
            features: random("features", n * size),
            proprio: random("proprio", n * c.proprio),
            history: random("history", (n - 1) * c.action),
            goal_features: random("goal", size),
            goal_proprio: random("goal proprio", c.proprio),
            plans: random("plans", samples * shape.len()),
            shape,
        }
    }

    fn start(&self, planner: &DinoWmPlanner) -> DinoWmStart {
        planner.start(&self.features, &self.proprio, &self.history).unwrap()
    }

    fn costs(&self, planner: &DinoWmPlanner) -> Vec<f32> {
        let goal = planner.latents(&self.goal_features, &self.goal_proprio).unwrap();
        let mut costs = vec![0.0; self.plans.len() / self.shape.len()];
        planner.costs(&self.start(planner), &goal, MEAN, self.shape, &self.plans, &mut costs).unwrap();
        costs
    }

    /// Path and costs of the reference.
    fn reference(&self, c: &DinoWmConfig, params: &Params) -> (Vec<f32>, Vec<f32>) {
        let device = device("cpu").unwrap();
        let (model, _) = params.bind(&device, |scope| DinoWm::build(scope, c)).unwrap();
        let (p, samples) = (c.predictor.patches, self.plans.len() / self.shape.len());
        let states = |features: &[f32], proprio: &[f32], n: usize| {
            let features = from_vec(features.repeat(samples), [samples, n, p, c.features], &device);
            model.states(features, from_vec(proprio.repeat(samples), [samples, n, c.proprio], &device))
        };
        let plans = self.plans.chunks(self.shape.len());
        let actions: Vec<f32> = plans.flat_map(|p| self.history.iter().chain(p)).copied().collect();
        let actions = from_vec(actions, [samples, self.n - 1 + self.shape.horizon, c.action], &device);
        let path = model.rollout(states(&self.features, &self.proprio, self.n), actions);
        let cost = model.goal_cost(path.clone(), states(&self.goal_features, &self.goal_proprio, 1));
        (to_vec(path).unwrap(), to_vec(cost).unwrap())
    }
}

/// Largest difference relative to the largest value.
fn error(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    found.iter().zip(expected).fold(0.0f32, |m, (f, e)| m.max((f - e).abs())) / scale
}

#[test]
fn agrees_with_the_training_network() {
    let without = DinoWmConfig { proprio: 0, ..odd() };
    let mut residual = odd();
    residual.predictor.residual = true;
    for config in [odd(), small(), without, residual] {
        let params = random_params(&config);
        let planner = DinoWmPlanner::new(&config, &params).unwrap();
        for (n, horizon) in [(1, 1), (1, 5), (2, 3), (3, 4), (3, 1)] {
            let mut case = Case::random(&config, n, horizon, 4);
            case.plans[3] = f32::NAN;
            let (path, costs) = case.reference(&config, &params);
            let found = planner.rollout(&case.start(&planner), case.shape, &case.plans).unwrap();
            let errors = (error(&found, &path), error(&case.costs(&planner), &costs));
            println!("{n} + {horizon}: path {:.1e}, cost {:.1e}", errors.0, errors.1);
            assert!(errors.0 < 2e-5 && errors.1 < 2e-5, "{n} + {horizon}: {errors:?}");
        }
    }
}

#[test]
fn costs_and_paths_meet_the_recorded_ones() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models");
    let arrays = weights::read(&directory.join("dinowm_predictor.safetensors")).unwrap();
    let get = |key: &str| arrays[key].f32();
    let config = small();
    let mut params = config.init(0);
    let keys: Vec<String> = params.entries().iter().map(|e| e.key.clone()).filter(|k| !is_mask(k)).collect();
    for key in keys {
        params.get_mut(&key).unwrap().copy_from_slice(&get(&key));
    }
    let planner = DinoWmPlanner::new(&config, &params).unwrap();
    let candidates = &arrays["in.plan.candidates"];
    let [envs, samples, horizon, dim] = candidates.shape[..] else { panic!() };
    let part =
        |values: &[f32], env: usize| values[env * values.len() / envs..][..values.len() / envs].to_vec();
    for n in [1, 3] {
        let input = |what: &str| get(&format!("in.plan.ctx{n}.{what}"));
        let (mut paths, mut costs) = (vec![], vec![]);
        for env in 0..envs {
            let history = if n > 1 { part(&input("action_history"), env) } else { vec![] };
            let case = Case {
                n,
                features: part(&input("patch_tokens"), env),
                proprio: part(&input("proprio"), env),
                history,
                goal_features: part(&get("in.plan.goal_patch_tokens"), env),
                goal_proprio: part(&get("in.plan.goal_proprio"), env),
                plans: part(&candidates.f32(), env),
                shape: Shape { horizon, dim },
            };
            assert_eq!(case.plans.len(), samples * horizon * dim);
            paths.extend(planner.rollout(&case.start(&planner), case.shape, &case.plans).unwrap());
            costs.extend(case.costs(&planner));
        }
        let expected = |what: &str| get(&format!("out.plan.ctx{n}.{what}"));
        let errors = (error(&paths, &expected("predicted_emb")), error(&costs, &expected("cost")));
        println!("{n} context frames: path {:.1e}, cost {:.1e}", errors.0, errors.1);
        assert!(errors.0 < 2e-5 && errors.1 < 2e-5, "{n}: {errors:?}");
    }
}

#[test]
fn neither_threads_nor_chunks_change_a_bit() {
    let config = odd();
    let params = random_params(&config);
    for (n, precision) in
        [(1, Precision::F32), (3, Precision::F32), (1, Precision::Bf16), (3, Precision::Bf16)]
    {
        let case = Case::random(&config, n, 5, 9);
        let run = |threads, chunk| {
            let planner = DinoWmPlanner::new(&config, &params).unwrap();
            let planner = planner.with_chunk(chunk).in_precision(precision);
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let path = |p: &DinoWmPlanner| p.rollout(&case.start(p), case.shape, &case.plans).unwrap();
            pool.install(|| (path(&planner), case.costs(&planner)))
        };
        let whole = run(1, 1000);
        for (threads, chunk) in [(1, 1), (2, 4), (3, 2)] {
            assert!(run(threads, chunk) == whole, "{n} frames, {threads} threads, chunks of {chunk}");
        }
    }
}

#[test]
fn bf16_stays_near_f32() {
    for config in [odd(), small()] {
        let params = random_params(&config);
        let planner = DinoWmPlanner::new(&config, &params).unwrap();
        let case = Case::random(&config, 1, 5, 4);
        let rollout = |p: &DinoWmPlanner| p.rollout(&case.start(p), case.shape, &case.plans).unwrap();
        let (path, costs) = (rollout(&planner), case.costs(&planner));
        let planner = planner.in_precision(Precision::Bf16);
        let errors = (error(&rollout(&planner), &path), error(&case.costs(&planner), &costs));
        println!("path {:.1e}, cost {:.1e}", errors.0, errors.1);
        assert!(errors.0 > 0.0 && errors.0 < 2e-2 && errors.1 < 1e-2, "{errors:?}");
    }
}

#[test]
fn memory_bounds_the_chunk() {
    let config = odd();
    let params = random_params(&config);
    let memory = |bytes| {
        let planner = DinoWmPlanner::new(&config, &params).unwrap().with_chunk(100).with_memory(bytes, 1, 6);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let weights = planner.memory();
        pool.install(|| Case::random(&config, 1, 5, 40).costs(&planner));
        planner.memory() - weights
    };
    let (small, large) = (memory(4 << 20), memory(16 << 20));
    assert!(small <= 4 << 20 && small < large && large <= 16 << 20, "{small} {large}");
}

#[test]
fn errors_name_what_is_wrong() {
    let config = odd();
    let params = random_params(&config);
    let bigger = DinoWmConfig { action: 8, ..config };
    let error = DinoWmPlanner::new(&bigger, &params).unwrap_err().to_string();
    assert!(error.contains("`extra_encoders.action.patch_embed.weight`"), "{error}");
    let planner = DinoWmPlanner::new(&config, &params).unwrap();
    let case = Case::random(&config, 2, 3, 2);
    let error = planner.start(&case.features, &case.proprio, &[]).unwrap_err().to_string();
    assert!(error.contains("action history"), "{error}");
    let long = case.features.repeat(2);
    assert!(planner.start(&long, &case.proprio, &[]).unwrap_err().to_string().contains("1 to 3 frames"));
    let start = case.start(&planner);
    let error = planner.rollout(&start, Shape { horizon: 3, dim: 5 }, &[0.0; 15]).unwrap_err().to_string();
    assert!(error.contains("action block"), "{error}");
}

#[test]
fn caches_save_arithmetic() {
    let config = DinoWmConfig::full(10);
    let ratio = |n| executed_flop(&config, n, 5) / naive_flop(&config, n, 5);
    assert!((0.6..0.8).contains(&ratio(1)), "{}", ratio(1));
    assert_eq!(tokens(&config, 1, 5), 9 * 256);
    assert_eq!(tokens(&config, 3, 1), 256);
}
