//! `worldbench perf`.

use anyhow::{Result, bail};
use serde_json::json;
use worldbench_env::{
    PushT, TwoRoom,
    perf::{contact_workload, walk_workload},
    raster::{Filter, frames_per_second},
    two_room,
};

use worldbench_kernels::gemm::{Precision, bf16_unit};
use worldbench_models::planning::{PerfMethod, PerfSetup, perf};

use crate::{
    config::environment,
    output::{Outcome, print, print_json},
};

/// Samples and iterations of the slice that the full-size DINO-WM is measured on.
const SLICE: (usize, usize) = (8, 2);

/// Measure this machine
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Env(EnvArgs),
    Data(DataArgs),
    Plan(PlanArgs),
    Peak(PeakArgs),
}

/// Simulator and renderer on one thread: contact-rich play in Push-T, random walks in Two-Room
#[derive(Debug, clap::Args)]
struct EnvArgs {
    /// Name of the environment; see `envs`
    #[arg(long, default_value = "push_t")]
    env: String,
    /// Env steps to run
    #[arg(long, default_value_t = 1_000_000)]
    steps: u64,
    /// Frames to draw
    #[arg(long, default_value_t = 40_000)]
    frames: usize,
    /// Width and height of the frames, 16 to 512
    #[arg(long, default_value_t = 224)]
    size: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The data loader: clips of 4 rendered frames, shuffled
#[derive(Debug, clap::Args)]
struct DataArgs {
    /// Background threads
    #[arg(long, default_value_t = cores(), value_parser = threads)]
    threads: usize,
    /// Width and height of the frames, 16 to 512
    #[arg(long, default_value_t = 224)]
    size: usize,
    /// Batches of 32 clips to load
    #[arg(long, default_value_t = 600)]
    batches: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One solve of the cross-entropy method with random weights, one environment
///
/// The full-size DINO-WM is measured on a slice of 8 samples x 2 iterations and scaled, unless --whole is given.
#[derive(Debug, clap::Args)]
struct PlanArgs {
    /// World model: pldm or dino-wm
    #[arg(long, default_value = "pldm")]
    method: Method,
    /// Its size: full as published, compact as trained on two cores (dino-wm only)
    #[arg(long, default_value = "full")]
    size: Size,
    /// Precision of the rollouts: f32 or bf16
    #[arg(long, default_value = "f32")]
    precision: Precision,
    /// Candidate plans per iteration
    #[arg(long, default_value_t = 300, value_parser = size)]
    samples: usize,
    /// Iterations
    #[arg(long, default_value_t = 30, value_parser = size)]
    iterations: usize,
    /// Action blocks of a plan
    #[arg(long, default_value_t = 5, value_parser = size)]
    horizon: usize,
    /// Run every sample and iteration, also of the full-size DINO-WM
    #[arg(long)]
    whole: bool,
    /// Limit on the buffers of a DINO-WM rollout
    #[arg(long, value_name = "BYTES")]
    max_memory: Option<usize>,
    /// Threads
    #[arg(long, default_value_t = cores(), value_parser = threads)]
    threads: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Method {
    Pldm,
    DinoWm,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Size {
    Full,
    Compact,
}

/// Peak arithmetic of the CPU: the yardstick of every other figure
#[derive(Debug, clap::Args)]
struct PeakArgs {
    /// Precision: f32 or bf16
    #[arg(long, default_value = "f32")]
    precision: Precision,
    /// Threads
    #[arg(long, default_value_t = cores(), value_parser = threads)]
    threads: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A number of threads that a machine can start.
fn threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=1024) => Ok(count),
        _ => Err("give a number of threads from 1 to 1024".into()),
    }
}

/// A size of a planning problem.
fn size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(size @ 1..=100_000) => Ok(size),
        _ => Err("give a number from 1 to 100000".into()),
    }
}

pub fn run(args: &Args) -> Result<Outcome> {
    match &args.verb {
        Verb::Env(args) => env(args)?,
        Verb::Data(args) => data(args)?,
        Verb::Plan(args) => plan(args)?,
        Verb::Peak(args) => peak(args)?,
    }
    Ok(Outcome::Done)
}

fn env(args: &EnvArgs) -> Result<()> {
    let name = environment(&args.env)?.name;
    let (frames_per_s, steps) = if name == two_room::SPEC.name {
        (frames_per_second::<TwoRoom>(args.size, Filter::Linear, args.frames)?, walk_workload(args.steps)?)
    } else {
        (frames_per_second::<PushT>(args.size, Filter::Linear, args.frames)?, contact_workload(args.steps))
    };
    if args.json {
        return print_json(&json!({
            "env": name, "steps_per_s": steps.steps_per_s, "frames_per_s": frames_per_s,
            "contact_share": steps.contact_share, "steps": steps.steps, "frames": args.frames,
            "size": args.size, "threads": 1,
        }));
    }
    let contact = |share| format!(", {:.0} % of the sub-steps in contact", 100.0 * share);
    let contact = steps.contact_share.map_or_else(String::new, contact);
    print(format!("env     {:.0} steps/s{contact}", steps.steps_per_s))?;
    print(format!("render  {frames_per_s:.0} frames/s of {0} x {0}", args.size))
}

fn data(args: &DataArgs) -> Result<()> {
    let measured = worldbench_data::perf::throughput(args.threads, args.size, args.batches)?;
    if args.json {
        return print_json(&measured);
    }
    let (windows, frames) = (measured.windows_per_s, measured.frames_per_s);
    let (size, threads, bytes) = (args.size, args.threads, measured.bytes_per_row);
    print(format!(
        "loader  {windows:.0} clips/s, {frames:.0} frames/s of {size} x {size}, {threads} threads"
    ))?;
    print(format!("store   {bytes:.0} bytes a row"))
}

fn plan(args: &PlanArgs) -> Result<()> {
    let method = match (args.method, args.size) {
        (Method::Pldm, Size::Full) => PerfMethod::Pldm,
        (Method::DinoWm, Size::Full) => PerfMethod::DinoWmFull,
        (Method::DinoWm, Size::Compact) => PerfMethod::DinoWmCompact,
        (Method::Pldm, Size::Compact) => {
            bail!("--size compact: only dino-wm has a compact size to measure; give --method dino-wm")
        }
    };
    let slice = (method == PerfMethod::DinoWmFull && !args.whole).then_some(SLICE);
    let PlanArgs { precision, samples, iterations, horizon, threads, .. } = *args;
    let memory = args.max_memory;
    let setup = PerfSetup { method, precision, samples, iterations, horizon, slice, memory, threads };
    let measured = perf(&setup)?;
    if args.json {
        return print_json(&measured);
    }
    let (seconds, rate, share) = (measured.seconds, measured.gflops, 100.0 * measured.share_of_peak);
    print(format!("solve   {seconds:.2} s: {samples} samples x {iterations} iterations x {horizon} blocks"))?;
    let (part, rounds) = (measured.measured_samples, measured.measured_iterations);
    if (part, rounds) != (samples, iterations) {
        let ran = measured.measured_seconds;
        print(format!("scaled  from {part} samples x {rounds} iterations, which took {ran:.2} s"))?;
    }
    print(format!(
        "rate    {rate:.0} GFLOP/s {} ({}), {share:.0} % of the peak of {threads} threads; {:.0} tokens/s",
        measured.precision, measured.instructions, measured.tokens_per_s
    ))?;
    let (executed, naive) = (measured.gflop, measured.gflop_naive);
    print(format!("work    {executed:.0} GFLOP executed, {naive:.0} in the plain rollout"))?;
    if let Some(seconds) = measured.encode_seconds {
        print(format!("encode  {seconds:.3} s for context and goal"))?;
    }
    print(format!("memory  {:.0} MB of weights and buffers", measured.memory as f64 / 1e6))
}

fn peak(args: &PeakArgs) -> Result<()> {
    // The best of a few short runs: a busy machine can only make it look slower.
    let runs = (0..5).map(|_| worldbench_kernels::peak_flops(args.precision, args.threads, 20_000_000));
    let flops = runs.fold(0.0, f64::max);
    let (precision, instructions) = match args.precision {
        Precision::F32 => ("f32", worldbench_kernels::instruction_set()),
        Precision::Bf16 => ("bf16", bf16_unit()),
    };
    if args.json {
        return print_json(&json!({
            "flops": flops, "threads": args.threads, "precision": precision, "instruction_set": instructions,
        }));
    }
    print(format!("peak    {:.1} GFLOP/s {precision}, {} threads, {instructions}", flops / 1e9, args.threads))
}
