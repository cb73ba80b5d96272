//! Speed of the published planning problem: one solve of the cross-entropy method with the full-size PLDM.

use std::time::Instant;

use serde::Serialize;
use worldbench_core::Stream;
use worldbench_nn::{Kind, Params};
use worldbench_plan::{Cem, Objective, Shape, Solver};

use super::model::Problem;
use super::{Error, JepaPlanner, executed_flop, naive_flop};
use crate::pldm::PldmConfig;

/// Rounds of the loop that measures the machine's limit: about a quarter of a second.
const PEAK_ROUNDS: u64 = 100_000_000;

/// What one solve took.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PlanPerf {
    /// Duration of the solve, after context and goal were encoded.
    pub seconds: f64,
    /// Duration of encoding the context frame and the goal frame.
    pub encode_seconds: f64,
    /// GFLOP in the matrix products of the rollouts, as executed.
    pub gflop: f64,
    /// GFLOP that the plain rollout would take.
    pub gflop_naive: f64,
    /// Executed GFLOP per second.
    pub gflops: f64,
    /// `gflops` relative to the machine's f32 limit on as many threads, measured before and after.
    pub share_of_peak: f64,
    /// Bytes of weights and buffers.
    pub memory: usize,
}

/// Fresh parameters; those that start at zero get random values, as a trained model has.
fn random_params(config: &PldmConfig) -> Params {
    let mut params = config.init(0);
    let modulations: Vec<String> = params
        .entries()
        .iter()
        .filter(|e| e.kind == Kind::Trainable && e.key.contains("adaLN_modulation"))
        .map(|e| e.key.clone())
        .collect();
    for key in modulations {
        if let Some(values) = params.get_mut(&key) {
            Stream::new(0, &key, &[1]).fill_normal(values);
            values.iter_mut().for_each(|v| *v *= 0.02);
        }
    }
    params
}

/// Solves one problem with random weights: `samples` candidates, `iterations`, `horizon` action blocks of 10
/// numbers, one context frame, on `threads` threads.
///
/// # Errors
/// The threads cannot be started, or the solver refuses the numbers.
pub fn perf(samples: usize, iterations: usize, horizon: usize, threads: usize) -> Result<PlanPerf, Error> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.max(1)).build();
    let pool = pool.map_err(|e| Error::Threads { threads, problem: e.to_string() })?;
    let config = PldmConfig::full(10);
    let planner = JepaPlanner::new(&config.network, &random_params(&config))?;
    let side = config.network.encoder.image;
    let frames: Vec<u8> = (0..2 * side * side * 3).map(|i| (i * 7919 % 251) as u8).collect();
    let cem = Cem { samples, iterations, topk: 30.min(samples), ..Cem::default() };
    let shape = Shape { horizon, dim: config.network.action };
    let before = worldbench_kernels::peak_flops(threads, PEAK_ROUNDS);
    let (encode_seconds, seconds) = pool.install(|| {
        planner.encode(&frames)?; // so that no buffer grows while the clock runs
        let clock = Instant::now();
        let mut context = planner.encode(&frames)?;
        let encode_seconds = clock.elapsed().as_secs_f64();
        let goal = context.split_off(planner.width());
        let objective = Objective::default();
        let mut problem = Problem { planner: &planner, context, history: vec![], goal, objective };
        let stream = Stream::new(0, "perf-plan", &[]);
        let warm_up = Cem { iterations: 1, ..cem.clone() };
        warm_up.solve(shape, &mut problem, None, &stream)?;
        let clock = Instant::now();
        cem.solve(shape, &mut problem, None, &stream)?;
        Ok::<_, Error>((encode_seconds, clock.elapsed().as_secs_f64()))
    })?;
    let peak = before.max(worldbench_kernels::peak_flops(threads, PEAK_ROUNDS)) / 1e9;
    let rollouts = (samples * iterations) as f64 / 1e9;
    let gflop = rollouts * executed_flop(&config.network, 1, horizon);
    Ok(PlanPerf {
        seconds,
        encode_seconds,
        gflop,
        gflop_naive: rollouts * naive_flop(&config.network, 1, horizon),
        gflops: gflop / seconds,
        share_of_peak: gflop / seconds / peak,
        memory: planner.memory(),
    })
}
