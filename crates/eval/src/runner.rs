//! Runs a policy on every pair of a manifest.
//!
//! Reset as in the reference's data-set mode: a fresh environment, `set_state(start)` (in Push-T one physics step),
//! `set_goal_state(goal)`; then at most `budget` env steps. An episode succeeds, and stops, at the first step
//! after which its [`Judge`] says so; an episode that starts at its goal is seen after its first step.
//! Deviation: the policy sees the environment's own frame at step 0, not a stored one.
//!
//! Finished episodes go to `episodes.jsonl` in the resume directory, one line each behind a header line with the
//! run's key, and are never computed again. A line torn by a kill is dropped. A finished run leaves them in manifest
//! order.

mod journal;

use std::{collections::BTreeMap, fs::File, io::Write, path::Path, sync::Mutex};

use journal::Journal;
pub(crate) use journal::{difference, read_episodes, write_episodes};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use worldbench_core::Stream;
use worldbench_env::{DomainRef, Scene, Simulation};

use crate::shard::Shard;
use crate::{
    EpisodeContext, EpisodeOutcome, EvalError, Goal, Judge, Manifest, Observation, Pair, Policy, Protocol,
    Score,
};

/// Name of the episode file in the resume directory.
pub const EPISODES_FILE: &str = "episodes.jsonl";

/// How to run an evaluation; nothing here but `seed`, `limit` and `shard` can change a result.
#[derive(Clone, Copy, Default)]
pub struct EvalOptions<'a> {
    /// Seed of every episode's random stream.
    pub seed: u64,
    /// Episodes run at the same time; 0 takes one per core.
    pub threads: usize,
    /// Only the first `limit` pairs.
    pub limit: Option<usize>,
    /// Only this part of them.
    pub shard: Option<Shard>,
    /// Where finished episodes are kept and looked for.
    pub resume_dir: Option<&'a Path>,
    /// Called after every episode, from any thread.
    pub progress: Option<&'a (dyn Fn(&Progress) + Sync)>,
}

/// How far an evaluation is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Episodes finished, earlier runs included.
    pub done: usize,
    /// Episodes in all.
    pub total: usize,
    /// Successes among the finished ones.
    pub successes: usize,
}

/// What decides the outcomes of a run; a finished episode is only reused under the same key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunKey {
    /// Hash over protocol and manifest.
    pub protocol_hash: String,
    /// Name of the policy.
    pub policy: String,
    /// Hash of its weights; empty without any.
    pub checkpoint: String,
    /// Its other settings.
    pub settings: String,
    /// Seed of the evaluation.
    pub seed: u64,
}

/// A finished evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// What was run.
    pub key: RunKey,
    /// Name of the protocol.
    pub protocol: String,
    /// Split of the manifest.
    pub split: String,
    /// Its score.
    pub score: Score,
    /// One outcome per pair, in manifest order.
    pub outcomes: Vec<EpisodeOutcome>,
}

impl Evaluation {
    /// Writes the evaluation, every episode included, as JSON.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), EvalError> {
        let text = serde_json::to_vec(self).map_err(|e| EvalError::io(path)(e.into()))?;
        write_atomic(path, &text)
    }
}

/// Evaluates `policy` on the pairs of `manifest` under `protocol`.
///
/// # Errors
/// When manifest and protocol do not fit, the resume file belongs to another run, or the policy fails; finished
/// episodes are kept in that case.
pub fn evaluate(
    protocol: &Protocol,
    manifest: &Manifest,
    policy: &dyn Policy,
    options: &EvalOptions,
) -> Result<Evaluation, EvalError> {
    protocol.check(manifest)?;
    let key = RunKey {
        protocol_hash: protocol.hash(manifest)?,
        policy: policy.name(),
        checkpoint: policy.checkpoint(),
        settings: policy.settings(),
        seed: options.seed,
    };
    let total = options.limit.unwrap_or(usize::MAX).min(manifest.pairs.len());
    let (kept, journal) = match options.resume_dir {
        Some(dir) => Journal::open(dir, &key).map(|(kept, journal)| (kept, Some(journal)))?,
        None => (Vec::new(), None),
    };
    let wanted: Vec<usize> = (0..total).filter(|&i| options.shard.is_none_or(|s| s.holds(i))).collect();
    let in_order = kept.is_sorted_by_key(|outcome| outcome.index);
    let done: BTreeMap<usize, EpisodeOutcome> = kept.into_iter().map(|o| (o.index, o)).collect();
    let missing: Vec<usize> = wanted.iter().copied().filter(|i| !done.contains_key(i)).collect();
    let finished = Mutex::new(Finished { journal, done, wanted });
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(options.threads)
        .build()
        .map_err(|e| EvalError::Options(format!("cannot start {} threads: {e}", options.threads)))?;
    // One episode at a time per thread: their lengths differ too much for larger chunks.
    pool.install(|| {
        missing.par_iter().with_max_len(1).try_for_each(|&index| {
            let outcome = run_episode(protocol, &manifest.pairs[index], index, policy, options.seed)?;
            let mut finished = finished.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            finished.add(outcome, options.progress)
        })
    })?;
    let Finished { wanted, mut done, .. } =
        finished.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let (Some(dir), false) = (options.resume_dir, missing.is_empty() && in_order) {
        // In manifest order, so that the file does not depend on which thread was faster.
        write_episodes(dir, &key, done.values())?;
    }
    let outcomes: Vec<EpisodeOutcome> = wanted.iter().filter_map(|i| done.remove(i)).collect();
    Ok(Evaluation {
        key,
        protocol: protocol.name.clone(),
        split: manifest.split.clone(),
        score: Score::of(&outcomes),
        outcomes,
    })
}

/// Builds an episode's fresh environment: start state set, goal state scored.
///
/// # Errors
/// When a state does not fit the environment.
pub fn reset(
    env: DomainRef,
    scene: &Scene,
    start: &[f64],
    goal: &[f64],
) -> Result<Box<dyn Simulation>, EvalError> {
    let mut env = env.build(scene);
    env.set_state(start)?;
    env.set_goal_state(goal)?;
    Ok(env)
}

/// The goal as a policy sees it. The frame shows the goal state at rest: with its velocity, the physics step
/// inside Push-T's `set_state` would move the agent on.
///
/// # Errors
/// When the state does not fit the environment.
pub fn goal_at(env: DomainRef, scene: &Scene, state: &[f64]) -> Result<Goal, EvalError> {
    let placed = reset(env, scene, &env.spec().at_rest(state), state)?;
    Ok(Goal { state: state.to_vec(), render_state: placed.look(), factors: placed.scene() })
}

/// Runs one episode.
///
/// # Errors
/// When the policy fails.
pub fn run_episode(
    protocol: &Protocol,
    pair: &Pair,
    index: usize,
    policy: &dyn Policy,
    seed: u64,
) -> Result<EpisodeOutcome, EvalError> {
    let domain = protocol.env()?;
    let scene = domain.scene(&pair.factors)?;
    let mut env = reset(domain, &scene, &pair.start, &pair.goal)?;
    let goal = goal_at(domain, &scene, &pair.goal)?;
    let mut acting = policy.begin(EpisodeContext {
        index,
        seed,
        budget: protocol.budget,
        limits: protocol.limits,
        pair,
        goal: &goal,
        env: env.clone(),
        stream: Stream::new(seed, "eval episode", &[index as u64]),
    })?;
    let mut outcome = EpisodeOutcome {
        index,
        start: pair.start.clone(),
        goal: pair.goal.clone(),
        block_moved: pair.hard(domain)?,
        success: false,
        steps: 0,
        distances: Vec::with_capacity(protocol.budget + 1),
        angle_errors: Vec::with_capacity(protocol.budget + 1),
        actions: Vec::with_capacity(protocol.budget),
        states: Vec::with_capacity(protocol.budget + 1),
        plan_seconds: 0.0,
        plans: 0,
        plan_costs: Vec::new(),
        factors: pair.factors.clone(),
    };
    let mut judge = Judge::new(protocol.limits);
    let mut state = note(&mut outcome, env.as_ref());
    while outcome.steps < protocol.budget && !outcome.success {
        let seen = Observation { state: &state, render_state: &env.look(), factors: &goal.factors };
        let action = acting.act(&seen)?;
        if action.iter().any(|a| !a.is_finite()) {
            return Err(EvalError::Policy {
                policy: policy.name(),
                episode: index,
                message: format!("the action {action:?} at step {} is not finite", outcome.steps),
            });
        }
        env.step(action);
        outcome.actions.push(action);
        outcome.steps += 1;
        outcome.success = judge.after(&state, env.as_ref())?;
        state = note(&mut outcome, env.as_ref());
    }
    outcome.plan_seconds = acting.plan_seconds();
    outcome.plans = acting.plans();
    outcome.plan_costs = acting.plan_costs();
    Ok(outcome)
}

/// Appends the environment's state and its errors to the record; returns the state.
fn note(outcome: &mut EpisodeOutcome, env: &dyn Simulation) -> Vec<f64> {
    let errors = env.errors();
    outcome.distances.push(errors.distance);
    outcome.angle_errors.extend(errors.angle);
    outcome.states.push(env.state());
    env.state()
}

struct Finished {
    journal: Option<Journal>,
    /// By index; those of earlier runs of the directory included.
    done: BTreeMap<usize, EpisodeOutcome>,
    /// Indices of the pairs of this run.
    wanted: Vec<usize>,
}

impl Finished {
    fn add(
        &mut self,
        outcome: EpisodeOutcome,
        progress: Option<&(dyn Fn(&Progress) + Sync)>,
    ) -> Result<(), EvalError> {
        if let Some(journal) = &mut self.journal {
            journal.append(&outcome)?;
        }
        self.done.insert(outcome.index, outcome);
        if let Some(report) = progress {
            let known = self.wanted.iter().filter_map(|i| self.done.get(i));
            report(&Progress {
                done: known.clone().count(),
                total: self.wanted.len(),
                successes: known.filter(|o| o.success).count(),
            });
        }
        Ok(())
    }
}

/// Writes `bytes` to `path` through a temporary file and a rename, so that a reader never sees half a file.
pub(crate) fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), EvalError> {
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(EvalError::io(parent))?;
    }
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(EvalError::io(&temporary))?;
    std::fs::rename(&temporary, path).map_err(EvalError::io(path))
}

#[cfg(test)]
mod tests;
