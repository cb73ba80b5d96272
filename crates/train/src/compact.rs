//! Compact PLDM and LeWM as [`Learner`]s, and their checkpoints as planning models.

use std::path::Path;

use serde::{Deserialize, Serialize};
use worldbench_core::Stream;
use worldbench_data::{Batch, EpisodeView, FrameSource, FrameSpec, Split, Store};
use worldbench_models::compact::{
    self, ACTION, CompactConfig, CompactEncoder, CompactModel, CompactNet, Encoder, EncoderConfig,
    Normalisation, PROPRIO, ParamTable, Whitener, Workers,
};

use crate::checkpoint::{self, Tensor, Tensors};
use crate::config::compact_frame;
use crate::{Learner, Method, Metrics, ModelConfig, TrainConfig, TrainError};

/// Key of the frame that is subtracted from every other.
pub(crate) const BACKGROUND: &str = "encoder.background";
/// Frames whose median is the background; odd, so that it is one of their values.
const BACKGROUND_FRAMES: usize = 255;
/// Keys of the BatchNorm statistics.
pub(crate) const RUNNING: [&str; 2] = ["encoder.norm.running_mean", "encoder.norm.running_var"];

/// A compact model in training.
pub struct CompactLearner {
    net: CompactNet,
    params: Vec<f32>,
    /// BatchNorm mean and variance, [2 * hidden].
    running: Vec<f32>,
    normalisation: Normalisation,
    workers: Workers,
    method: Method,
    seed: u64,
}

/// `config.toml` of a compact checkpoint.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    architecture: String,
    method: Method,
    model: CompactConfig,
    normalisation: Normalisation,
}

impl CompactLearner {
    /// A fresh model; its normalisation is fitted on the training episodes.
    ///
    /// # Errors
    /// When the configuration makes no sense or the data are too few.
    pub fn new(config: &TrainConfig, store: &Store, split: &Split) -> Result<Self, TrainError> {
        config.check()?;
        let ModelConfig::Compact(model) = &config.model else {
            return Err(TrainError::Config("model.architecture is not \"compact\"".into()));
        };
        let [proprio_mean, proprio_std] = moments(model.action_block, store, &split.train)?;
        let actions = whitener(model.action_block, store, &split.train)?;
        let normalisation = Normalisation { actions, proprio_mean, proprio_std };
        let mut net = CompactNet::new(model);
        net.encoder.background = median_frame(compact_frame(model), store, &split.train)?;
        let hidden = model.encoder.normed();
        let mut running = vec![0.0; 2 * hidden];
        running[hidden..].fill(1.0);
        let workers =
            Workers::new(config.threads).map_err(|e| TrainError::Config(format!("threads: {e}")))?;
        let params = net.table.init(config.seed);
        Ok(Self { params, running, normalisation, workers, method: config.method, seed: config.seed, net })
    }

    /// The present weights, ready for planning.
    #[must_use]
    pub fn model(&self) -> CompactModel {
        CompactModel::new(self.net.clone(), &self.params, &self.running, self.normalisation.clone())
    }

    fn batch<'a>(&self, batch: &'a Batch) -> compact::Batch<'a> {
        let b = batch.windows.len();
        let t = batch.missing.len() / b;
        let block = self.net.config.block_dim();
        let frame = self.net.encoder.frame_bytes();
        let mut out = compact::Batch {
            frames: Vec::with_capacity(b * t),
            actions: Vec::with_capacity((t - 1) * b * block),
            proprio: Vec::new(),
            windows: b,
            steps: t,
        };
        for step in 0..t {
            for window in 0..b {
                let i = window * t + step;
                out.frames.push(&batch.frames[i * frame..(i + 1) * frame]);
                if step + 1 < t {
                    let start = out.actions.len();
                    out.actions.extend_from_slice(&batch.actions[i * block..(i + 1) * block]);
                    self.normalisation.actions.forward(&mut out.actions[start..]);
                }
                if self.net.config.proprio {
                    let raw = std::array::from_fn(|k| f64::from(batch.proprio[i * PROPRIO + k]));
                    out.proprio.extend(self.normalisation.proprio(&raw));
                }
            }
        }
        out
    }

    fn frame_shape(&self) -> Vec<usize> {
        frame_shape(&self.net.config.encoder)
    }
}

pub(crate) fn frame_shape(config: &EncoderConfig) -> Vec<usize> {
    vec![config.resolution, config.resolution, 3]
}

/// Keys and shapes of the tensors of `table`, then of the encoder's statistics and background.
fn keys(table: &ParamTable, config: &EncoderConfig) -> Vec<(String, Vec<usize>)> {
    let params = table.params().iter().map(|p| (p.name.clone(), p.shape.clone()));
    let running = RUNNING.map(|key| (key.to_string(), vec![config.normed()]));
    params.chain(running).chain([(BACKGROUND.into(), frame_shape(config))]).collect()
}

/// Takes the tensors of `table`, the statistics and the background; the rest as [`checkpoint::assign`].
fn assign(
    path: &Path,
    tensors: Tensors,
    (table, encoder): (&ParamTable, &mut Encoder),
    [params, running]: [&mut [f32]; 2],
) -> Result<String, TrainError> {
    let ranges: Vec<_> = table.params().iter().map(|p| p.range.clone()).collect();
    let (hidden, keys) = (encoder.config.normed(), keys(table, &encoder.config));
    checkpoint::assign(path, tensors, &keys, |i, values| match ranges.get(i) {
        Some(range) => params[range.clone()].copy_from_slice(&values),
        None if i < ranges.len() + RUNNING.len() => {
            running[(i - ranges.len()) * hidden..][..hidden].copy_from_slice(&values);
        }
        None => encoder.background = values,
    })
}

/// Size and tensors of the encoder in the compact checkpoint `directory`.
///
/// # Errors
/// When there is no such checkpoint.
pub(crate) fn encoder_tensors(directory: &Path) -> Result<(EncoderConfig, Tensors), TrainError> {
    let saved = read_config(directory)?;
    let (mut tensors, _) = checkpoint::read_tensors(&directory.join("model.safetensors"))?;
    tensors.retain(|key, _| key.starts_with("encoder."));
    Ok((saved.model.encoder, tensors))
}

/// The encoder that `tensors`, read from `path`, make.
///
/// # Errors
/// Names every missing, unexpected and misshapen key.
pub(crate) fn encoder_of(
    path: &Path,
    config: &EncoderConfig,
    tensors: Tensors,
) -> Result<CompactEncoder, TrainError> {
    let (mut encoder, table) = CompactEncoder::declare(config);
    let (mut params, mut running) = (vec![0.0; table.len()], vec![0.0; 2 * config.normed()]);
    assign(path, tensors, (&table, &mut encoder), [&mut params, &mut running])?;
    Ok(CompactEncoder::new(encoder, &params, &running))
}

fn read_config(directory: &Path) -> Result<Saved, TrainError> {
    let (path, text, table) = crate::read_config(directory)?;
    let (architecture, method) = (crate::word(&table, "architecture"), crate::word(&table, "method"));
    if architecture != "compact" {
        let problem = format!(
            "a checkpoint of a compact PLDM or LeWM is needed, this one is of method `{method}` and architecture \
             `{architecture}`; give the directory of another"
        );
        return Err(TrainError::Checkpoint { path, problem });
    }
    crate::saved(&text).map_err(|e| TrainError::Checkpoint {
        path,
        problem: format!("{}; it is not the config.toml of a compact checkpoint", e.message()),
    })
}

/// First rows of the whole action blocks of `episodes`, with their views.
fn block_starts<'a>(
    block: usize,
    store: &'a Store,
    episodes: &'a [usize],
) -> impl Iterator<Item = Result<(EpisodeView<'a>, usize), TrainError>> {
    episodes.iter().flat_map(move |&episode| {
        let view = store.view(episode);
        let last = view.as_ref().map_or(1, |view| view.len().saturating_sub(block));
        (0..last).step_by(block).map(move |start| Ok((store.view(episode)?, start)))
    })
}

const NO_BLOCK: &str = "the training split holds no action block; collect more episodes";

/// Whitening of the action blocks of `episodes`.
pub(crate) fn whitener(block: usize, store: &Store, episodes: &[usize]) -> Result<Whitener, TrainError> {
    let mut blocks = Vec::new();
    for found in block_starts(block, store, episodes) {
        let (view, start) = found?;
        let actions: Vec<f32> = (start..start + block).flat_map(|row| view.action(row)).collect();
        blocks.extend(actions);
    }
    if blocks.len() < 2 * block * ACTION {
        return Err(TrainError::Config(NO_BLOCK.into()));
    }
    Ok(Whitener::fit(&blocks, block * ACTION))
}

/// Mean and standard deviation of the proprioception where action blocks of `episodes` begin.
pub(crate) fn moments(
    block: usize,
    store: &Store,
    episodes: &[usize],
) -> Result<[[f64; PROPRIO]; 2], TrainError> {
    let (mut sums, mut rows) = ([[0.0f64; 2]; PROPRIO], 0.0);
    for found in block_starts(block, store, episodes) {
        let (view, start) = found?;
        for (sum, v) in sums.iter_mut().zip(view.proprio(start)) {
            sum[0] += v;
            sum[1] += v * v;
        }
        rows += 1.0;
    }
    if rows < 2.0 {
        return Err(TrainError::Config(NO_BLOCK.into()));
    }
    let mean = sums.map(|s| s[0] / rows);
    Ok([mean, std::array::from_fn(|i| (sums[i][1] / rows - mean[i] * mean[i]).max(1e-8).sqrt())])
}

/// Per-pixel median of frames spread over `episodes`, [R, R, 3]: what does not move.
pub(crate) fn median_frame(
    spec: FrameSpec,
    store: &Store,
    episodes: &[usize],
) -> Result<Vec<f32>, TrainError> {
    let bytes = spec.resolution * spec.resolution * 3;
    let mut source = FrameSource::new(spec);
    let mut frames = vec![0; BACKGROUND_FRAMES * bytes];
    for (i, frame) in frames.chunks_exact_mut(bytes).enumerate() {
        let episode = episodes[i * episodes.len() / BACKGROUND_FRAMES];
        let view = store.view(episode)?;
        // A stride that is no simple part of an episode's length visits early and late rows alike.
        source.write(episode, &view, i * 37 % view.len(), frame)?;
    }
    let median = |pixel: usize| {
        let mut values: Vec<u8> = frames.iter().skip(pixel).step_by(bytes).copied().collect();
        f32::from(*values.select_nth_unstable(BACKGROUND_FRAMES / 2).1)
    };
    Ok((0..bytes).map(median).collect())
}

/// Clips that a training configuration sees.
#[must_use]
pub fn window_spec(config: &TrainConfig) -> worldbench_data::WindowSpec {
    config.window_spec()
}

impl Learner for CompactLearner {
    fn params(&self) -> &[f32] {
        &self.params
    }

    fn params_mut(&mut self) -> &mut [f32] {
        &mut self.params
    }

    fn step(&mut self, batch: &Batch, step: u64, grads: &mut [f32]) -> Result<Metrics, TrainError> {
        let batch = self.batch(batch);
        let mut stream = Stream::new(self.seed, "sigreg directions", &[step]);
        let m = self.net.step(&self.params, &mut self.running, &batch, &mut stream, &self.workers, grads);
        Ok(metrics(&m))
    }

    fn validate(&self, batch: &Batch) -> Result<Metrics, TrainError> {
        let batch = self.batch(batch);
        let mut stream = Stream::new(self.seed, "sigreg directions", &[u64::MAX]);
        let (mut running, mut grads) = (self.running.clone(), vec![0.0; self.params.len()]);
        let m = self.net.step(&self.params, &mut running, &batch, &mut stream, &self.workers, &mut grads);
        let mut out = metrics(&m);
        let (std, rank) =
            compact::spread(&self.model().encode(&batch.frames), self.net.config.encoder.latent);
        out.extend([("embedding_std", std), ("effective_rank", rank)]);
        Ok(out)
    }

    fn tensors(&self) -> Vec<Tensor<'_>> {
        let hidden = self.net.config.encoder.normed();
        let params = self.net.table.params().iter();
        let mut tensors: Vec<_> = params
            .map(|p| Tensor {
                key: p.name.clone(),
                shape: p.shape.clone(),
                values: &self.params[p.range.clone()],
                integer: false,
            })
            .collect();
        for (key, values) in RUNNING.iter().zip(self.running.chunks(hidden)) {
            tensors.push(Tensor { key: (*key).into(), shape: vec![hidden], values, integer: false });
        }
        let (shape, values) = (self.frame_shape(), &self.net.encoder.background[..]);
        tensors.push(Tensor { key: BACKGROUND.into(), shape, values, integer: false });
        tensors
    }

    fn restore(&mut self, tensors: Tensors) -> Result<String, TrainError> {
        let CompactNet { table, encoder, .. } = &mut self.net;
        let into = [&mut self.params[..], &mut self.running[..]];
        assign(Path::new("model.safetensors"), tensors, (&*table, encoder), into)
    }

    fn config(&self) -> toml::Table {
        let saved = Saved {
            architecture: "compact".into(),
            method: self.method,
            model: self.net.config.clone(),
            normalisation: self.normalisation.clone(),
        };
        toml::Table::try_from(saved).unwrap_or_default()
    }
}

fn metrics(m: &compact::Metrics) -> Metrics {
    vec![
        ("loss", m.loss),
        ("teacher_forcing", m.teacher_forcing),
        ("rollout", m.rollout),
        ("relative_rollout", m.relative_rollout),
        ("std", m.std),
        ("std_t", m.std_t),
        ("cov", m.cov),
        ("temporal", m.temporal),
        ("sigreg", m.sigreg),
        ("idm", m.idm),
    ]
}

/// Loads a compact checkpoint directory for planning: the model, its method and a key report.
///
/// # Errors
/// Names the file and the key that is wrong.
pub fn load(directory: &Path) -> Result<(CompactModel, Method, String), TrainError> {
    let saved = read_config(directory)?;
    let net = CompactNet::new(&saved.model);
    let hidden = saved.model.encoder.normed();
    let params = vec![0.0; net.table.len()];
    let workers = Workers::new(1).map_err(|e| TrainError::Config(e.to_string()))?;
    let mut learner = CompactLearner {
        params,
        running: vec![0.0; 2 * hidden],
        normalisation: saved.normalisation,
        workers,
        method: saved.method,
        seed: 0,
        net,
    };
    let (tensors, _) = checkpoint::read_tensors(&directory.join("model.safetensors"))?;
    let report = learner.restore(tensors)?;
    Ok((learner.model(), saved.method, report))
}
