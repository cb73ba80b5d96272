//! The training loop.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use worldbench_data::{Loader, LoaderConfig, Normaliser, Split, Store, Window, WindowSpec};
use worldbench_kernels::grad::{AdamW, squared_norm};

use crate::checkpoint::{self, Tensor};
use crate::log::Log;
use crate::resume::{self, Contents, State};
use crate::{Group, Learner, Metrics, TrainConfig, TrainError};

/// An embedding whose mean standard deviation falls below this has collapsed.
const COLLAPSED: f32 = 0.1;

/// How far a run is.
pub struct Progress<'a> {
    /// Optimiser steps done.
    pub step: u64,
    /// Optimiser steps of the run.
    pub total: u64,
    /// Windows per second since the start (or resumption).
    pub samples_per_s: f64,
    /// Metrics of the last step.
    pub metrics: &'a Metrics,
    /// Something the user should know, e.g. a collapsed embedding.
    pub warning: Option<String>,
}

/// A training run in a directory.
pub struct Trainer<'a> {
    config: &'a TrainConfig,
    directory: PathBuf,
    store: Arc<Store>,
    split: Split,
    spec: WindowSpec,
    moments: [Vec<f32>; 2],
    grads: Vec<f32>,
    state: State,
}

impl<'a> Trainer<'a> {
    /// Opens a run in `directory`, which is made when training begins. A run that stands there with the same configuration
    /// and data is resumed.
    ///
    /// # Errors
    /// When the directory holds another run, or its files are damaged.
    pub fn open(
        config: &'a TrainConfig,
        directory: &Path,
        store: Arc<Store>,
        split: Split,
        spec: WindowSpec,
        learner: &mut dyn Learner,
    ) -> Result<Self, TrainError> {
        let settings =
            serde_json::to_string(&config.identity()).map_err(|e| TrainError::Config(e.to_string()))?;
        let key = format!("{settings} data {}", store.hash());
        let len = learner.params().len();
        let mut trainer = Self {
            config,
            directory: directory.into(),
            store,
            split,
            spec,
            moments: [vec![0.0; len], vec![0.0; len]],
            grads: vec![0.0; len],
            state: State { step: 0, seconds: 0.0, key, warned: false, resume: String::new() },
        };
        trainer.resume(learner)?;
        Ok(trainer)
    }

    fn resume(&mut self, learner: &mut dyn Learner) -> Result<(), TrainError> {
        let Some(state) = resume::read_state(&self.directory)? else { return self.begin(learner) };
        let problem =
            |problem: &str| TrainError::Checkpoint { path: self.directory.clone(), problem: problem.into() };
        if !same_run(&state.key, &self.state.key) {
            return Err(problem(
                "the directory holds a run with another configuration or other data; give another --out or the \
                 configuration it was started with",
            ));
        }
        let [model, mut optimizer] = resume::read_tensors(&self.directory, &state)?;
        for (name, moment) in ["m", "v"].iter().zip(&mut self.moments) {
            match optimizer.remove(*name) {
                Some((_, values)) if values.len() == moment.len() => *moment = values,
                _ => {
                    return Err(problem(&format!(
                        "the optimiser's `{name}` does not fit; start the run again"
                    )));
                }
            }
        }
        learner.restore(model)?;
        self.state = state;
        Ok(())
    }

    /// Takes the weights that the configuration begins with.
    fn begin(&self, learner: &mut dyn Learner) -> Result<(), TrainError> {
        let Some(directory) = &self.config.init else { return Ok(()) };
        let (tensors, _) = checkpoint::read_tensors(&directory.join("model.safetensors"))?;
        learner.restore(tensors).map(|_| ())
    }

    /// Steps done so far.
    #[must_use]
    pub fn step(&self) -> u64 {
        self.state.step
    }

    /// Seconds of training so far, over all resumptions.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.state.seconds
    }

    fn windows(&self, episodes: &[usize]) -> Result<Vec<Window>, TrainError> {
        let mut windows = self.spec.enumerate(&self.store, episodes)?;
        let stride = self.config.model.start_stride();
        windows.retain(|window| (window.start as usize).is_multiple_of(stride));
        Ok(windows)
    }

    fn loader(&self, episodes: &[usize], shuffle: bool, at: u64) -> Result<Loader, TrainError> {
        let windows = self.windows(episodes)?;
        let config = LoaderConfig {
            batch: self.config.batch,
            seed: self.config.seed,
            threads: 1,
            prefetch: 3,
            shuffle,
            frame: self.config.model.frame(),
            actions: Normaliser::none(2),
        };
        Ok(Loader::starting_at(Arc::clone(&self.store), self.spec, windows, config, at)?)
    }

    /// Trains to the end, or until `progress` returns false; a checkpoint is written in both cases.
    ///
    /// # Errors
    /// When the loss is not finite or a file cannot be written.
    pub fn run(
        &mut self,
        learner: &mut dyn Learner,
        progress: &mut dyn FnMut(&Progress) -> bool,
    ) -> Result<(), TrainError> {
        let mut loader = self.loader(&self.split.train, true, self.state.step * self.config.accumulate)?;
        let held_out = self.validation_batch()?;
        // Only now: what is refused leaves no directory behind.
        fs::create_dir_all(&self.directory).map_err(TrainError::io(&self.directory))?;
        let log = Log::open(&self.directory, self.state.step)?;
        let pause = self.config.checkpoint_interval().unwrap_or(Duration::MAX);
        let (begun, first, before) = (Instant::now(), self.state.step, self.state.seconds);
        let mut saved = Instant::now();
        while self.state.step < self.config.steps {
            let metrics = self.optimise(learner, &mut loader)?;
            let step = self.state.step;
            self.state.seconds = before + begun.elapsed().as_secs_f64();
            let last = step == self.config.steps;
            if step.is_multiple_of(self.config.log_every) || last {
                log.row("train", step, &metrics)?;
            }
            let mut warning = None;
            if let Some(batch) =
                held_out.as_ref().filter(|_| step.is_multiple_of(self.config.validate_every) || last)
            {
                let metrics = learner.validate(batch)?;
                warning = self.collapse(&metrics);
                log.row("val", step, &metrics)?;
            }
            let rate = ((step - first) * self.config.accumulate) as f64 * self.config.batch as f64
                / begun.elapsed().as_secs_f64();
            let report =
                Progress { step, total: self.config.steps, samples_per_s: rate, metrics: &metrics, warning };
            let stop = !progress(&report);
            if last || stop || saved.elapsed() > pause {
                self.save(learner)?;
                saved = Instant::now();
            }
            if stop {
                break;
            }
        }
        Ok(())
    }

    fn validation_batch(&self) -> Result<Option<worldbench_data::Batch>, TrainError> {
        if self.windows(&self.split.val)?.len() < self.config.batch {
            return Ok(None);
        }
        Ok(Some(self.loader(&self.split.val, true, 0)?.next_batch()?))
    }

    /// One optimiser step; returns the metrics of its last batch, the loss being the mean over all of them.
    fn optimise(&mut self, learner: &mut dyn Learner, loader: &mut Loader) -> Result<Metrics, TrainError> {
        let (step, parts) = (self.state.step, self.config.accumulate);
        let (mut metrics, mut loss) = (Metrics::new(), 0.0);
        let mut sum = if parts > 1 { vec![0.0; self.grads.len()] } else { Vec::new() };
        for part in 0..parts {
            let batch = loader.next_batch()?;
            metrics = learner.step(&batch, step * parts + part, &mut self.grads)?;
            loader.recycle(batch);
            loss += metrics.first().map_or(0.0, |(_, loss)| *loss) / parts as f32;
            sum.iter_mut().zip(&self.grads).for_each(|(s, g)| *s += g / parts as f32);
        }
        if parts > 1 {
            self.grads = sum;
        }
        if let Some((_, first)) = metrics.first_mut() {
            *first = loss;
        }
        if !loss.is_finite() {
            return Err(TrainError::Diverged { step });
        }
        let groups = learner.groups(step, self.config.steps);
        let norms: Vec<f64> =
            groups.iter().map(|g| squared_norm(&self.grads[g.span.clone()]).sqrt()).collect();
        if norms.iter().any(|norm| !norm.is_finite()) {
            return Err(TrainError::Diverged { step });
        }
        for (Group { span, begun, steps }, norm) in groups.into_iter().zip(norms) {
            let lr = self.config.schedule.rate(self.config.learning_rate, step - begun, steps);
            let weight_decay = self.config.weight_decay;
            let adam = AdamW { lr, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay };
            let scale = (self.config.clip / (norm + 1e-6)).min(1.0) as f32;
            let [m, v] = self.moments.each_mut().map(|moment| &mut moment[span.clone()]);
            let params = &mut learner.params_mut()[span.clone()];
            adam.update(step + 1 - begun, scale, params, &self.grads[span], m, v);
        }
        learner.moved(step);
        self.state.step += 1;
        Ok(metrics)
    }

    fn collapse(&mut self, metrics: &Metrics) -> Option<String> {
        let std = metrics.iter().find(|(name, _)| *name == "embedding_std")?.1;
        if self.state.warned || std >= COLLAPSED {
            return None;
        }
        self.state.warned = true;
        Some(format!(
            "the embedding collapses (mean standard deviation {std:.3}): raise the regulariser's weight"
        ))
    }

    fn save(&mut self, learner: &dyn Learner) -> Result<(), TrainError> {
        let moments: Vec<_> = ["m", "v"]
            .iter()
            .zip(&self.moments)
            .map(|(key, values)| Tensor {
                key: (*key).into(),
                shape: vec![values.len()],
                values,
                integer: false,
            })
            .collect();
        let exported: Vec<_> = learner.tensors().into_iter().filter(|t| learner.exported(&t.key)).collect();
        let contents = Contents {
            config: &crate::name_environment(learner.config(), self.store.env()).to_string(),
            model: &learner.tensors(),
            exported: &exported,
            optimizer: &moments,
        };
        resume::save(&self.directory, &mut self.state, &contents)
    }
}

/// Whether two keys name the same run. Settings are compared by value: one that a key of an older version lacks
/// has its default.
fn same_run(found: &str, wanted: &str) -> bool {
    let parse = |key: &str| {
        let (settings, data) = key.rsplit_once(" data ")?;
        Some((serde_json::from_str::<TrainConfig>(settings).ok()?, data.to_string()))
    };
    found == wanted || parse(found).is_some_and(|found| Some(found) == parse(wanted))
}

#[cfg(test)]
pub(crate) mod tests;
