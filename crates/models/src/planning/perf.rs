//! Speed of planning: one solve of the cross-entropy method with random weights.
//!
//! The full-size DINO-WM takes minutes to hours per solve on a CPU: it is measured on a slice of a few samples and
//! iterations and scaled, which is exact in arithmetic because every sample of every iteration costs the same.

use std::time::Instant;

use serde::Serialize;
use worldbench_core::Stream;
use worldbench_kernels::gemm::{Precision, bf16_unit};
use worldbench_kernels::{instruction_set, peak_flops};
use worldbench_nn::patch_predictor::PatchPredictorConfig;
use worldbench_nn::{Kind, Params};
use worldbench_plan::{Cem, Cost, Objective, Shape, Solver};

use super::dino_wm::{self, DinoWmPlanner};
use super::model::Problem;
use super::{Error, JepaPlanner, executed_flop, executed_tokens, naive_flop};
use crate::dino_wm::DinoWmConfig;
use crate::pldm::PldmConfig;

/// Rounds of the loop that measures the machine's limit: about a quarter of a second.
const PEAK_ROUNDS: u64 = 100_000_000;
/// Numbers of an action block.
const ACTION: usize = 10;

/// Whose rollouts are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PerfMethod {
    /// PLDM at its published size: one token per frame.
    Pldm,
    /// DINO-WM at its published size: 256 tokens of width 404 per frame.
    DinoWmFull,
    /// DINO-WM as the compact preset trains it: 49 tokens of width 128 per frame.
    DinoWmCompact,
}

/// What is solved and how.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PerfSetup {
    /// Whose rollouts.
    pub method: PerfMethod,
    /// Precision of their products.
    pub precision: Precision,
    /// Candidate plans per iteration.
    pub samples: usize,
    /// Iterations.
    pub iterations: usize,
    /// Action blocks of a plan; the context is one frame.
    pub horizon: usize,
    /// Samples and iterations that are really run, where it is not all.
    pub slice: Option<(usize, usize)>,
    /// Limit on the buffers of a DINO-WM rollout, in bytes.
    pub memory: Option<usize>,
    /// Threads.
    pub threads: usize,
}

/// What one solve took.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlanPerf {
    /// Duration of the solve, after context and goal were encoded; scaled where only a slice was run.
    pub seconds: f64,
    /// Samples that were run per iteration.
    pub measured_samples: usize,
    /// Iterations that were run.
    pub measured_iterations: usize,
    /// Duration of what was run.
    pub measured_seconds: f64,
    /// Duration of encoding the context frame and the goal frame; none where the encoder stands outside.
    pub encode_seconds: Option<f64>,
    /// GFLOP in the matrix products of the solve's rollouts, as executed.
    pub gflop: f64,
    /// GFLOP that the plain rollout would take.
    pub gflop_naive: f64,
    /// Executed GFLOP per second.
    pub gflops: f64,
    /// Tokens per second that go through the predictor.
    pub tokens_per_s: f64,
    /// `gflops` relative to the machine's limit in this precision on as many threads, measured before and after.
    pub share_of_peak: f64,
    /// `f32` or `bf16`.
    pub precision: &'static str,
    /// Instructions of the products.
    pub instructions: &'static str,
    /// Bytes of weights and buffers.
    pub memory: usize,
}

/// The compact preset's sizes.
fn compact() -> DinoWmConfig {
    let predictor = PatchPredictorConfig {
        frames: 1,
        patches: 16,
        depth: 4,
        heads: 4,
        head_width: 40,
        mlp: 512,
        dropout: 0.0,
        residual: true,
    };
    DinoWmConfig {
        features: 128,
        proprio: 4,
        proprio_width: 16,
        action: ACTION,
        action_width: 16,
        predictor,
        rollout: true,
    }
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

impl PerfSetup {
    /// Samples and iterations that are run.
    fn measured(&self) -> (usize, usize) {
        let (samples, iterations) = self.slice.unwrap_or((self.samples, self.iterations));
        (samples.min(self.samples), iterations.min(self.iterations))
    }

    /// Seconds of the measured part, after one iteration to warm up.
    fn solve(&self, cost: &mut dyn Cost) -> Result<f64, Error> {
        let (samples, iterations) = self.measured();
        let cem = Cem { samples, iterations, topk: 30.min(samples), ..Cem::default() };
        let shape = Shape { horizon: self.horizon, dim: ACTION };
        let stream = Stream::new(0, "perf-plan", &[]);
        Cem { iterations: 1, ..cem.clone() }.solve(shape, cost, None, &stream)?;
        let clock = Instant::now();
        cem.solve(shape, cost, None, &stream)?;
        Ok(clock.elapsed().as_secs_f64())
    }

    /// Seconds of the measured part and of encoding, and the memory.
    fn run(&self) -> Result<(f64, Option<f64>, usize), Error> {
        match self.method {
            PerfMethod::Pldm => self.run_pldm(),
            PerfMethod::DinoWmFull => self.run_dino_wm(&DinoWmConfig::full(ACTION)),
            PerfMethod::DinoWmCompact => self.run_dino_wm(&compact()),
        }
    }

    fn run_pldm(&self) -> Result<(f64, Option<f64>, usize), Error> {
        let config = PldmConfig::full(ACTION);
        let planner =
            JepaPlanner::new(&config.network, &random_params(&config))?.in_precision(self.precision);
        let side = config.network.encoder.image;
        let frames: Vec<u8> = (0..2 * side * side * 3).map(|i| (i * 7919 % 251) as u8).collect();
        planner.encode(&frames)?; // so that no buffer grows while the clock runs
        let clock = Instant::now();
        let mut context = planner.encode(&frames)?;
        let encoding = clock.elapsed().as_secs_f64();
        let goal = context.split_off(planner.width());
        let objective = Objective::default();
        let mut problem = Problem { planner: &planner, context, history: vec![], goal, objective };
        Ok((self.solve(&mut problem)?, Some(encoding), planner.memory()))
    }

    fn run_dino_wm(&self, config: &DinoWmConfig) -> Result<(f64, Option<f64>, usize), Error> {
        let mut planner = DinoWmPlanner::new(config, &config.init(0))?.in_precision(self.precision);
        if let Some(bytes) = self.memory {
            planner = planner.with_memory(bytes, self.threads, 1 + self.horizon);
        }
        let mut features = vec![0.0; 2 * config.predictor.patches * config.features];
        Stream::new(0, "perf-features", &[]).fill_normal(&mut features);
        let (context, goal) = features.split_at(features.len() / 2);
        let start = planner.start(context, &[0.0; 4], &[])?;
        let goal = planner.latents(goal, &[0.5; 4])?;
        let mut problem =
            dino_wm::Problem { planner: &planner, start, goal, objective: Objective::default() };
        let seconds = self.solve(&mut problem)?;
        Ok((seconds, None, planner.memory()))
    }

    /// FLOP executed and of the plain rollout, and tokens, per candidate.
    fn work(&self) -> (f64, f64, usize) {
        let config = match self.method {
            PerfMethod::Pldm => {
                let c = PldmConfig::full(ACTION).network;
                let (executed, naive) = (executed_flop(&c, 1, self.horizon), naive_flop(&c, 1, self.horizon));
                return (executed, naive, executed_tokens(&c, 1, self.horizon));
            }
            PerfMethod::DinoWmFull => DinoWmConfig::full(ACTION),
            PerfMethod::DinoWmCompact => compact(),
        };
        (
            dino_wm::executed_flop(&config, 1, self.horizon),
            dino_wm::naive_flop(&config, 1, self.horizon),
            dino_wm::tokens(&config, 1, self.horizon),
        )
    }
}

/// Solves one problem with random weights, or a slice of it.
///
/// # Errors
/// The threads cannot be started, or the solver refuses the numbers.
pub fn perf(setup: &PerfSetup) -> Result<PlanPerf, Error> {
    let threads = setup.threads.max(1);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = pool.map_err(|e| Error::Threads { threads, problem: e.to_string() })?;
    let before = peak_flops(setup.precision, threads, PEAK_ROUNDS);
    let (measured_seconds, encode_seconds, memory) = pool.install(|| setup.run())?;
    let peak = before.max(peak_flops(setup.precision, threads, PEAK_ROUNDS)) / 1e9;
    let (measured_samples, measured_iterations) = setup.measured();
    let rollouts = (setup.samples * setup.iterations) as f64;
    let seconds = measured_seconds * rollouts / (measured_samples * measured_iterations) as f64;
    let (executed, naive, tokens) = setup.work();
    let gflop = rollouts * executed / 1e9;
    Ok(PlanPerf {
        seconds,
        measured_samples,
        measured_iterations,
        measured_seconds,
        encode_seconds,
        gflop,
        gflop_naive: rollouts * naive / 1e9,
        gflops: gflop / seconds,
        tokens_per_s: rollouts * tokens as f64 / seconds,
        share_of_peak: gflop / seconds / peak,
        precision: setup.precision.name(),
        instructions: if setup.precision == Precision::Bf16 { bf16_unit() } else { instruction_set() },
        memory,
    })
}
