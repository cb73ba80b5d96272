//! One training step: losses and gradients of a batch, split over threads by window.

use std::ops::Range;

use super::encoder::{BatchNorm, Trunk};
use super::objective::{self, Dims};
use super::{ACTION, CompactNet, PROPRIO, linear};
use serde::{Deserialize, Serialize};
use worldbench_core::Stream;

/// A batch, time-major so that one time step of all windows is contiguous.
pub struct Batch<'a> {
    /// Frames, [T * B] of [R, R, 3] bytes each.
    pub frames: Vec<&'a [u8]>,
    /// Normalised action blocks, [T - 1, B, K * 2].
    pub actions: Vec<f32>,
    /// Normalised proprioception, [T, B, 4]; empty when the model does not use it.
    pub proprio: Vec<f32>,
    /// Windows.
    pub windows: usize,
    /// Frames of a window.
    pub steps: usize,
}

/// Loss terms of a step, unweighted but for `loss`, and the embedding's telemetry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Weighted total.
    pub loss: f32,
    /// One-step prediction error.
    pub teacher_forcing: f32,
    /// Rollout prediction error.
    pub rollout: f32,
    /// Hinge on the batch standard deviation.
    pub std: f32,
    /// Hinge on the standard deviation over time.
    pub std_t: f32,
    /// Off-diagonal covariance.
    pub cov: f32,
    /// Temporal difference.
    pub temporal: f32,
    /// SIGReg statistic.
    pub sigreg: f32,
    /// Inverse dynamics error.
    pub idm: f32,
    /// Error of the last rollout step divided by that of predicting no change.
    pub relative_rollout: f32,
}

/// Work of one thread: its windows, their dense features, and its own gradients.
struct Shard<'a> {
    windows: Range<usize>,
    frames: Vec<&'a [u8]>,
    trunk: Option<Trunk>,
    pre: Vec<f32>,
    z: Vec<f32>,
    d_z: Vec<f32>,
    d_dense: Vec<f32>,
    grads: Vec<f32>,
    metrics: Metrics,
}

/// Threads that each compute alone: kernels called on them do not split their rows any further.
pub struct Workers(Vec<rayon::ThreadPool>);

impl Workers {
    /// Starts `count` threads (at least one).
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn new(count: usize) -> Result<Self, rayon::ThreadPoolBuildError> {
        let one = || rayon::ThreadPoolBuilder::new().num_threads(1).build();
        (0..count.max(1)).map(|_| one()).collect::<Result<_, _>>().map(Self)
    }

    /// Number of threads.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Runs `work` on every shard, one thread each.
    pub(super) fn each<S: Send>(&self, shards: &mut [S], work: impl Fn(&mut S) + Sync) {
        std::thread::scope(|scope| {
            for (shard, pool) in shards.iter_mut().zip(&self.0) {
                let work = &work;
                scope.spawn(move || pool.install(|| work(shard)));
            }
        });
    }
}

impl CompactNet {
    /// Losses and gradients (written to `grads`) of one batch. `running` holds the BatchNorm mean and variance,
    /// [2 * hidden], and is moved towards the batch. `stream` draws SIGReg's directions.
    pub fn step(
        &self,
        params: &[f32],
        running: &mut [f32],
        batch: &Batch,
        stream: &mut Stream,
        workers: &Workers,
        grads: &mut [f32],
    ) -> Metrics {
        let (t, b, d) = (batch.steps, batch.windows, self.config.encoder.latent);
        let mut shards = self.shards(batch, workers.count().min(b));
        workers.each(&mut shards, |s| s.trunk = Some(self.encoder.trunk(params, &s.frames)));
        let hidden = self.config.encoder.normed();
        let dense = gather(&shards, t, b, hidden, |s| s.trunk.as_ref().map_or(&[], |t| &t.dense));
        let norm = BatchNorm::of(&dense, hidden);
        let (mean, variance) = running.split_at_mut(hidden);
        norm.update_running(mean, variance, t * b);
        workers.each(&mut shards, |s| {
            if let Some(trunk) = &s.trunk {
                (s.pre, s.z) = self.encoder.embed(params, &trunk.dense, &norm);
            }
        });
        let z = gather(&shards, t, b, d, |s| &s.z);
        let mut d_z = vec![0.0; z.len()];
        let mut metrics = self.regularise(&z, Dims { t, b, d }, stream, &mut d_z);
        workers.each(&mut shards, |s| self.shard_backward(params, batch, &d_z, &norm, s));
        let d_normalised = gather(&shards, t, b, hidden, |s| &s.d_dense);
        let d_dense = norm.backward(&dense, &d_normalised);
        workers.each(&mut shards, |s| {
            let grad = scatter(&d_dense, t, b, hidden, &s.windows);
            // Taken, so that its maps return to this thread's pool.
            if let Some(trunk) = s.trunk.take() {
                self.encoder.trunk_backward(params, &s.frames, &trunk, &grad, &mut s.grads);
            }
        });
        grads.fill(0.0);
        for shard in &shards {
            grads.iter_mut().zip(&shard.grads).for_each(|(g, s)| *g += s);
            metrics.add(&shard.metrics);
        }
        metrics
    }

    fn shards<'a>(&self, batch: &Batch<'a>, count: usize) -> Vec<Shard<'a>> {
        let b = batch.windows;
        (0..count)
            .map(|i| {
                let windows = i * b / count..(i + 1) * b / count;
                let frames = scatter(&batch.frames, batch.steps, b, 1, &windows);
                Shard {
                    windows,
                    frames,
                    trunk: None,
                    pre: vec![],
                    z: vec![],
                    d_z: vec![],
                    d_dense: vec![],
                    grads: vec![0.0; self.table.len()],
                    metrics: Metrics::default(),
                }
            })
            .collect()
    }

    /// The terms that look at the whole batch.
    fn regularise(&self, z: &[f32], dims: Dims, stream: &mut Stream, d_z: &mut [f32]) -> Metrics {
        let w = &self.config.weights;
        let mut m = Metrics::default();
        (m.std, m.std_t, m.cov) = objective::vcreg(z, dims, w, d_z);
        m.temporal = objective::temporal(z, dims, w.temporal, d_z);
        if w.sigreg > 0.0 {
            let directions = objective::directions(stream, self.config.projections, dims.d);
            m.sigreg = objective::sigreg(z, dims, &directions, w.sigreg, d_z);
        }
        m.loss =
            w.std * m.std + w.std_t * m.std_t + w.cov * m.cov + w.temporal * m.temporal + w.sigreg * m.sigreg;
        m
    }

    /// Prediction and inverse-dynamics losses of a shard's windows, back to its dense features.
    fn shard_backward(&self, params: &[f32], batch: &Batch, d_z: &[f32], norm: &BatchNorm, s: &mut Shard) {
        let (t, b, d) = (batch.steps, batch.windows, self.config.encoder.latent);
        let n = s.windows.len();
        let share = n as f32 / b as f32;
        s.d_z = scatter(d_z, t, b, d, &s.windows);
        let width = self.config.state_dim();
        let proprio =
            if self.config.proprio { scatter(&batch.proprio, t, b, PROPRIO, &s.windows) } else { Vec::new() };
        let states = join(&s.z, d, &proprio, PROPRIO); // [T, n, S]
        let mut d_states = vec![0.0; states.len()];
        let inputs = self.action_inputs(batch, &s.windows); // [T-1, n, A]
        self.predict(params, &states, &inputs, share, &mut d_states, s);
        for (row, d_row) in d_states.chunks_exact(width).zip(s.d_z.chunks_exact_mut(d)) {
            d_row.iter_mut().zip(row).for_each(|(a, g)| *a += g);
        }
        if self.config.weights.idm > 0.0 {
            self.inverse_dynamics(params, batch, share, s);
        }
        let w = &self.config.weights;
        s.metrics.loss = w.teacher_forcing * s.metrics.teacher_forcing
            + w.rollout * s.metrics.rollout
            + w.idm * s.metrics.idm;
        if let Some(trunk) = &s.trunk {
            s.d_dense = self.encoder.embed_backward(params, &trunk.dense, norm, &s.pre, &s.d_z, &mut s.grads);
        }
    }

    /// Predictor inputs of every step: the action block and, when configured, the previous one with a flag.
    fn action_inputs(&self, batch: &Batch, windows: &Range<usize>) -> Vec<f32> {
        let block = self.config.block_dim();
        let mut out = Vec::new();
        for t in 0..batch.steps - 1 {
            for b in windows.clone() {
                let at = |t: usize| &batch.actions[(t * batch.windows + b) * block..][..block];
                out.extend_from_slice(at(t));
                if self.config.previous_action {
                    match t.checked_sub(1) {
                        Some(previous) => out.extend(at(previous).iter().copied().chain([1.0])),
                        None => out.extend(std::iter::repeat_n(0.0, block + 1)),
                    }
                }
            }
        }
        out
    }

    fn predict(
        &self,
        params: &[f32],
        states: &[f32],
        inputs: &[f32],
        share: f32,
        d_states: &mut [f32],
        s: &mut Shard,
    ) {
        let w = &self.config.weights;
        let n = s.windows.len();
        let row = n * self.config.state_dim();
        let step = n * self.config.action_input();
        let horizon = inputs.len() / step;
        if w.teacher_forcing > 0.0 {
            let tape = self.predictor.forward(params, states[..horizon * row].to_vec(), inputs.to_vec());
            let mut d_next = vec![0.0; tape.next.len()];
            let (d_from, weight) = (&mut d_states[row..], w.teacher_forcing * share);
            let error =
                objective::squared_error(&tape.next, &states[row..], weight, &mut d_next, Some(d_from));
            s.metrics.teacher_forcing = error * share;
            let d = self.predictor.backward(params, &tape, &d_next, &mut s.grads);
            d_states.iter_mut().zip(&d).for_each(|(a, g)| *a += g);
        }
        if w.rollout > 0.0 {
            let mut tapes = Vec::with_capacity(horizon);
            let mut current = states[..row].to_vec();
            for h in 0..horizon {
                let tape = self.predictor.forward(params, current, inputs[h * step..(h + 1) * step].to_vec());
                current = tape.next.clone();
                tapes.push(tape);
            }
            let weight = w.rollout * share / horizon as f32;
            let mut d_next = vec![0.0; row];
            for h in (0..horizon).rev() {
                let target = (h + 1) * row..(h + 2) * row;
                let d_target = Some(&mut d_states[target.clone()]);
                let next = &tapes[h].next;
                let error =
                    objective::squared_error(next, &states[target.clone()], weight, &mut d_next, d_target);
                s.metrics.rollout += error * share / horizon as f32;
                if h + 1 == horizon {
                    let still =
                        states[target].iter().zip(states).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
                    s.metrics.relative_rollout = share * error * row as f32 / still.max(1e-12);
                }
                d_next = self.predictor.backward(params, &tapes[h], &d_next, &mut s.grads);
            }
            d_states.iter_mut().zip(&d_next).for_each(|(a, g)| *a += g);
        }
    }

    fn inverse_dynamics(&self, params: &[f32], batch: &Batch, share: f32, s: &mut Shard) {
        let d = self.config.encoder.latent;
        let n = s.windows.len();
        let pairs = (batch.steps - 1) * n;
        let mut input = Vec::with_capacity(pairs * 2 * d); // [next; current], PLDM's order
        for (current, next) in s.z.chunks_exact(d).zip(s.z[n * d..].chunks_exact(d)) {
            input.extend_from_slice(next);
            input.extend_from_slice(current);
        }
        let block = self.config.block_dim();
        let actions = scatter(&batch.actions, batch.steps - 1, batch.windows, block, &s.windows);
        let scale = ACTION as f32 / block as f32;
        let target: Vec<f32> = actions
            .chunks_exact(block)
            .flat_map(|a| (0..ACTION).map(move |j| a.iter().skip(j).step_by(ACTION).sum::<f32>() * scale))
            .collect();
        let pre = linear::forward(params, &self.idm[0], &input);
        let post = linear::gelu(&pre);
        let out = linear::forward(params, &self.idm[1], &post);
        let mut d_out = vec![0.0; out.len()];
        let weight = self.config.weights.idm * share;
        s.metrics.idm = share * objective::squared_error(&out, &target, weight, &mut d_out, None);
        let d_pre = linear::backward(params, &self.idm[1], &post, &d_out, &mut s.grads);
        let d_pre = linear::gelu_backward(&pre, &d_pre);
        let d_input = linear::backward(params, &self.idm[0], &input, &d_pre, &mut s.grads);
        for (i, pair) in d_input.chunks_exact(2 * d).enumerate() {
            for j in 0..d {
                s.d_z[(i + n) * d + j] += pair[j];
                s.d_z[i * d + j] += pair[d + j];
            }
        }
    }
}

impl Metrics {
    fn add(&mut self, other: &Self) {
        self.loss += other.loss;
        self.teacher_forcing += other.teacher_forcing;
        self.rollout += other.rollout;
        self.idm += other.idm;
        self.relative_rollout += other.relative_rollout;
    }
}

/// Rows [a; b] side by side.
fn join(a: &[f32], wa: usize, b: &[f32], wb: usize) -> Vec<f32> {
    if b.is_empty() {
        return a.to_vec();
    }
    a.chunks_exact(wa).zip(b.chunks_exact(wb)).flat_map(|(a, b)| a.iter().chain(b)).copied().collect()
}

/// One [T, B, W] array out of the shards' [T, n, W] parts.
fn gather<'a>(
    shards: &'a [Shard<'a>],
    t: usize,
    b: usize,
    w: usize,
    part: impl Fn(&'a Shard<'a>) -> &'a [f32],
) -> Vec<f32> {
    let mut out = vec![0.0; t * b * w];
    for shard in shards {
        let (n, values) = (shard.windows.len(), part(shard));
        for i in 0..t {
            let at = (i * b + shard.windows.start) * w;
            out[at..at + n * w].copy_from_slice(&values[i * n * w..(i + 1) * n * w]);
        }
    }
    out
}

/// The [T, n, W] part of a [T, B, W] array that belongs to `windows`.
fn scatter<X: Clone>(all: &[X], t: usize, b: usize, w: usize, windows: &Range<usize>) -> Vec<X> {
    let of_step = |i| &all[(i * b + windows.start) * w..(i * b + windows.end) * w];
    (0..t).map(of_step).collect::<Vec<_>>().concat()
}
