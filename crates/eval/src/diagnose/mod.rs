//! What limits a learned model: its eyes, its dynamics, its cost, or the planner.
//!
//! Everything is measured on the pairs of a manifest, which no training data share a random stream with. Their
//! recordings are replayed, so that states, frames and actions of 25 steps around each pair are known:
//!
//! * [`Probe`]: how well a linear reader finds the pose in the latent of one frame;
//! * open-loop error: predicted against encoded latents after 1, 2, ... blocks, relative to predicting no change;
//! * [`swap`]: success when dynamics or cost are replaced by the truth;
//! * rank correlation of latent cost and true distance over the candidates of each solver iteration.

mod probe;
mod swap;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::Serialize;
use worldbench_core::{Frame, Stream};
use worldbench_env::{DomainRef, PROPRIO, Scene};
use worldbench_plan::{Context, Iteration, KeyedNoise, LatentModel, Shape};

pub use probe::{Probe, ProbeError};
pub use swap::{Part, Subject, Swap};

use crate::outcome::Rate;
use crate::plot::{Plot, Series, text, write_png};
use crate::policies::PlannerConfig;
use crate::policies::planner::{ACTION, Eyes, failed};
use crate::runner::{Progress, goal_at, reset};
use crate::{EpisodeContext, EvalError, EvalOptions, Manifest, Pair, Protocol, evaluate};
use swap::{Problem, SwapCost};

/// Pairs that rank correlations are averaged over.
const RANKED: usize = 20;

/// What [`diagnose`] found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Pairs that the swap is run on and the other figures are measured on.
    pub pairs: usize,
    /// Frames that the probe was fitted on and measured on.
    pub frames: [usize; 2],
    /// Poses read from latents of frames alone.
    pub probe: Vec<ProbeError>,
    /// Squared error of predicted latents after 1, 2, ... blocks, divided by that of predicting no change.
    pub open_loop: Vec<f64>,
    /// Spearman correlation of latent cost and true distance among the candidates of each solver iteration, mean
    /// over the first pairs, with learned dynamics.
    pub rank_correlation: Vec<f64>,
    /// Success with parts replaced by the truth.
    pub swap: Vec<Cell>,
    /// Solver and horizon of swap and rank correlation: a reduced budget is not that of a published score.
    pub planner: PlannerConfig,
}

/// How far an examination is.
#[derive(Clone, Copy, Debug)]
pub struct Phase<'a> {
    /// What is being done.
    pub what: &'a str,
    /// Pairs that it is done for.
    pub done: usize,
    /// Pairs in all.
    pub total: usize,
}

/// Told of every pair, from any thread.
pub type Watch<'a> = &'a (dyn Fn(Phase) + Sync);

/// One cell of the swap.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cell {
    /// Source of the dynamics.
    pub dynamics: Part,
    /// Source of the cost.
    pub cost: Part,
    /// Success on all pairs.
    pub all: Rate,
    /// Success on the environment's hard pairs: in Push-T those whose block moves.
    pub block_moved: Rate,
}

/// A replayed recording.
struct Clip {
    states: Vec<Vec<f64>>,
    /// Agent position and velocity of each state.
    proprio: Vec<[f64; PROPRIO]>,
    frames: Vec<Vec<u8>>,
    /// Latents, `[steps + 1, L]`.
    latents: Vec<f32>,
    actions: Vec<f32>,
}

/// Examines `model` with the planner of `config` on the first `pairs` pairs of `manifest`; the probe is fitted on
/// the others. `watch` is told how far it is.
///
/// # Errors
/// When the manifest has no pairs to fit on, the configuration makes no sense, or model or environment fail.
pub fn diagnose(
    model: &Arc<dyn LatentModel>,
    config: &PlannerConfig,
    protocol: &Protocol,
    manifest: &Manifest,
    pairs: usize,
    watch: Watch,
) -> Result<Report, EvalError> {
    if pairs == 0 || pairs >= manifest.pairs.len() {
        let most = manifest.pairs.len().saturating_sub(1);
        return Err(EvalError::Options(format!(
            "pairs = {pairs} must lie in 1..={most}: the others fit the probe"
        )));
    }
    let env = protocol.env()?;
    let scene = env.scene(&Default::default())?;
    let clips = for_each(&manifest.pairs, ("encoding the recordings", watch), |i, pair| {
        clip(model.as_ref(), env, pair).map_err(|message| failed("diagnose", i, message))
    })?;
    let (held_out, fitted) = clips.split_at(pairs);
    let (probe, frames) = pose(model.as_ref(), env, &scene, fitted, held_out)?;
    let open_loop = open_loop(model.as_ref(), held_out).map_err(|message| failed("diagnose", 0, message))?;
    let options = |e: worldbench_plan::PlanError| EvalError::Options(e.to_string());
    config.plan.validate().map_err(options)?;
    let subject = Subject {
        model: Arc::clone(model),
        probe: Arc::new(whole_probe(env, fitted)),
        solver: Arc::from(config.solver.build().map_err(options)?),
        plan: config.plan.clone(),
        objective: config.objective,
    };
    let rank_correlation = rank_correlation(&subject, protocol, &manifest.pairs[..pairs.min(RANKED)], watch)?;
    let swap = cells(&subject, protocol, manifest, pairs, watch)?;
    Ok(Report { pairs, frames, probe, open_loop, rank_correlation, swap, planner: config.clone() })
}

/// What `of` makes of every pair, in order; the watch is told of each under the name beside it.
fn for_each<T: Send>(
    pairs: &[Pair],
    (what, watch): (&str, Watch),
    of: impl Fn(usize, &Pair) -> Result<T, EvalError> + Sync,
) -> Result<Vec<T>, EvalError> {
    let (total, done) = (pairs.len(), AtomicUsize::new(0));
    watch(Phase { what, done: 0, total });
    let one = |(index, pair)| {
        let made = of(index, pair)?;
        watch(Phase { what, done: 1 + done.fetch_add(1, Ordering::Relaxed), total });
        Ok(made)
    };
    pairs.par_iter().enumerate().map(one).collect()
}

fn clip(model: &dyn LatentModel, domain: DomainRef, pair: &Pair) -> Result<Clip, String> {
    let scene = domain.scene(&pair.factors).map_err(|e| e.to_string())?;
    let mut env = reset(domain, &scene, &pair.start, &pair.goal).map_err(|e| e.to_string())?;
    let mut eyes = Eyes::new(model, domain, &env.scene())?;
    let (mut states, mut frames) = (vec![env.state()], vec![eyes.frame(&env.look())?]);
    for action in &pair.actions {
        env.step(*action);
        states.push(env.state());
        frames.push(eyes.frame(&env.look())?);
    }
    let proprio: Vec<[f64; PROPRIO]> = states.iter().map(|s| domain.spec().proprioception(s)).collect();
    let latents = model.latents(&frames, &proprio).map_err(|e| e.to_string())?;
    Ok(Clip { states, proprio, frames, latents, actions: pair.actions.iter().flatten().copied().collect() })
}

/// Poses read from what the frame alone determines: fitted on one part of the clips, measured on the other.
fn pose(
    model: &dyn LatentModel,
    env: DomainRef,
    scene: &Scene,
    fitted: &[Clip],
    held_out: &[Clip],
) -> Result<(Vec<ProbeError>, [usize; 2]), EvalError> {
    let width = model.embedding();
    let gather = |clips: &[Clip]| -> (Vec<f32>, Vec<Vec<f64>>) {
        let rows = clips.iter().flat_map(|c| c.latents.chunks_exact(c.latents.len() / c.states.len()));
        let latents = rows.flat_map(|row| &row[..width]).copied().collect();
        (latents, clips.iter().flat_map(|c| c.states.iter().cloned()).collect())
    };
    let ((x, y), (test_x, test_y)) = (gather(fitted), gather(held_out));
    let errors = Probe::fit(env, &x, width, &y).errors(scene, &test_x, width, &test_y)?;
    Ok((errors, [y.len(), test_y.len()]))
}

/// A probe of whole latents, proprioception included: reads predicted states in the swap.
fn whole_probe(env: DomainRef, clips: &[Clip]) -> Probe {
    let width = clips.first().map_or(1, |c| c.latents.len() / c.states.len());
    let latents: Vec<f32> = clips.iter().flat_map(|c| c.latents.iter().copied()).collect();
    let states: Vec<Vec<f64>> = clips.iter().flat_map(|c| c.states.iter().cloned()).collect();
    Probe::fit(env, &latents, width, &states)
}

/// Relative error of predictions from the first frame, after each whole block of the recordings.
fn open_loop(model: &dyn LatentModel, clips: &[Clip]) -> Result<Vec<f64>, String> {
    let (steps, block) = (model.action_block(), model.action_block() * ACTION);
    let horizon = clips.iter().map(|c| c.actions.len() / block).min().unwrap_or(0);
    let (mut error, mut still) = (vec![0.0; horizon], vec![0.0; horizon]);
    for clip in clips {
        let mut plan = clip.actions[..horizon * block].to_vec();
        plan.chunks_exact_mut(block).for_each(|b| model.encode_block(b));
        let context = Context {
            frames: &clip.frames[..1],
            proprio: &clip.proprio[..1],
            actions: &[],
            goal_frame: &clip.frames[0],
            goal_proprio: clip.proprio[0],
        };
        let shape = Shape { horizon, dim: block };
        let path = model.rollout(&context, shape, &plan).map_err(|e| e.to_string())?; // [1, H, L]
        let width = path.len() / horizon.max(1);
        let at = |h: usize| &clip.latents[h * steps * width..][..width];
        for (h, predicted) in path.chunks_exact(width.max(1)).enumerate() {
            error[h] += squared_distance(predicted, at(h + 1));
            still[h] += squared_distance(at(0), at(h + 1));
        }
    }
    Ok(error.iter().zip(&still).map(|(e, s)| e / s.max(1e-12)).collect())
}

fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum()
}

/// Plans once from every pair's start with the learned model, and compares the order of its candidates with that
/// of the true distances; mean over pairs for each iteration.
fn rank_correlation(
    subject: &Subject,
    protocol: &Protocol,
    pairs: &[Pair],
    watch: Watch,
) -> Result<Vec<f64>, EvalError> {
    let of = |index: usize, pair: &Pair| -> Result<Vec<f64>, EvalError> {
        let stream = Stream::new(0, "diagnose ranks", &[index as u64]);
        let domain = protocol.env()?;
        let scene = domain.scene(&pair.factors)?;
        let env = reset(domain, &scene, &pair.start, &pair.goal)?;
        let goal = goal_at(domain, &scene, &pair.goal)?;
        let seen = (env.look(), domain.spec().proprioception(&env.state()));
        let (budget, limits, stream_copy) = (protocol.budget, protocol.limits, stream.clone());
        let context =
            EpisodeContext { index, seed: 0, budget, limits, pair, goal: &goal, env, stream: stream_copy };
        let fail = |message: String| failed("diagnose", index, message);
        let mut problem = Problem::new(subject, &context).map_err(fail)?;
        let swap = Swap { subject: subject.clone(), dynamics: Part::Learned, cost: Part::Learned };
        let shape = Shape { horizon: subject.plan.horizon, dim: subject.model.action_block() * ACTION };
        let iterations = problem.with_context(&[&seen], &[], |problem, context| {
            let mut iterations: Vec<(Vec<f32>, Vec<f32>)> = Vec::new();
            let mut cost = SwapCost { swap: &swap, problem, context };
            let mut keep = |it: &Iteration<'_>| {
                iterations.push((it.candidates.to_vec(), it.costs.to_vec()));
            };
            let (cost, noise, observe) = (&mut cost, &mut KeyedNoise(&stream), &mut keep);
            let solved = subject.solver.solve_with(worldbench_plan::Problem {
                shape,
                cost,
                init: None,
                noise,
                observe,
            });
            solved.map_err(|e| e.to_string())?;
            Ok(iterations)
        });
        let correlation = |(candidates, costs): &(Vec<f32>, Vec<f32>)| {
            let truth = problem.true_distances(subject.model.as_ref(), shape, candidates)?;
            Ok(spearman(&costs.iter().map(|&c| f64::from(c)).collect::<Vec<_>>(), &truth))
        };
        iterations.map_err(fail)?.iter().map(correlation).collect()
    };
    let all = for_each(pairs, ("ranking candidates", watch), of)?;
    let iterations = all.iter().map(Vec::len).min().unwrap_or(0);
    let mean = |i: usize| all.iter().map(|one| one[i]).sum::<f64>() / all.len() as f64;
    Ok((0..iterations).map(mean).collect())
}

fn cells(
    subject: &Subject,
    protocol: &Protocol,
    manifest: &Manifest,
    pairs: usize,
    watch: Watch,
) -> Result<Vec<Cell>, EvalError> {
    let mut cells = Vec::new();
    for dynamics in [Part::Learned, Part::True] {
        for cost in [Part::Learned, Part::True] {
            let swap = Swap { subject: subject.clone(), dynamics, cost };
            let what = format!("{dynamics:?} dynamics, {cost:?} cost").to_lowercase();
            let progress = |now: &Progress| watch(Phase { what: &what, done: now.done, total: now.total });
            let options =
                EvalOptions { limit: Some(pairs), progress: Some(&progress), ..EvalOptions::default() };
            let score = evaluate(protocol, manifest, &swap, &options)?.score;
            cells.push(Cell { dynamics, cost, all: score.all, block_moved: score.block_moved });
        }
    }
    Ok(cells)
}

/// Rank correlation of two samples in `[-1, 1]`; ties share their mean rank; 0 when either is constant.
#[must_use]
pub fn spearman(a: &[f64], b: &[f64]) -> f64 {
    let (a, b) = (ranks(a), ranks(b));
    let mean = (a.len() as f64 - 1.0) / 2.0;
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| (x - mean) * (y - mean)).sum::<f64>();
    let scale = (product(&a, &a) * product(&b, &b)).sqrt();
    if scale > 0.0 { product(&a, &b) / scale } else { 0.0 }
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&i, &j| values[i].total_cmp(&values[j]));
    let mut ranks = vec![0.0; values.len()];
    let mut first = 0;
    for group in order.chunk_by(|&i, &j| values[i].total_cmp(&values[j]).is_eq()) {
        let rank = first as f64 + (group.len() as f64 - 1.0) / 2.0;
        group.iter().for_each(|&i| ranks[i] = rank);
        first += group.len();
    }
    ranks
}

impl Report {
    /// Two curves and the table of the swap as one picture, written to `path` as PNG.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_picture(&self, path: &Path) -> Result<(), EvalError> {
        let (width, height) = (320, 220);
        let blocks: Vec<(f64, f64)> =
            self.open_loop.iter().enumerate().map(|(h, &e)| (h as f64 + 1.0, e)).collect();
        let error = Plot {
            title: "open-loop error / no change".into(),
            x_label: "blocks".into(),
            series: vec![Series { name: String::new(), points: blocks }],
            levels: vec![1.0],
            y_range: Some((0.0, 1.1 * self.open_loop.iter().copied().fold(1.0, f64::max))),
            ..Plot::default()
        };
        let ranks = Plot {
            title: "rank correlation of cost and distance".into(),
            x_label: "solver iteration".into(),
            series: vec![Series::over_index("", &self.rank_correlation)],
            y_range: Some((-0.2, 1.0)),
            ..Plot::default()
        };
        let mut table = Frame { width, height, data: vec![255; width * height * 3] };
        let cells = self.swap.iter().map(|c| {
            let name = |part| if part == Part::Learned { "learned" } else { "true" };
            format!("{:<8} {:<8} {:.0} %", name(c.dynamics), name(c.cost), 100.0 * c.all.rate)
        });
        let probe = self.probe.iter().map(|p| format!("{}: {:.1}", p.quantity, p.median));
        let lines =
            [format!("success on {} pairs", self.pairs), "dynamics cost".into()].into_iter().chain(cells);
        let lines = lines.chain([String::new(), "probe, median error".into()]).chain(probe);
        for (i, line) in lines.enumerate() {
            text(&mut table, 8, 8 + 14 * i, &line, [40; 3]);
        }
        write_png(path, &beside(&[error.render(width, height), ranks.render(width, height), table]))
    }
}

/// Frames of equal height in one row.
fn beside(frames: &[Frame]) -> Frame {
    let (width, height) = (frames.iter().map(|f| f.width).sum(), frames.first().map_or(0, |f| f.height));
    let line =
        |y: usize| frames.iter().flat_map(move |f| f.data[y * f.width * 3..(y + 1) * f.width * 3].iter());
    Frame { width, height, data: (0..height).flat_map(line).copied().collect() }
}

#[cfg(test)]
mod tests;
