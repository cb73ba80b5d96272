//! Push-T: the built-in expert, and play near the block.

use worldbench_core::Stream;
use worldbench_data::Row;
use worldbench_env::{DomainRef, EnvError, Factors, PushT, Scene, Simulation, domain::domain};

use super::{CollectConfig, Demonstrator, placed, record};
use crate::policies::{
    Expert,
    expert::{draw_start, draw_target},
    outline::{Outline, Pose, on_picture},
};

/// Pushes the block to random targets; plays near the block.
#[derive(Clone, Copy, Debug)]
pub struct PushTDemonstrator;

impl Demonstrator for PushTDemonstrator {
    fn env(&self) -> DomainRef {
        domain::<PushT>()
    }

    fn expert(&self, config: &CollectConfig, scene: &Scene, stream: Stream) -> Result<Vec<Row>, EnvError> {
        Ok(expert_episode(config, scene, stream)?.rows)
    }

    /// Play near the block: the agent heads for random points around it, each for a few steps. With points held for
    /// one step only this is much like the reference's weak policy (pusht-spec section 9).
    ///
    /// An episode ends when the block is pushed through a wall and partly off the picture; of up to four tries the
    /// first one that lasts the shortest length is taken.
    fn play(&self, scene: &Scene, steps: [usize; 2], stream: Stream) -> Result<Vec<Row>, EnvError> {
        let mut rows = play_attempt(scene, steps, stream.child(&[0]))?;
        for attempt in 1..4 {
            if rows.len() > steps[0] {
                break;
            }
            rows = play_attempt(scene, steps, stream.child(&[attempt]))?;
        }
        Ok(rows)
    }

    /// Whether the agent's centre and the whole block lie on the 512 x 512 picture.
    fn in_view(&self, scene: &Scene, state: &[f64]) -> bool {
        on_picture([state[0], state[1]]) && outline(scene).in_view(&Pose::of_block(state))
    }
}

fn outline(scene: &Scene) -> Outline {
    Outline::of_block(&scene.factors::<Factors>())
}

/// An expert episode and how it ended.
struct ExpertEpisode {
    /// Recorded rows.
    rows: Vec<Row>,
    /// Whether the block was brought onto the target.
    solved: bool,
}

/// Records the expert from a random start to a random target. An episode that fails is thrown away and drawn
/// anew, up to three times.
fn expert_episode(config: &CollectConfig, scene: &Scene, stream: Stream) -> Result<ExpertEpisode, EnvError> {
    let mut episode = expert_attempt(config, scene, stream.child(&[0]))?;
    for attempt in 1..4 {
        if episode.solved {
            break;
        }
        episode = expert_attempt(config, scene, stream.child(&[attempt]))?;
    }
    Ok(episode)
}

/// Records one attempt of the expert.
fn expert_attempt(
    config: &CollectConfig,
    scene: &Scene,
    mut stream: Stream,
) -> Result<ExpertEpisode, EnvError> {
    let outline = outline(scene);
    let start = draw_start(&mut stream, &outline);
    let target = draw_target(&mut stream, &outline);
    let mut expert = Expert::new(config.expert, outline, target, stream.child(&[0]));
    let mut env = placed(domain::<PushT>(), scene, &start)?;
    let mut solved = false;
    let rows = record(env.as_mut(), config.max_steps, |env| {
        let env = push_t(env)?;
        solved |= expert.solved(env);
        expert.act(env)
    });
    let solved = solved || push_t(env.as_ref()).is_some_and(|env| expert.solved(env));
    Ok(ExpertEpisode { rows, solved })
}

/// The simulator that the expert tries its pushes on.
fn push_t(env: &dyn Simulation) -> Option<&PushT> {
    env.simulator().downcast_ref()
}

fn play_attempt(scene: &Scene, steps: [usize; 2], mut stream: Stream) -> Result<Vec<Row>, EnvError> {
    let outline = outline(scene);
    let mut env = placed(domain::<PushT>(), scene, &draw_start(&mut stream, &outline))?;
    let count = steps[0] + stream.below((steps[1] - steps[0]) as u64 + 1) as usize;
    let hold = 1 + stream.below(6);
    let pace = stream.uniform(0.4, 1.0);
    let (mut point, mut left) = ([0.0; 2], 0);
    Ok(record(env.as_mut(), count, |env| {
        let state = env.state();
        if !outline.in_view(&Pose::of_block(&state)) {
            return None;
        }
        if left == 0 {
            let around = Pose::of_block(&state).apply([0.0, 45.0]);
            // Points inside the arena, or the agent would push the block through a wall.
            point = around.map(|c| (c + stream.uniform(-110.0, 110.0)).clamp(25.0, 487.0));
            left = 1 + stream.below(hold);
        }
        left -= 1;
        Some([0, 1].map(|i| ((point[i] - state[i]) / 100.0).clamp(-pace, pace) as f32))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::noisy_replay;

    fn scene() -> Scene {
        domain::<PushT>().scene(&Default::default()).unwrap()
    }

    #[test]
    fn a_replay_without_noise_repeats_the_recording() {
        let scene = scene();
        let config = CollectConfig::default();
        let expert = expert_episode(&config, &scene, Stream::new(5, "test", &[])).unwrap();
        let stream = Stream::new(1, "test", &[]);
        let replay = noisy_replay(domain::<PushT>(), &expert.rows, &scene, [0.0; 2], None, stream).unwrap();
        assert_eq!(replay.len(), expert.rows.len());
        let (a, b) = (&replay[replay.len() - 1].state, &expert.rows[expert.rows.len() - 1].state);
        assert!((a[0] - b[0]).abs() < 1.0 && (a[3] - b[3]).abs() < 1.0, "{a:?} {b:?}");
    }

    #[test]
    fn the_expert_brings_the_block_to_the_target() {
        let config = CollectConfig::default();
        let attempt = |i| expert_attempt(&config, &scene(), Stream::new(9, "test", &[i])).unwrap();
        let episodes: Vec<_> = (0..12).map(attempt).collect();
        assert!(episodes.iter().filter(|e| e.solved).count() >= 11);
        assert!(episodes.iter().all(|e| e.rows.len() <= config.max_steps + 1));
    }
}
