//! Batches of clips, rendered on background threads.
//!
//! Batch `n` is a function of the store, the windows, the configuration and `n` alone: the epoch's order is a
//! permutation keyed by (seed, epoch), each batch is filled by one thread, and the consumer takes batches in
//! their order. So neither the number of threads nor a restart with [`Loader::starting_at`] changes anything.

use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

use worldbench_core::Stream;
use worldbench_env::raster::Filter;

use crate::{
    episode::ACTION_DIM,
    error::{DataError, Result},
    frames::FrameSource,
    normaliser::Normaliser,
    store::Store,
    windows::{Window, WindowSpec},
};

/// Size and resampling of the frames.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FrameSpec {
    /// Height and width R in pixels.
    pub resolution: usize,
    /// How the canvas is brought to `resolution`.
    pub filter: Filter,
}

/// What a [`Loader`] yields and how.
#[derive(Clone, Debug)]
pub struct LoaderConfig {
    /// Clips in a batch, B. An epoch's incomplete last batch is left out.
    pub batch: usize,
    /// Key of the order.
    pub seed: u64,
    /// Background threads; at least one is used.
    pub threads: usize,
    /// Finished batches kept ahead of the consumer.
    pub prefetch: usize,
    /// `false`: the windows' own order in every epoch.
    pub shuffle: bool,
    /// Size of the frames; without it batches hold none.
    pub frame: Option<FrameSpec>,
    /// Applied to the actions; [`Normaliser::none`]`(2)` keeps them raw. Missing (NaN) actions are 0 **after**
    /// normalisation.
    pub actions: Normaliser,
}

/// B clips of T frames.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Number of this batch, counted over all epochs from 0.
    pub index: u64,
    /// `[B, T, R, R, 3]` RGB bytes; empty where no frames were asked for.
    pub frames: Vec<u8>,
    /// `[B, T, f * 2]` normalised action blocks: block t leads from frame t to frame t + 1.
    pub actions: Vec<f32>,
    /// `[B, T, n]` observed states of the frames, raw; n is the environment's.
    pub states: Vec<f32>,
    /// `[B, T, 4]` agent position and velocity, raw; 0 where the environment has none.
    pub proprio: Vec<f32>,
    /// `[B, T]`: the block holds a missing action (only the last block of an episode's last clip does).
    pub missing: Vec<bool>,
    /// `[B]` which clips these are.
    pub windows: Vec<Window>,
}

struct Plan {
    store: Arc<Store>,
    spec: WindowSpec,
    windows: Vec<Window>,
    config: LoaderConfig,
}

#[derive(Default)]
struct Queue {
    /// Next batch that a worker takes.
    next: u64,
    /// Next batch that the consumer takes.
    wanted: u64,
    ready: BTreeMap<u64, Result<Batch>>,
    spare: Vec<Batch>,
    stop: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // The queue is consistent between statements, so a worker's panic leaves it usable.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, guard: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        self.changed.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }
}

/// An endless, seeded stream of batches; see the module documentation.
pub struct Loader {
    plan: Arc<Plan>,
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl Loader {
    /// Starts loading `windows` of `store` from batch 0.
    ///
    /// # Errors
    /// When the batch size or resolution is 0, there are fewer windows than a batch holds, a window does not
    /// fit its episode, stored frames have another size, or the normaliser has other than 2 columns.
    pub fn new(
        store: Arc<Store>,
        spec: WindowSpec,
        windows: Vec<Window>,
        config: LoaderConfig,
    ) -> Result<Self> {
        Self::starting_at(store, spec, windows, config, 0)
    }

    /// As [`Loader::new`], but the first batch is number `batch`: a resumed run continues where it stopped.
    ///
    /// # Errors
    /// As [`Loader::new`].
    pub fn starting_at(
        store: Arc<Store>,
        spec: WindowSpec,
        windows: Vec<Window>,
        config: LoaderConfig,
        batch: u64,
    ) -> Result<Self> {
        let plan = Arc::new(Plan { store, spec, windows, config });
        plan.check()?;
        let shared = Arc::new(Shared::default());
        (shared.lock().next, shared.lock().wanted) = (batch, batch);
        let workers = (0..plan.config.threads.max(1))
            .map(|_| {
                let (plan, shared) = (Arc::clone(&plan), Arc::clone(&shared));
                std::thread::spawn(move || work(&plan, &shared))
            })
            .collect();
        Ok(Self { plan, shared, workers })
    }

    /// Batches in an epoch.
    #[must_use]
    pub fn batches_per_epoch(&self) -> u64 {
        self.plan.batches_per_epoch()
    }

    /// The next batch; waits until it is ready.
    ///
    /// # Errors
    /// When a frame cannot be rendered.
    pub fn next_batch(&mut self) -> Result<Batch> {
        let mut queue = self.shared.lock();
        let wanted = queue.wanted;
        loop {
            if let Some(batch) = queue.ready.remove(&wanted) {
                queue.wanted += 1;
                self.shared.changed.notify_all();
                return batch;
            }
            if queue.stop {
                return Err(DataError::Invalid(
                    "a loader thread has stopped; its panic message stands above".into(),
                ));
            }
            queue = self.shared.wait(queue);
        }
    }

    /// Gives a used batch back, so that its buffers are filled again instead of being allocated anew.
    pub fn recycle(&self, batch: Batch) {
        self.shared.lock().spare.push(batch);
    }
}

impl Iterator for Loader {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.next_batch())
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_all();
        for worker in self.workers.drain(..) {
            // A panic of the worker has been reported by its own thread.
            let _ = worker.join();
        }
    }
}

/// Stops everybody when its thread ends by a panic, so that the consumer does not wait for ever.
struct StopOnPanic<'a>(&'a Shared);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().stop = true;
            self.0.changed.notify_all();
        }
    }
}

fn work(plan: &Plan, shared: &Shared) {
    let _guard = StopOnPanic(shared);
    let ahead = (plan.config.prefetch.max(1) + plan.config.threads.max(1) - 1) as u64;
    let mut frames = plan.config.frame.map(FrameSource::new);
    let mut order = EpochOrder { epoch: None, indices: Vec::new() };
    loop {
        let (index, mut batch) = {
            let mut queue = shared.lock();
            while !queue.stop && queue.next >= queue.wanted + ahead {
                queue = shared.wait(queue);
            }
            if queue.stop {
                return;
            }
            queue.next += 1;
            (queue.next - 1, queue.spare.pop().unwrap_or_default())
        };
        let result = plan.fill(index, &mut order, &mut frames, &mut batch).map(|()| batch);
        shared.lock().ready.insert(index, result);
        shared.changed.notify_all();
    }
}

/// The permutation of one epoch, kept by each worker.
struct EpochOrder {
    epoch: Option<u64>,
    indices: Vec<u32>,
}

impl EpochOrder {
    fn of(&mut self, epoch: u64, plan: &Plan) -> &[u32] {
        if self.epoch != Some(epoch) {
            self.indices.clear();
            self.indices.extend(0..plan.windows.len() as u32);
            if plan.config.shuffle {
                Stream::new(plan.config.seed, "epoch order", &[epoch]).shuffle(&mut self.indices);
            }
            self.epoch = Some(epoch);
        }
        &self.indices
    }
}

impl Plan {
    fn batches_per_epoch(&self) -> u64 {
        (self.windows.len() / self.config.batch) as u64
    }

    fn check(&self) -> Result<()> {
        let config = &self.config;
        let bad = |message: String| Err(DataError::Invalid(message));
        if config.batch == 0 || config.frame.is_some_and(|frame| frame.resolution == 0) {
            return bad("batch and resolution must be at least 1".into());
        }
        if self.windows.len() < config.batch || u32::try_from(self.windows.len()).is_err() {
            let (windows, batch) = (self.windows.len(), config.batch);
            return bad(format!("{windows} windows do not fill a batch of {batch}; collect more episodes"));
        }
        if config.actions.dim() != ACTION_DIM {
            return bad(format!("the action normaliser has {} columns, not 2", config.actions.dim()));
        }
        for window in &self.windows {
            let rows = self.store.view(window.episode as usize)?.len();
            if self.spec.num_steps == 0 || window.start as usize + self.spec.span() > rows {
                return bad(format!("{window:?} with {:?} exceeds the episode's {rows} rows", self.spec));
            }
        }
        Ok(())
    }

    fn fill(
        &self,
        index: u64,
        order: &mut EpochOrder,
        frames: &mut Option<FrameSource>,
        batch: &mut Batch,
    ) -> Result<()> {
        let (epoch, position) = (index / self.batches_per_epoch(), index % self.batches_per_epoch());
        let first = position as usize * self.config.batch;
        let chosen = &order.of(epoch, self)[first..first + self.config.batch];
        let frame_size = self.config.frame.map_or(0, |frame| frame.resolution.pow(2) * 3);
        batch.index = index;
        // Every byte is overwritten, so a recycled buffer needs no clearing.
        batch.frames.resize(chosen.len() * self.spec.num_steps * frame_size, 0);
        batch.actions.clear();
        batch.states.clear();
        batch.proprio.clear();
        let env = self.store.env().spec();
        batch.missing.clear();
        batch.windows.clear();
        let mut slots = batch.frames.chunks_exact_mut(frame_size.max(1));
        for &window in chosen.iter().map(|&i| &self.windows[i as usize]) {
            let view = self.store.view(window.episode as usize)?;
            for row in self.spec.frame_rows(window) {
                if let (Some(frames), Some(slot)) = (frames.as_mut(), slots.next()) {
                    frames.write(window.episode as usize, &view, row, slot)?;
                }
                let state = view.state(row);
                batch.proprio.extend(env.proprioception(&state).map(|v| v as f32));
                batch.states.extend(state.into_iter().map(|v| v as f32));
            }
            let start = batch.actions.len();
            batch.actions.extend(self.spec.actions(view, window).flatten());
            let actions = &mut batch.actions[start..]; // [T * f, 2]
            let blocks = actions.chunks(self.spec.block_dim());
            batch.missing.extend(blocks.map(|block| block.iter().any(|v| v.is_nan())));
            self.config.actions.apply(actions);
            actions.iter_mut().filter(|v| v.is_nan()).for_each(|v| *v = 0.0);
            batch.windows.push(window);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
