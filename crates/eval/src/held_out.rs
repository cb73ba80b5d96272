//! Makes the start/goal pairs of the protocol `held-out`.
//!
//! Half of the pairs come from expert episodes, half from noisy replays of expert episodes; never from random
//! play. The episodes are drawn from streams named `held-out/SPLIT`, which no training data use (those are named
//! `collect/...`); every pair has a source episode of its own, so `dev` and `test` share none.
//!
//! An evaluation places the start state into a fresh environment, which has no contact history; the recording had
//! one. So a pair is kept only if its recorded actions succeed *from there*, and if it is not solved at once. Start and
//! goal must also be visible. Nothing is selected for the block to move: in about nine of ten pairs it does, because
//! the expert spends little time far from it.

use rayon::prelude::*;
use worldbench_core::Stream;
use worldbench_data::Row;
use worldbench_env::{Factors, PushT, push_t::success};

use crate::{
    Manifest, Pair,
    collect::{CollectConfig, expert_episode, noisy_replay},
    policies::{
        outline::{Outline, Pose, on_picture},
        placed,
    },
};

/// Starts tried in one source episode before another episode is made.
const STARTS: u64 = 6;
/// Steps of a source episode's attempt: part of what the committed pairs are a function of.
const MAX_STEPS: usize = 250;

/// What to make.
#[derive(Clone, Debug, PartialEq)]
pub struct HeldOutConfig {
    /// Seed of the reserved streams.
    pub seed: u64,
    /// `dev` or `test`; part of the streams' names.
    pub split: String,
    /// Number of pairs.
    pub pairs: usize,
    /// Env steps from start to goal.
    pub offset: usize,
}

impl HeldOutConfig {
    /// The published protocol's pairs: 200, 25 steps apart.
    #[must_use]
    pub fn split(split: &str) -> Self {
        Self { seed: 0, split: split.into(), pairs: 200, offset: 25 }
    }
}

/// Starts that were not taken, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// The recorded actions do not succeed from a fresh environment.
    pub not_replayable: usize,
    /// The start satisfies the goal.
    pub solved_at_start: usize,
    /// The agent or a part of the block is off the picture at the start or the goal.
    pub out_of_view: usize,
}

/// Makes the pairs, in order; independent of the number of threads.
#[must_use]
pub fn make_pairs(config: &HeldOutConfig) -> (Vec<Pair>, Dropped) {
    let made: Vec<(Pair, Dropped)> =
        (0..config.pairs as u64).into_par_iter().map(|i| make_pair(config, i)).collect();
    let mut dropped = Dropped::default();
    for (_, d) in &made {
        dropped.not_replayable += d.not_replayable;
        dropped.solved_at_start += d.solved_at_start;
        dropped.out_of_view += d.out_of_view;
    }
    (made.into_iter().map(|(pair, _)| pair).collect(), dropped)
}

/// The pairs as the manifest of the protocol `held-out`.
#[must_use]
pub fn make_manifest(config: &HeldOutConfig) -> (Manifest, Dropped) {
    let (pairs, dropped) = make_pairs(config);
    let made_by = format!("held_out::make_manifest, seed {}", config.seed);
    (Manifest { environment: "push_t".into(), split: config.split.clone(), made_by, pairs }, dropped)
}

fn make_pair(config: &HeldOutConfig, index: u64) -> (Pair, Dropped) {
    let purpose = format!("held-out/{}", config.split);
    let factors = Factors::default();
    let collect = CollectConfig { max_steps: MAX_STEPS, ..CollectConfig::default() };
    let outline = Outline::of_block(&factors);
    let mut dropped = Dropped::default();
    let mut attempt = 0;
    loop {
        attempt += 1;
        let mut stream = Stream::new(config.seed, &purpose, &[index, attempt]);
        let mut rows = expert_episode(&collect, &factors, stream.child(&[0])).rows;
        let kind = if index.is_multiple_of(2) { "expert" } else { "noisy-replay" };
        if index % 2 == 1 {
            rows = noisy_replay(&rows, &factors, collect.action_noise, None, stream.child(&[1]));
        }
        if rows.len() <= config.offset {
            continue;
        }
        for _ in 0..STARTS {
            let first = stream.below((rows.len() - config.offset) as u64) as usize;
            let stretch = &rows[first..=first + config.offset];
            if ![&stretch[0], &stretch[config.offset]].iter().all(|row| in_view(&outline, &row.state)) {
                dropped.out_of_view += 1;
                continue;
            }
            // Attempts are few; 32 bits keep pair, attempt and split apart.
            let source = index << 32 | attempt;
            match check(stretch, &factors) {
                Fate::Kept => {
                    let actions = stretch[..config.offset].iter().map(|r| r.action).collect();
                    let (start, goal) = (stretch[0].state, stretch[config.offset].state);
                    return (Pair::new(start, goal, actions, source, kind), dropped);
                }
                Fate::SolvedAtStart => dropped.solved_at_start += 1,
                Fate::NotReplayable => dropped.not_replayable += 1,
            }
        }
    }
}

/// Whether the agent's centre and the whole block lie on the 512 x 512 picture.
fn in_view(outline: &Outline, state: &[f64; 7]) -> bool {
    on_picture([state[0], state[1]]) && outline.in_view(&Pose::of_block(state))
}

enum Fate {
    Kept,
    SolvedAtStart,
    NotReplayable,
}

/// Replays a stretch of a recording as an evaluation would.
fn check(stretch: &[Row], factors: &Factors) -> Fate {
    let goal = stretch[stretch.len() - 1].state;
    let mut env = placed(factors, &stretch[0].state);
    let solved = |env: &PushT| success(&env.state(), &goal, factors.block_shape);
    if solved(&env) {
        return Fate::SolvedAtStart;
    }
    for row in &stretch[..stretch.len() - 1] {
        env.step_f32(row.action);
        if solved(&env) {
            return Fate::Kept;
        }
    }
    Fate::NotReplayable
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policies::{OracleConfig, oracle::OraclePlanner};

    fn pairs(split: &str, n: usize) -> Vec<Pair> {
        make_pairs(&HeldOutConfig { pairs: n, ..HeldOutConfig::split(split) }).0
    }

    #[test]
    fn pairs_do_not_depend_on_threads_and_splits_differ() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let dev = pairs("dev", 6);
        assert_eq!(dev, pool.install(|| pairs("dev", 6)));
        assert!(dev.iter().zip(pairs("test", 6)).all(|(a, b)| a.start != b.start));
        assert!(dev.iter().all(|p| p.actions.len() == 25));
        assert!(dev.iter().filter(|p| p.block_moved).count() >= 4);
    }

    #[test]
    fn the_oracle_solves_small_sets() {
        let mut solved = 0;
        for (i, pair) in pairs("dev", 10).iter().enumerate() {
            let stream = Stream::new(0, "test", &[i as u64]);
            let mut planner = OraclePlanner::new(OracleConfig::default(), stream);
            let mut env = placed(&Factors::default(), &pair.start);
            let mut left = 50;
            let done = |env: &PushT| success(&env.state(), &pair.goal, env.factors().block_shape);
            while left > 0 && !done(&env) {
                for action in planner.plan(&env, &pair.goal, left) {
                    env.step_f32(action);
                    left -= 1;
                    if done(&env) {
                        break;
                    }
                }
            }
            solved += usize::from(done(&env));
        }
        assert!(solved >= 9, "{solved} of 10");
    }
}
