//! Workloads for measuring the simulators.

use crate::environment::{Environment, ResetOptions};
use crate::error::EnvError;
use crate::push_t::{Factors, PushT, PushTConfig, SUBSTEPS};
use crate::two_room::TwoRoom;
use std::hint::black_box;
use std::time::Instant;
use worldbench_core::Stream;

/// Distance from the block origin that the agent is kept within, per axis, pixels.
const REACH: f64 = 100.0;

/// What a run of the workload measured, on one thread.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Throughput {
    /// Control steps run.
    pub steps: u64,
    /// Control steps per second.
    pub steps_per_s: f64,
    /// Physics steps with at least one contact, as a share of all; none where there is no physics.
    pub contact_share: Option<f64>,
}

/// Play like the weak policy's: random targets kept near the block, here within 50 px of its origin, so that
/// about a third of the physics steps are in contact.
#[derive(Clone)]
pub struct ContactPlay {
    env: PushT,
    actions: Vec<[f32; 2]>,
    at: usize,
}

impl ContactPlay {
    /// The workload named by `seed`; all randomness is drawn here, so that stepping measures physics alone.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut stream = Stream::new(seed, "perf env", &[]);
        let actions = (0..4096).map(|_| [0; 2].map(|_| stream.uniform(-1.0, 1.0) as f32)).collect();
        let mut play = Self { env: PushT::new(&Factors::default(), PushTConfig::default()), actions, at: 0 };
        play.restart();
        play
    }

    fn restart(&mut self) {
        let [x, y] = self.actions[self.at % self.actions.len()].map(f64::from);
        let start = [256.0 + 90.0 * x, 256.0 + 90.0 * y, 256.0, 220.0, 3.0 * x];
        // The length and the values are right by construction.
        let _ = self.env.set_state(&start);
    }

    /// One control step; every 200 steps, or when the block has left the middle, play restarts there.
    #[inline]
    pub fn step(&mut self) {
        let noise = self.actions[self.at % self.actions.len()];
        self.at += 1;
        let s = self.env.state();
        if self.at.is_multiple_of(200) || !(20.0..492.0).contains(&s[2]) || !(20.0..492.0).contains(&s[3]) {
            self.restart();
        }
        let toward: [f32; 2] = std::array::from_fn(|k| {
            let target = s[k] + 100.0 * f64::from(noise[k]);
            let target = target.max(s[2 + k] - REACH).min(s[2 + k] + REACH);
            ((target - s[k]) / 100.0).clamp(-1.0, 1.0) as f32
        });
        self.env.step_f32(toward);
    }

    /// The environment.
    #[must_use]
    pub fn env(&self) -> &PushT {
        &self.env
    }
}

/// Runs `steps` control steps of contact-rich play without rendering, on the calling thread.
#[must_use]
pub fn contact_workload(steps: u64) -> Throughput {
    let mut play = ContactPlay::new(0);
    let before = play.env.contact_steps();
    let start = Instant::now();
    for _ in 0..steps {
        play.step();
    }
    let seconds = start.elapsed().as_secs_f64();
    let touched = (play.env.contact_steps() - before) as f64;
    Throughput {
        steps,
        steps_per_s: steps as f64 / seconds.max(f64::MIN_POSITIVE),
        contact_share: Some(touched / (steps.max(1) * SUBSTEPS as u64) as f64),
    }
}

/// Runs `steps` control steps of random walks in Two-Room, each with its success test, on the calling thread; every
/// 100 steps another walk begins.
///
/// # Errors
/// None that the default scene can cause.
pub fn walk_workload(steps: u64) -> Result<Throughput, EnvError> {
    let mut stream = Stream::new(0, "perf env", &[]);
    let actions: Vec<[f32; 2]> =
        (0..4096).map(|_| [0; 2].map(|_| stream.uniform(-1.0, 1.0) as f32)).collect();
    let mut env = TwoRoom::build(&Default::default());
    let mut start = |seed| {
        env.reset(seed, &ResetOptions::default())?;
        Ok::<_, EnvError>(env.clone())
    };
    let starts = (0..64).map(&mut start).collect::<Result<Vec<_>, _>>()?;
    let begin = Instant::now();
    let mut at = 0;
    for start in starts.iter().cycle() {
        let mut env = start.clone();
        for _ in 0..100.min(steps - at) {
            env.step(actions[at as usize % actions.len()]);
            black_box(env.success());
            at += 1;
        }
        black_box(env.state());
        if at == steps {
            break;
        }
    }
    let steps_per_s = steps as f64 / begin.elapsed().as_secs_f64().max(f64::MIN_POSITIVE);
    Ok(Throughput { steps, steps_per_s, contact_share: None })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_workload_is_contact_rich() {
        let result = super::contact_workload(20_000);
        println!("{result:?}");
        assert!(result.contact_share.unwrap() >= 0.25, "{result:?}");
    }
}
