//! The built-in expert: pushes the block to a target pose from any start.
//!
//! A push is chosen by trying it out: candidate contact points on the outline and push directions are simulated
//! on copies of the true environment, and the one that brings the block's corners closest to the target per step
//! of effort (walking included) wins. On the way round the block a shortest path keeps clear of it; once in
//! contact, the push is corrected every few steps by simulating variations of it from the real state, until no
//! variation helps and the next push is chosen.
//!
//! The choices that people differ in (speed, smoothness, clearance, hesitation, how greedy a push is picked) are
//! drawn once per episode into a [`Style`], so that a data set is not one groove. The pace follows people: in the
//! data that `collect` makes the agent moves 38 px a coordinate (rms) in five steps and the block 50 px in 25 (median);
//! in 206 human demonstrations it is 36 px and 39 px.

use std::f64::consts::{FRAC_PI_4, TAU};

use serde::{Deserialize, Serialize};
use worldbench_core::Stream;
use worldbench_env::push_t::PushT;

use super::outline::{Outline, Pose, add, angle_between, norm, sub};

/// Radius of the default agent, px.
const AGENT_RADIUS: f64 = 15.0;
/// Pixels that an agent in steady motion covers in a step per unit of action (relative mode, PD gains 100 and 20).
const STRIDE: f64 = 40.0;

/// Effort and precision of the [`Expert`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExpertConfig {
    /// Candidate pushes simulated when a new push is chosen.
    pub pushes: usize,
    /// Longest simulated push, env steps.
    pub push_steps: usize,
    /// Variations of the running push simulated at each correction.
    pub variations: usize,
    /// Longest simulated variation, env steps.
    pub variation_steps: usize,
    /// The block is on target when its origin is closer than this, px.
    pub position_tolerance: f64,
    /// And its angle closer than this, rad.
    pub angle_tolerance: f64,
}

impl Default for ExpertConfig {
    fn default() -> Self {
        Self {
            pushes: 40,
            push_steps: 20,
            variations: 10,
            variation_steps: 12,
            position_tolerance: 8.0,
            angle_tolerance: 0.1,
        }
    }
}

impl ExpertConfig {
    /// Checks every setting.
    pub(crate) fn check(&self) -> Result<(), String> {
        let counts = [
            ("pushes", self.pushes),
            ("push_steps", self.push_steps),
            ("variations", self.variations),
            ("variation_steps", self.variation_steps),
        ];
        if let Some((key, _)) = counts.iter().find(|(_, count)| *count == 0) {
            return Err(format!("expert.{key} = 0 must be above 0"));
        }
        let tolerances =
            [("position_tolerance", self.position_tolerance), ("angle_tolerance", self.angle_tolerance)];
        match tolerances.iter().find(|(_, value)| !(*value > 0.0 && value.is_finite())) {
            Some((key, value)) => Err(format!("expert.{key} = {value} must be a number above 0")),
            None => Ok(()),
        }
    }
}

/// How one demonstrator moves; drawn once per episode.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Style {
    /// Largest action while walking, in action units.
    pub walk: f64,
    /// Largest action while pushing, in action units.
    pub push: f64,
    /// Share of the previous action kept in each action, `[0, 1)`.
    pub smoothness: f64,
    /// Standard deviation of the hand's noise, in action units.
    pub noise: f64,
    /// Correlation of that noise from step to step, `[0, 1)`.
    pub noise_memory: f64,
    /// Env steps between corrections of a push.
    pub replan: usize,
    /// Distance kept from the block while walking, px beyond the agent's radius.
    pub clearance: f64,
    /// Standard deviation of the relative error in judging a push: 0 always takes the best one.
    pub whim: f64,
    /// Chance to pause before a push.
    pub hesitation: f64,
    /// Env steps spent near the block after it is on target.
    pub linger: usize,
}

impl Style {
    /// Draws a demonstrator.
    pub fn draw(stream: &mut Stream) -> Self {
        let walk = stream.uniform(0.12, 0.45);
        Self {
            walk,
            push: walk * stream.uniform(0.25, 0.6),
            smoothness: stream.uniform(0.0, 0.5),
            noise: stream.uniform(0.0, 0.07),
            noise_memory: stream.uniform(0.0, 0.8),
            replan: 2 + stream.below(4) as usize,
            clearance: stream.uniform(5.0, 25.0),
            whim: stream.uniform(0.0, 0.4),
            hesitation: stream.uniform(0.0, 0.8),
            linger: stream.below(8) as usize,
        }
    }
}

/// A push with constant speed and constant turn.
#[derive(Clone, Copy, Debug)]
struct Push {
    /// Direction of motion at its first step, rad, world frame.
    heading: f64,
    /// Change of the heading, rad per step.
    turn: f64,
    /// Size of the action.
    speed: f64,
}

impl Push {
    fn action(&self, step: usize) -> [f64; 2] {
        let (sin, cos) = (self.heading + self.turn * step as f64).sin_cos();
        [self.speed * cos, self.speed * sin]
    }
}

/// How well a simulated push went.
#[derive(Clone, Copy, Debug)]
struct Trial {
    /// Decrease of the block's distance to the target, px, at the best step.
    gain: f64,
    /// Steps until then.
    steps: usize,
}

#[derive(Clone, Debug)]
enum Phase {
    Decide,
    Walk { way: Vec<[f64; 2]>, push: Push, block: Pose, steps: usize },
    Push { push: Push, step: usize, commit: usize },
    Pause { left: usize },
    Linger { left: usize, drift: [f64; 2] },
}

/// A demonstrator in the middle of an episode.
#[derive(Clone, Debug)]
pub struct Expert {
    config: ExpertConfig,
    style: Style,
    outline: Outline,
    target: Pose,
    stream: Stream,
    phase: Phase,
    noise: [f64; 2],
    previous: [f64; 2],
    /// Decisions in a row that found no useful push.
    stuck: usize,
}

impl Expert {
    /// A demonstrator who moves a block of the given outline to `target`; `stream` decides all its choices.
    #[must_use]
    pub fn new(config: ExpertConfig, outline: Outline, target: Pose, mut stream: Stream) -> Self {
        let style = Style::draw(&mut stream);
        Self {
            config,
            style,
            outline,
            target,
            stream,
            phase: Phase::Decide,
            noise: [0.0; 2],
            previous: [0.0; 2],
            stuck: 0,
        }
    }

    /// The style drawn for this episode.
    #[must_use]
    pub fn style(&self) -> &Style {
        &self.style
    }

    /// Whether the block of `env` is on target.
    #[must_use]
    pub fn solved(&self, env: &PushT) -> bool {
        let pose = Pose::of_block(&env.state());
        norm(sub(pose.origin, self.target.origin)) < self.config.position_tolerance
            && angle_between(pose.angle, self.target.angle, self.outline.symmetry())
                < self.config.angle_tolerance
    }

    /// The next relative action (1 = 100 px); `None` when the demonstrator is done or has given up.
    pub fn act(&mut self, env: &PushT) -> Option<[f32; 2]> {
        let wanted = self.wanted(env)?;
        let style = &self.style;
        let precise = matches!(self.phase, Phase::Push { .. });
        let (memory, spread) = (style.noise_memory, style.noise * if precise { 0.5 } else { 1.0 });
        let fresh = spread * (1.0 - memory * memory).sqrt();
        let keep = style.smoothness * if precise { 0.5 } else { 1.0 };
        let mut action = [0.0; 2];
        for (i, a) in action.iter_mut().enumerate() {
            self.noise[i] = memory * self.noise[i] + fresh * self.stream.normal();
            self.previous[i] = keep * self.previous[i] + (1.0 - keep) * wanted[i];
            *a = (self.previous[i] + self.noise[i]).clamp(-1.0, 1.0) as f32;
        }
        Some(action)
    }

    /// The action before smoothing and noise.
    fn wanted(&mut self, env: &PushT) -> Option<[f64; 2]> {
        let state = env.state();
        let agent = [state[0], state[1]];
        // Every pass either returns or moves on to a later phase, so a few passes suffice.
        for _ in 0..6 {
            match &mut self.phase {
                Phase::Decide => self.decide(env)?,
                Phase::Walk { way, push, block, steps } => {
                    *steps += 1;
                    let reached = if way.len() > 1 { 16.0 } else { 7.0 };
                    if norm(sub(way[0], agent)) < reached {
                        way.remove(0);
                    }
                    let now = Pose::of_block(&state);
                    if *steps > 80 || self.outline.distance(&now, block) > 10.0 {
                        self.phase = Phase::Decide;
                    } else if let Some(&next) = way.first() {
                        let gain = if way.len() > 1 { 0.05 } else { 0.02 };
                        return Some(limit(sub(next, agent), gain, self.style.walk));
                    } else {
                        self.phase = Phase::Push { push: *push, step: 0, commit: 0 };
                    }
                }
                Phase::Push { push, step, commit } => {
                    if *step < *commit {
                        *step += 1;
                        return Some(push.action(*step - 1));
                    }
                    let push = push.to_owned();
                    self.correct(env, push);
                }
                Phase::Pause { left } => {
                    if *left > 0 {
                        *left -= 1;
                        return Some([0.0; 2]);
                    }
                    self.phase = Phase::Decide;
                }
                Phase::Linger { left, drift } => {
                    if *left == 0 {
                        return None;
                    }
                    *left -= 1;
                    return Some(*drift);
                }
            }
        }
        Some([0.0; 2])
    }

    /// Chooses the next push, or lingers when the block is on target.
    fn decide(&mut self, env: &PushT) -> Option<()> {
        if self.solved(env) {
            self.linger(env);
            return Some(());
        }
        if self.stream.f64() < self.style.hesitation * 0.3 {
            self.phase = Phase::Pause { left: 2 + self.stream.below(9) as usize };
            return Some(());
        }
        let state = env.state();
        let (agent, block) = ([state[0], state[1]], Pose::of_block(&state));
        let stand = AGENT_RADIUS + 2.0;
        let mut best: Option<(f64, [f64; 2], Push)> = None;
        for _ in 0..self.config.pushes * (1 + self.stuck) {
            let touch = self.outline.touch(self.stream.next_u64(), self.stream.uniform(0.02, 0.98));
            let normal = block.rotate(touch.normal);
            let at = add(block.apply(touch.point), stand, normal);
            let heading = (-normal[1]).atan2(-normal[0]) + self.stream.uniform(-0.7, 0.7);
            let speed = self.style.push * if self.stuck > 0 { self.stream.uniform(0.3, 1.0) } else { 1.0 };
            let judged = 1.0 + self.style.whim * self.stream.normal();
            if self.outline.clearance(&block, at) < stand - 1.0 {
                continue;
            }
            let push = Push { heading, turn: 0.0, speed };
            let mut trial = env.clone();
            place(&mut trial, &[at[0], at[1], state[2], state[3], state[4], 0.0, 0.0]);
            let result = self.simulate(&mut trial, &push, self.config.push_steps);
            let outside = at.iter().any(|&v| !(15.0..497.0).contains(&v));
            let walk = 1.3 * norm(sub(at, agent)) / (STRIDE * self.style.walk);
            let effort = walk + result.steps as f64 + if outside { 24.0 } else { 4.0 };
            let merit = result.gain / effort * judged.max(0.1);
            if result.gain > 0.7 && best.is_none_or(|(b, ..)| merit > b) {
                best = Some((merit, add(at, 5.0, normal), push));
            }
        }
        let Some((_, at, push)) = best else {
            self.stuck += 1;
            if self.stuck > 3 {
                self.linger(env);
            }
            return Some(());
        };
        self.stuck = 0;
        let way = self.outline.route(&block, agent, at, AGENT_RADIUS + self.style.clearance);
        self.phase = Phase::Walk { way, push, block, steps: 0 };
        Some(())
    }

    /// Replaces the running push by its best variation from the real state, or ends it.
    fn correct(&mut self, env: &PushT, running: Push) {
        let mut best: Option<(f64, Push, usize)> = None;
        for i in 0..self.config.variations {
            let mut push = Push { turn: 0.0, ..running };
            if i > 0 {
                push.heading += 0.5 * self.stream.normal();
                push.turn = 0.06 * self.stream.normal();
                push.speed = self.style.push * self.stream.uniform(0.25, 1.0);
            }
            let result = self.simulate(&mut env.clone(), &push, self.config.variation_steps);
            let merit = result.gain / (result.steps as f64 + 2.0);
            if result.gain > 0.5 && best.is_none_or(|(b, ..)| merit > b) {
                best = Some((merit, push, result.steps));
            }
        }
        self.phase = match best {
            Some((_, push, steps)) => {
                Phase::Push { push, step: 0, commit: steps.clamp(1, self.style.replan) }
            }
            None => Phase::Decide,
        };
    }

    /// Runs `push` on a copy of the environment until the block stops coming closer.
    fn simulate(&self, env: &mut PushT, push: &Push, steps: usize) -> Trial {
        let before = self.outline.distance(&Pose::of_block(&env.state()), &self.target);
        let mut best = Trial { gain: 0.0, steps: 0 };
        for step in 0..steps {
            let [x, y] = push.action(step);
            env.step_f32([x as f32, y as f32]);
            let gain = before - self.outline.distance(&Pose::of_block(&env.state()), &self.target);
            if gain > best.gain {
                best = Trial { gain, steps: step + 1 };
            } else if gain < best.gain - 6.0 {
                break;
            }
        }
        best
    }

    /// Stays near the block for a few steps, usually backing off.
    fn linger(&mut self, env: &PushT) {
        let state = env.state();
        let away = sub([state[0], state[1]], Pose::of_block(&state).apply([0.0, 45.0]));
        let pace = self.stream.uniform(0.0, 0.3) / norm(away).max(1.0);
        self.phase = Phase::Linger { left: self.style.linger, drift: [pace * away[0], pace * away[1]] };
    }
}

/// Places a copy of the environment in `state`, which must be finite.
fn place(env: &mut PushT, state: &[f64; 7]) {
    // The only faults `set_state` knows are a wrong length and values that are not finite.
    let placed = env.set_state(state);
    debug_assert!(placed.is_ok(), "{placed:?}");
}

/// `gain * v`, shortened to at most `most`.
fn limit(v: [f64; 2], gain: f64, most: f64) -> [f64; 2] {
    let scale = gain.min(most / norm(v).max(1e-9));
    [scale * v[0], scale * v[1]]
}

/// Draws a block pose whose corners all lie in the arena, `inset` px from the walls.
fn draw_pose(stream: &mut Stream, outline: &Outline, inset: f64) -> Pose {
    loop {
        let pose = Pose {
            origin: [stream.uniform(60.0, 452.0), stream.uniform(60.0, 452.0)],
            angle: stream.uniform(0.0, TAU),
        };
        let inside = |p: [f64; 2]| p.iter().all(|v| (5.0 + inset..506.0 - inset).contains(v));
        if outline.corners().all(|c| inside(pose.apply(c))) {
            return pose;
        }
    }
}

/// Draws a start state: block inside the arena, agent clear of it, everything at rest.
#[must_use]
pub fn draw_start(stream: &mut Stream, outline: &Outline) -> [f64; 7] {
    let block = draw_pose(stream, outline, 5.0);
    loop {
        let agent = [stream.uniform(40.0, 472.0), stream.uniform(40.0, 472.0)];
        if outline.clearance(&block, agent) > AGENT_RADIUS + 3.0 {
            return [agent[0], agent[1], block.origin[0], block.origin[1], block.angle, 0.0, 0.0];
        }
    }
}

/// Draws a target: the standard pose (256, 256, pi/4) in a third of all cases, else anywhere with room around it.
#[must_use]
pub fn draw_target(stream: &mut Stream, outline: &Outline) -> Pose {
    if stream.f64() < 1.0 / 3.0 {
        Pose { origin: [256.0, 256.0], angle: FRAC_PI_4 }
    } else {
        draw_pose(stream, outline, 25.0)
    }
}
