use std::path::Path;

use worldbench_core::Stream;
use worldbench_nn::params::{from_vec, to_vec};
use worldbench_nn::predictor::PredictorConfig;
use worldbench_nn::vit::VitConfig;
use worldbench_nn::weights::{self, Arrays};
use worldbench_nn::{Pass, device};
use worldbench_plan::{ActionNormaliser, Context, Objective, Shape, Steps, WorldModel};

use super::*;
use crate::jepa::Jepa;

/// The sizes of the fixture's model.
fn small() -> JepaConfig {
    let encoder = VitConfig { image: 56, patch: 14, hidden: 48, layers: 2, heads: 3, mlp: 192 };
    let predictor =
        PredictorConfig { frames: 3, width: 48, depth: 2, heads: 2, head_width: 8, mlp: 64, dropout: 0.0 };
    JepaConfig { encoder, predictor, projector_hidden: 64, action: 10, smoothed: 10, action_hidden: 192 }
}

fn random(purpose: &str, len: usize) -> Vec<f32> {
    let mut values = vec![0.0; len];
    Stream::new(3, purpose, &[]).fill_normal(&mut values);
    values
}

/// Random parameters without zeros and with running statistics that are not the initial ones.
fn random_params(config: &JepaConfig) -> Params {
    let mut params = Params::init(5, |scope| Jepa::build(scope, config));
    let noise = random("values", params.values.len());
    params.values.iter_mut().zip(noise).for_each(|(v, n)| *v += 0.05 * n);
    let noise = random("buffers", params.buffers.len());
    params.buffers.iter_mut().zip(noise).for_each(|(v, n)| *v += 0.1 * n.abs());
    params
}

struct Fixture {
    arrays: Arrays,
    planner: JepaPlanner,
}

impl Fixture {
    fn load() -> Self {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models");
        let arrays = weights::read(&directory.join("pldm.safetensors")).unwrap();
        let mut params = Params::init(0, |scope| Jepa::build(scope, &small()));
        let keys: Vec<String> = params.entries().iter().map(|e| e.key.clone()).collect();
        for key in keys {
            params.get_mut(&key).unwrap().copy_from_slice(&arrays[&key].f32());
        }
        Self { planner: JepaPlanner::new(&small(), &params).unwrap(), arrays }
    }

    fn get(&self, key: &str) -> Vec<f32> {
        self.arrays[key].f32()
    }

    fn frames(&self) -> Vec<f32> {
        self.get("in.frames_u8").iter().map(|v| (v - 127.5) / 64.0).collect()
    }

    /// Within 2e-5 of the largest value of the float64 twin, where there is one.
    fn close(&self, what: &str, found: &[f32]) {
        let key = format!("out64.{what}");
        let expected = self.arrays.get(&key).unwrap_or_else(|| &self.arrays[&format!("out.{what}")]);
        assert_eq!(found.len(), expected.values.len(), "{what}");
        let scale = expected.values.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        let pairs = found.iter().zip(&expected.values);
        let error = pairs.fold(0.0f64, |m, (&f, e)| m.max((f64::from(f) - e).abs()));
        println!("{what}: {error:.1e} of {scale:.2}");
        assert!(error <= 2e-5 * scale, "{what}: {error} of {scale}");
    }
}

#[test]
fn encoder_and_action_embedding_meet_the_reference() {
    let f = Fixture::load();
    f.close("eval.cls", &f.planner.class_tokens_normalised(&f.frames()).unwrap());
    f.close("eval.emb", &f.planner.encode_normalised(&f.frames()).unwrap());
    f.close("eval.act_emb", &f.planner.embed_actions(&f.get("in.action")).unwrap());
}

#[test]
fn rollouts_meet_the_reference() {
    let f = Fixture::load();
    let [envs, samples, horizon, action] = f.arrays["in.plan.candidates"].shape[..] else { panic!() };
    let shape = Shape { horizon, dim: action };
    let emb = f.planner.encode_normalised(&f.frames()).unwrap(); // [6, 4, D]
    let (d, candidates) = (f.planner.width(), f.get("in.plan.candidates"));
    for context in [1, 3] {
        let (mut paths, mut costs, mut goals) = (vec![], vec![0.0; envs * samples], vec![]);
        let history = if context > 1 { f.get("in.plan.ctx3.action_history") } else { vec![] };
        let between = (context - 1) * action;
        for env in 0..envs {
            let context = emb[env * 4 * d..][..context * d].to_vec();
            let history = history[env * between..][..between].to_vec();
            let plans = &candidates[env * samples * shape.len()..][..samples * shape.len()];
            let start = Start { context: &context, history: &history };
            paths.extend(f.planner.rollout(start, shape, plans).unwrap());
            let goal = emb[((2 + env) * 4 + 3) * d..][..d].to_vec();
            goals.extend_from_slice(&goal);
            let objective = Objective::default();
            let mut problem = model::Problem { planner: &f.planner, context, history, goal, objective };
            let costs = &mut costs[env * samples..][..samples];
            worldbench_plan::Cost::evaluate(&mut problem, shape, plans, costs).unwrap();
        }
        f.close(&format!("plan.ctx{context}.predicted_emb"), &paths);
        f.close(&format!("plan.ctx{context}.goal_emb"), &goals);
        f.close(&format!("plan.ctx{context}.cost"), &costs);
    }
}

#[test]
fn caches_change_no_bit() {
    let config = small();
    let planner = JepaPlanner::new(&config, &random_params(&config)).unwrap();
    let (d, a) = (planner.width(), config.action);
    for (context, horizon) in [(1, 1), (1, 5), (2, 4), (3, 3)] {
        let shape = Shape { horizon, dim: a };
        let (frames, history) = (random("context", context * d), random("history", (context - 1) * a));
        let start = Start { context: &frames, history: &history };
        let plans = random("plans", 7 * shape.len());
        let found = planner.rollout(start, shape, &plans).unwrap();
        assert!(found.iter().all(|v| v.is_finite()));
        assert_eq!(found, planner.plain_rollout(start, shape, &plans), "{context} + {horizon}");
    }
}

#[test]
fn agrees_with_the_training_network() {
    let config = small();
    let params = random_params(&config);
    let planner = JepaPlanner::new(&config, &params).unwrap();
    let device = device("cpu").unwrap();
    let (network, _) = params.bind(&device, |scope| Jepa::build(scope, &config)).unwrap();
    let (d, a, n, horizon, samples) = (planner.width(), config.action, 2, 5, 4);
    let shape = Shape { horizon, dim: a };
    let (frames, history, mut plans) =
        (random("context", n * d), random("history", a), random("plans", samples * horizon * a));
    plans[3] = f32::NAN;
    let actions: Vec<f32> =
        plans.chunks(shape.len()).flat_map(|p| history.iter().chain(p)).copied().collect();
    let context = from_vec(frames.repeat(samples), [samples, n, d], &device);
    let path = network.rollout(context, from_vec(actions, [samples, n - 1 + horizon, a], &device));
    let found = planner.rollout(Start { context: &frames, history: &history }, shape, &plans).unwrap();
    for (f, e) in found.iter().zip(to_vec(path).unwrap()) {
        assert!((f - e).abs() < 1e-4, "{f} against {e}");
    }
    let side = config.encoder.image;
    let bytes: Vec<u8> = (0..side * side * 3).map(|i| (i * 31 % 256) as u8).collect();
    let value = |i: usize| {
        let (c, at) = (i / (side * side), i % (side * side));
        (f32::from(bytes[at * 3 + c]) / 255.0 - IMAGE_MEAN[c]) / IMAGE_STD[c]
    };
    let image = from_vec((0..bytes.len()).map(value).collect(), [1, 1, 3, side, side], &device);
    let expected = to_vec(network.encode(image, &mut Pass::eval())).unwrap();
    for (f, e) in planner.encode(&bytes).unwrap().iter().zip(expected) {
        assert!((f - e).abs() < 1e-4, "{f} against {e}");
    }
}

#[test]
fn neither_threads_nor_chunks_change_a_bit() {
    let config = small();
    let params = random_params(&config);
    let shape = Shape { horizon: 5, dim: config.action };
    let (frames, plans) = (random("context", config.encoder.hidden), random("plans", 40 * shape.len()));
    let start = Start { context: &frames, history: &[] };
    let run = |precision, threads, chunk| {
        let planner = JepaPlanner::new(&config, &params).unwrap().with_chunk(chunk).in_precision(precision);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| planner.rollout(start, shape, &plans).unwrap())
    };
    let whole = [Precision::F32, Precision::Bf16].map(|precision| {
        let whole = run(precision, 1, 1000);
        for (threads, chunk) in [(1, 1), (2, 7), (3, 16)] {
            assert!(run(precision, threads, chunk) == whole, "{threads} threads, chunks of {chunk}");
        }
        whole
    });
    let scale = whole[0].iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let error = whole[0].iter().zip(&whole[1]).fold(0.0f32, |m, (a, b)| m.max((a - b).abs())) / scale;
    println!("bf16 against f32: {error:.1e}");
    assert!(error > 0.0 && error < 2e-2, "{error}");
}

#[test]
fn serves_planning_policies() {
    let config = small();
    let planner = JepaPlanner::new(&config, &random_params(&config)).unwrap();
    let actions = ActionNormaliser::new(vec![0.5, -0.5], vec![2.0, 4.0]).unwrap();
    let model = JepaModel::new(planner, Box::new(actions), 5).unwrap();
    let mut raw = [0.0; 10];
    model.decode_block(&[1.0; 10], &mut raw);
    assert_eq!(raw[..4], [2.5, 3.5, 2.5, 3.5]);
    let frame = |seed: usize| (0..56 * 56 * 3).map(|i| (i * seed % 255) as u8).collect::<Vec<u8>>();
    let (frames, goal) = ([frame(3), frame(5)], frame(7));
    let context = |actions| Context {
        frames: &frames,
        proprio: &[[0.0; 4]; 2],
        actions,
        goal_frame: &goal,
        goal_proprio: [0.0; 4],
    };
    let shape = Shape { horizon: 3, dim: 10 };
    let plans = random("plans", 4 * shape.len());
    let cost = |steps| {
        let mut costs = [0.0; 4];
        let objective = Objective { steps, ..Objective::default() };
        model.problem(&context(&[1.0; 10]), objective).unwrap().evaluate(shape, &plans, &mut costs).unwrap();
        costs
    };
    let (last, all) = (cost(Steps::Last), cost(Steps::All));
    assert!(last.iter().zip(&all).all(|(l, a)| *l > 0.0 && a > l), "{last:?} {all:?}");
    let error = model.problem(&context(&[]), Objective::default()).err().unwrap().to_string();
    assert!(error.contains("10 action values"), "{error}");
}

#[test]
fn errors_name_what_is_wrong() {
    let config = small();
    let mut params = random_params(&config);
    let bigger = JepaConfig { projector_hidden: 65, ..config };
    let error = JepaPlanner::new(&bigger, &params).unwrap_err().to_string();
    assert!(error.contains("`projector.net.0.weight`") && error.contains("3120"), "{error}");
    let error = JepaPlanner::new(&config, &Params::default()).unwrap_err().to_string();
    assert!(error.contains("is missing"), "{error}");
    params.values.fill(0.0);
    let planner = JepaPlanner::new(&config, &params).unwrap();
    assert!(planner.encode(&[0; 10]).unwrap_err().to_string().contains("frames"));
    let start = Start { context: &[0.0; 48 * 4], history: &[] };
    let error = planner.rollout(start, Shape { horizon: 1, dim: 10 }, &[0.0; 10]).unwrap_err().to_string();
    assert!(error.contains("1 to 3 frames"), "{error}");
}

#[test]
fn the_cache_saves_arithmetic() {
    let config = JepaConfig::full(10);
    let (executed, naive) = (executed_flop(&config, 1, 5), naive_flop(&config, 1, 5));
    assert!((150e6..165e6).contains(&executed), "{executed}");
    assert!((275e6..290e6).contains(&naive), "{naive}");
}

#[test]
fn a_slice_is_scaled() {
    let setup = PerfSetup {
        method: PerfMethod::DinoWmCompact,
        precision: Precision::F32,
        samples: 40,
        iterations: 6,
        horizon: 2,
        slice: Some((4, 2)),
        memory: Some(64 << 20),
        threads: 1,
    };
    let found = perf(&setup).unwrap();
    assert_eq!((found.measured_samples, found.measured_iterations), (4, 2));
    assert!((found.seconds / found.measured_seconds - 30.0).abs() < 1e-6);
    // A predictor that looks at one frame has nothing to keep.
    assert!(found.gflop <= found.gflop_naive && found.tokens_per_s > 0.0 && found.encode_seconds.is_none());
}
