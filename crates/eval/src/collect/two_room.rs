//! Two-Room: the reference's expert walks a tour of random targets, with noise; play is a random walk.
//!
//! The published set's episodes end at their first target. Here the next target is drawn on arrival, so that episodes have
//! any length and most stretches of 25 steps lead somewhere.

use worldbench_core::Stream;
use worldbench_data::Row;
use worldbench_env::policies::Policy;
use worldbench_env::two_room::{self, Expert, Factors, SIZE};
use worldbench_env::{DomainRef, EnvError, Scene, TwoRoom, domain::domain};

use super::{CollectConfig, Demonstrator, placed, record};

/// Distance of drawn places from the edge of the image, pixels: where a default agent touches the border.
const MARGIN: f64 = 21.0;

/// Walks to random targets; plays by walking at random.
#[derive(Clone, Copy, Debug)]
pub struct TwoRoomDemonstrator;

impl Demonstrator for TwoRoomDemonstrator {
    fn env(&self) -> DomainRef {
        domain::<TwoRoom>()
    }

    fn foreign(&self, config: &CollectConfig) -> Option<&'static str> {
        let ignored = CollectConfig::default();
        let effort = (config.expert != ignored.expert).then_some("expert");
        effort.or((config.max_steps != ignored.max_steps).then_some("max_steps"))
    }

    fn expert(
        &self,
        config: &CollectConfig,
        scene: &Scene,
        mut stream: Stream,
    ) -> Result<Vec<Row>, EnvError> {
        let factors = scene.factors::<Factors>();
        let count = length(config.steps, &mut stream);
        let noise = stream.uniform(config.action_noise[0], config.action_noise[1]);
        let mut expert = Expert::with(stream.child(&[0]), noise);
        let mut env = placed(self.env(), scene, &place(&factors, &mut stream))?;
        env.set_goal_state(&place(&factors, &mut stream))?;
        Ok(record(env.as_mut(), count, |env| {
            if env.success() {
                // Drawn places are admissible goals.
                env.set_goal_state(&place(&factors, &mut stream)).ok()?;
            }
            Some(expert.act(env.simulator().downcast_ref::<TwoRoom>()?, 0))
        }))
    }

    /// A random walk: moves within the bounds of the action, each held for a few steps.
    fn play(&self, scene: &Scene, steps: [usize; 2], mut stream: Stream) -> Result<Vec<Row>, EnvError> {
        let factors = scene.factors::<Factors>();
        let (count, hold) = (length(steps, &mut stream), 1 + stream.below(12));
        let mut env = placed(self.env(), scene, &place(&factors, &mut stream))?;
        let (mut action, mut left) = ([0.0; 2], 0);
        Ok(record(env.as_mut(), count, |_| {
            if left == 0 {
                action = [0; 2].map(|_| stream.uniform(-1.0, 1.0) as f32);
                left = 1 + stream.below(hold);
            }
            left -= 1;
            Some(action)
        }))
    }

    fn in_view(&self, _: &Scene, _: &[f64]) -> bool {
        true
    }
}

fn length(steps: [usize; 2], stream: &mut Stream) -> usize {
    steps[0] + stream.below((steps[1] - steps[0]) as u64 + 1) as usize
}

/// A random place in either room, clear of the wall.
fn place(factors: &Factors, stream: &mut Stream) -> two_room::State {
    loop {
        let place = [0; 2].map(|_| f64::from(stream.uniform(MARGIN, SIZE as f64 - MARGIN) as f32));
        if !factors.in_the_wall(&place) {
            return place;
        }
    }
}
