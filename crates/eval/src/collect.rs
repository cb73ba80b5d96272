//! Makes training data: expert episodes, noisy replays of them, and play.
//!
//! Data come in groups, one per expert episode or given demonstration ("source"): the episode itself, `replays_per_source` replays of
//! stretches of it with noise on the actions (how the DINO-WM Push-T set was made from demonstrations), and now
//! and then an episode of play. All replays carry their source's number, so that a split can keep
//! them on one side. Every group is a function of (seed, group number): groups are made in parallel, written in
//! order, and a run that was killed continues after the last complete episode with the same bits.
//!
//! Random streams of this module are named `collect/...`; the evaluation's are named `held-out/...`
//! ([`crate::held_out`]). The names are part of the key, so no seed makes training data share a stream with an
//! evaluation pair.

mod push_t;
mod two_room;

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use worldbench_core::{Stream, config::nearest};
use worldbench_data::{DataError, Episode, EpisodeInfo, Kind, Row, Store, StoreWriter};
use worldbench_env::{Action, Changes, DomainRef, EnvError, Scene, Simulation};

use crate::policies::ExpertConfig;

pub use push_t::PushTDemonstrator;
pub use two_room::TwoRoomDemonstrator;

/// Numbers of play episodes start here; below are the expert episodes'.
const PLAY_SOURCES: u64 = 1 << 32;
/// Groups made in parallel between two writes.
const BATCH: usize = 32;

/// What to collect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CollectConfig {
    /// Environment: `push_t` or `two_room`.
    pub env: String,
    /// Seed of everything random.
    pub seed: u64,
    /// Store whose episodes are replayed in place of the built-in expert's, such as imported human demonstrations; see
    /// [`CollectConfig::with_demos`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub demos: Option<PathBuf>,
    /// Expert episodes, or the first so many of `demos`.
    pub sources: usize,
    /// Whether the source episodes themselves are written.
    pub keep_sources: bool,
    /// Noisy replays of each source episode.
    pub replays_per_source: usize,
    /// Smallest and largest standard deviation of a replay's action noise, in units of the action; in Two-Room of the
    /// expert's, too.
    pub action_noise: [f64; 2],
    /// Shortest and longest replay and play episode, env steps; in Two-Room also expert episode.
    pub steps: [usize; 2],
    /// Share of all episodes that is play: near the block in Push-T, anywhere in Two-Room; `[0, 0.9]`.
    pub play_share: f64,
    /// Push-T: most steps of an expert episode.
    pub max_steps: usize,
    /// Push-T: the expert's effort.
    pub expert: ExpertConfig,
}

impl Default for CollectConfig {
    fn default() -> Self {
        Self {
            env: "push_t".into(),
            seed: 0,
            demos: None,
            sources: 1000,
            keep_sources: true,
            replays_per_source: 19,
            action_noise: [0.02, 0.3],
            steps: [50, 100],
            play_share: 0.15,
            max_steps: 600,
            expert: ExpertConfig::default(),
        }
    }
}

/// Why data could not be collected.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// A setting that makes no sense.
    #[error("collect: {0}")]
    Config(String),
    /// The store could not be read or written.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The environment refused a state.
    #[error(transparent)]
    Environment(#[from] EnvError),
}

/// How far a collection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CollectProgress {
    /// Episodes in the store.
    pub episodes: usize,
    /// Episodes the store will hold.
    pub total: usize,
    /// Env steps written by this run.
    pub steps: usize,
}

impl CollectConfig {
    /// Checks every setting.
    ///
    /// # Errors
    /// Names the setting that makes no sense and what it may be.
    pub fn check(&self) -> Result<(), CollectError> {
        let fail = |message: String| Err(CollectError::Config(message));
        let foreign = demonstrator(&self.env)?.foreign(self);
        if let Some(key) = foreign {
            return fail(format!("{key} means nothing in {}; leave it out", self.env));
        }
        if self.sources == 0 || !(self.keep_sources || self.replays_per_source > 0) {
            let nothing = "no episode to collect: `sources`, and without `keep_sources` `replays_per_source`, must be above 0";
            return fail(nothing.into());
        }
        let [low, high] = self.action_noise;
        if !(low >= 0.0 && high >= low && high.is_finite()) {
            return fail(format!("action_noise = [{low}, {high}] must be an ascending pair of numbers >= 0"));
        }
        if self.steps[0] == 0 || self.steps[1] < self.steps[0] {
            return fail(format!("steps = {:?} must be an ascending pair of numbers >= 1", self.steps));
        }
        if !(0.0..=0.9).contains(&self.play_share) {
            return fail(format!("play_share = {} must lie in [0, 0.9]", self.play_share));
        }
        if self.max_steps == 0 {
            return fail("max_steps = 0 leaves no room for an expert episode; use about 600".into());
        }
        self.expert.check().map_err(CollectError::Config)
    }

    /// Episodes of play in group `group`: as many as keep the overall share.
    fn plays(&self, group: usize) -> usize {
        let per_group = (usize::from(self.keep_sources) + self.replays_per_source) as f64;
        let rate = self.play_share / (1.0 - self.play_share) * per_group;
        ((group + 1) as f64 * rate).floor() as usize - (group as f64 * rate).floor() as usize
    }

    /// Episodes in group `group`.
    fn group_len(&self, group: usize) -> usize {
        usize::from(self.keep_sources) + self.replays_per_source + self.plays(group)
    }

    /// Replays the episodes of the store at `path`, all of them or the first `sources`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn with_demos(self, path: &Path) -> Result<Self, CollectError> {
        let episodes = Store::open(path)?.len();
        if episodes == 0 {
            return Err(CollectError::Config(format!("{} holds no episode to replay", path.display())));
        }
        let sources = self.sources.min(episodes);
        Ok(Self { demos: Some(path.into()), sources, ..self })
    }

    /// Episodes of the whole collection.
    #[must_use]
    pub fn episodes(&self) -> usize {
        (0..self.sources).map(|g| self.group_len(g)).sum()
    }
}

/// Collects into the store at `path`, continuing it if it exists; `progress` is called after every write.
///
/// # Errors
/// When a setting makes no sense, the store cannot be written, or it holds more episodes than asked for.
pub fn collect(
    config: &CollectConfig,
    path: &Path,
    progress: impl FnMut(CollectProgress),
) -> Result<CollectProgress, CollectError> {
    config.check()?;
    collect_with(config, demonstrator(&config.env)?, path, progress)
}

/// As [`collect`], with a demonstrator of your own; `config.env` is not looked at.
///
/// # Errors
/// When the store cannot be written or holds something else.
pub fn collect_with(
    config: &CollectConfig,
    demonstrator: &dyn Demonstrator,
    path: &Path,
    mut progress: impl FnMut(CollectProgress),
) -> Result<CollectProgress, CollectError> {
    let groups = Groups::new(config, demonstrator)?;
    let total = config.episodes();
    let (mut writer, done) = groups.open(path)?;
    // The first group that is not complete, and how many of its episodes are there.
    let (mut group, mut skip) = (0, done);
    while group < config.sources && skip >= config.group_len(group) {
        skip -= config.group_len(group);
        group += 1;
    }
    let mut now = CollectProgress { episodes: done, total, steps: 0 };
    progress(now);
    while group < config.sources {
        let end = (group + BATCH).min(config.sources);
        let made: Vec<Vec<Episode>> =
            (group..end).into_par_iter().map(|group| groups.make(group)).collect::<Result<_, _>>()?;
        for episode in made.iter().flatten().skip(skip) {
            writer.append(episode)?;
            now.episodes += 1;
            now.steps += episode.rows.len() - 1;
        }
        (group, skip) = (end, 0);
        progress(now);
    }
    writer.sync()?;
    Ok(now)
}

/// The groups of a collection.
struct Groups<'a> {
    config: &'a CollectConfig,
    demonstrator: &'a dyn Demonstrator,
    /// Where the sources come from, when not from the demonstrator.
    demos: Option<Store>,
}

impl<'a> Groups<'a> {
    fn new(config: &'a CollectConfig, demonstrator: &'a dyn Demonstrator) -> Result<Self, CollectError> {
        let demos = config.demos.as_ref().map(Store::open).transpose()?;
        if let Some(store) = &demos {
            let (path, sources, env) = (store.path().display(), config.sources, demonstrator.env());
            same_env(store, env)?;
            if store.len() < sources {
                let message = format!("sources = {sources}, but {path} holds {} episodes", store.len());
                return Err(CollectError::Config(format!("{message}; give --set sources={}", store.len())));
            }
        }
        Ok(Self { config, demonstrator, demos })
    }

    /// The scene and rows of the episode that group `group` replays.
    fn source(&self, group: usize) -> Result<(Scene, Vec<Row>), CollectError> {
        if let Some(store) = &self.demos {
            let Episode { info, rows, .. } = store.episode(group)?;
            return Ok((info.factors, rows));
        }
        let scene = self.demonstrator.env().scene(&Changes::new())?;
        let stream = Stream::new(self.config.seed, "collect/expert", &[group as u64]);
        let rows = self.demonstrator.expert(self.config, &scene, stream)?;
        Ok((scene, rows))
    }

    /// Kind and source number of each episode in group `group`, in the order they are written.
    fn contents(&self, group: usize) -> impl Iterator<Item = (Kind, u64)> {
        let (key, config) = (group as u64, self.config);
        let demo = self.demos.as_ref().and_then(|store| store.view(group).ok());
        // Demonstrations that are replays of one episode themselves stay together.
        let (kind, origin) = demo.map_or((Kind::Expert, key), |view| (view.info().kind, view.info().source));
        let source = config.keep_sources.then_some((kind, origin));
        let replays = (0..config.replays_per_source).map(move |_| (Kind::NoisyReplay, origin));
        let plays = (0..config.plays(group) as u64).map(move |p| (Kind::Weak, PLAY_SOURCES + key * 4096 + p));
        source.into_iter().chain(replays).chain(plays)
    }

    /// All episodes of group `group`, in the order they are written.
    fn make(&self, group: usize) -> Result<Vec<Episode>, CollectError> {
        let (config, env) = (self.config, self.demonstrator.env());
        let (scene, recorded) = self.source(group)?;
        let make = |(i, (kind, source)): (usize, (Kind, u64))| {
            let stream = |purpose| Stream::new(config.seed, purpose, &[group as u64, i as u64]);
            let rows = if i == 0 && config.keep_sources {
                recorded.clone()
            } else if kind == Kind::NoisyReplay {
                let (noise, steps) = (config.action_noise, Some(config.steps));
                noisy_replay(env, &recorded, &scene, noise, steps, stream("collect/replay"))?
            } else {
                self.demonstrator.play(&scene, config.steps, stream("collect/play"))?
            };
            let info = EpisodeInfo { env, kind, source, seed: config.seed, factors: scene.clone() };
            Ok(Episode { info, rows, pixels: None })
        };
        self.contents(group).enumerate().map(make).collect()
    }

    /// Opens the store for appending, without the episode that a killed run left half written; with how many it holds. A
    /// store of something else is left as it is.
    fn open(&self, path: &Path) -> Result<(StoreWriter, usize), CollectError> {
        if !path.exists() {
            return Ok((StoreWriter::create(path, self.demonstrator.env())?, 0));
        }
        let store = Store::open_unfinished(path)?;
        same_env(&store, self.demonstrator.env())?;
        let foreign = |episode: usize| {
            let message = format!("episode {episode} of {} is not of this collection", path.display());
            CollectError::Config(format!("{message}; give another path or remove the file"))
        };
        let mut wanted = (0..self.config.sources).flat_map(|group| self.contents(group));
        for (i, view) in store.views().enumerate() {
            let info = view.info();
            if wanted.next() != Some((info.kind, info.source)) || info.seed != self.config.seed {
                return Err(foreign(i));
            }
        }
        // The first group again: other settings, or another expert, make other episodes.
        for (i, (view, made)) in store.views().zip(self.make(0)?).enumerate() {
            let states = (0..view.len()).map(|row| view.state(row));
            if !states.eq(made.rows.iter().map(|row| row.state.clone())) {
                return Err(foreign(i));
            }
        }
        drop(store);
        Ok(StoreWriter::resume(path)?)
    }
}

fn same_env(store: &Store, env: DomainRef) -> Result<(), CollectError> {
    if store.env() == env {
        return Ok(());
    }
    let (theirs, ours) = (store.env().spec().name, env.spec().name);
    let message =
        format!("{} is a store of {theirs}, not of {ours}; give another path", store.path().display());
    Err(CollectError::Config(message))
}

/// What collection needs to know of an environment: who demonstrates, and what play is.
pub trait Demonstrator: Sync {
    /// The environment.
    fn env(&self) -> DomainRef;

    /// A setting that was changed and that this demonstrator does not read.
    fn foreign(&self, config: &CollectConfig) -> Option<&'static str> {
        let _ = config;
        None
    }

    /// Records the demonstrator from a random start.
    ///
    /// # Errors
    /// When the environment refuses a state.
    fn expert(&self, config: &CollectConfig, scene: &Scene, stream: Stream) -> Result<Vec<Row>, EnvError>;

    /// Records play, `steps` being the shortest and longest episode.
    ///
    /// # Errors
    /// When the environment refuses a state.
    fn play(&self, scene: &Scene, steps: [usize; 2], stream: Stream) -> Result<Vec<Row>, EnvError>;

    /// Whether everything that matters in `state` can be seen.
    fn in_view(&self, scene: &Scene, state: &[f64]) -> bool;
}

const DEMONSTRATORS: [&dyn Demonstrator; 2] = [&PushTDemonstrator, &TwoRoomDemonstrator];

/// The demonstrator of the environment called `env`.
///
/// # Errors
/// When there is none; the message names the nearest and all known.
pub fn demonstrator(env: &str) -> Result<&'static dyn Demonstrator, CollectError> {
    let names = DEMONSTRATORS.map(|demonstrator| demonstrator.env().spec().name);
    let found = DEMONSTRATORS.into_iter().zip(names).find(|(_, name)| *name == env);
    found.map(|(demonstrator, _)| demonstrator).ok_or_else(|| {
        let hint = nearest(env, names).map_or_else(String::new, |near| format!("did you mean `{near}`? "));
        CollectError::Config(format!("env = \"{env}\" is not known; {hint}known are {}", names.join(", ")))
    })
}

/// A fresh environment placed in `state`.
///
/// # Errors
/// When the state does not fit it.
pub(crate) fn placed(env: DomainRef, scene: &Scene, state: &[f64]) -> Result<Box<dyn Simulation>, EnvError> {
    let mut env = env.build(scene);
    env.set_state(state)?;
    Ok(env)
}

/// Steps `env` with `policy` until it returns `None` or `most` steps are done; the last row has no action.
fn record(
    env: &mut dyn Simulation,
    most: usize,
    mut policy: impl FnMut(&mut dyn Simulation) -> Option<Action>,
) -> Vec<Row> {
    let mut rows = Vec::with_capacity(most + 1);
    loop {
        let action = if rows.len() < most { policy(env) } else { None };
        rows.push(Row { state: env.state(), render: env.look(), action: action.unwrap_or([f32::NAN; 2]) });
        let Some(action) = action else { return rows };
        env.step(action);
    }
}

/// Replays recorded rows with Gaussian noise on the actions, from a recorded state in a fresh environment.
///
/// Drawn per replay: the stretch (`steps` = shortest and longest; `None` replays everything), the noise's standard
/// deviation within `noise`, its correlation from step to step, and how far the hand is drawn back to the recorded
/// path (from not at all, where errors add up, to a full correction in every step).
///
/// # Errors
/// When the environment refuses a state.
pub fn noisy_replay(
    env: DomainRef,
    rows: &[Row],
    scene: &Scene,
    noise: [f64; 2],
    steps: Option<[usize; 2]>,
    mut stream: Stream,
) -> Result<Vec<Row>, EnvError> {
    let recorded = rows.len() - 1;
    let (mut first, mut count) = (0, recorded);
    if let Some([shortest, longest]) = steps {
        count = (shortest + stream.below((longest - shortest) as u64 + 1) as usize).min(recorded);
        first = stream.below((recorded - count) as u64 + 1) as usize;
    }
    let std = stream.uniform(noise[0], noise[1]);
    // Half of the replays have white noise, half a drifting hand.
    let memory = if stream.f64() < 0.5 { 0.0 } else { stream.uniform(0.5, 0.9) };
    let fresh = (1.0 - memory * memory).sqrt();
    let pull = stream.uniform(0.0, 1.0);
    let start = &rows[first].state;
    let reach = env.anchor(scene, start, start)?.reach;
    let mut env = placed(env, scene, start)?;
    let (mut t, mut drift) = (first, [0.0; 2]);
    Ok(record(env.as_mut(), count, |env| {
        let (row, state) = (&rows[t], env.state());
        t += 1;
        // The agent's position comes first in every state.
        Some([0, 1].map(|i| {
            drift[i] = memory * drift[i] + fresh * std * stream.normal();
            let back = pull * (row.state[i] - state[i]) / reach;
            (f64::from(row.action[i]) + back + drift[i]) as f32
        }))
    }))
}

#[cfg(test)]
mod tests;
