use worldbench_env::{Environment, Scene, domain::Appearance, domain::domain};

use crate::episode::{ACTION_DIM, Episode, EpisodeInfo, Kind, Row};

/// Records an episode while it is played.
#[derive(Clone, Debug)]
pub struct Recorder {
    episode: Episode,
}

impl Recorder {
    /// Starts an episode at the environment's present state. See [`EpisodeInfo`] for `source` and `seed`.
    #[must_use]
    pub fn new<E: Environment + 'static>(env: &E, kind: Kind, source: u64, seed: u64) -> Self {
        let info = EpisodeInfo { env: domain::<E>(), kind, source, seed, factors: Scene::of(env.factors()) };
        Self { episode: Episode { info, rows: Vec::new(), pixels: None } }
    }

    /// Notes the present row with `action` and executes it, in the f32 precision of planners and policies.
    pub fn step<E: Environment>(&mut self, env: &mut E, action: [f32; ACTION_DIM]) {
        self.episode.rows.push(Row::of(env, action));
        env.step(action);
    }

    /// Steps recorded so far.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.episode.rows.len()
    }

    /// Adds the last row, which has no action, and returns the episode.
    #[must_use]
    pub fn finish<E: Environment>(mut self, env: &E) -> Episode {
        self.episode.rows.push(Row::of(env, [f32::NAN; ACTION_DIM]));
        self.episode
    }
}

/// Plays at most `max_steps` of `policy` from the environment's present state and returns the episode; the policy
/// sees the environment and the step number, and ends the episode early with `None`.
pub fn record<E: Environment + 'static>(
    env: &mut E,
    (kind, source, seed): (Kind, u64, u64),
    max_steps: usize,
    mut policy: impl FnMut(&E, usize) -> Option<[f32; ACTION_DIM]>,
) -> Episode {
    let mut recorder = Recorder::new(env, kind, source, seed);
    for t in 0..max_steps {
        let Some(action) = policy(env, t) else { break };
        recorder.step(env, action);
    }
    recorder.finish(env)
}

impl Row {
    /// The environment as it stands, and the action taken from here.
    pub fn of<E: Environment>(env: &E, action: [f32; ACTION_DIM]) -> Self {
        Self { state: env.state().as_ref().to_vec(), render: env.render_state().look(), action }
    }
}

#[cfg(test)]
mod tests {
    use worldbench_core::Stream;
    use worldbench_env::{
        Factors, PushT, PushTConfig,
        raster::{Filter, Render, Renderer},
    };

    use super::*;
    use crate::{FrameSpec, testing::store};

    /// Runs at the block with noise, so that most episodes push it about; also returns the live frames.
    fn play(seed: u64, resolution: usize) -> (Episode, Vec<Vec<u8>>) {
        let mut stream = Stream::new(seed, "play", &[]);
        let factors = Factors::default();
        let mut env = PushT::new(&factors, PushTConfig::default());
        let mut pixel = || stream.uniform(150.0, 350.0);
        env.set_state(&[pixel(), pixel(), pixel(), pixel(), pixel()]).unwrap();
        let mut renderer = Renderer::new(&factors, resolution, Filter::Linear).unwrap();
        let mut live = Vec::new();
        let episode = record(&mut env, (Kind::Random, seed, seed), 40, |env, _| {
            live.push(renderer.view(&env.render_state()).to_vec());
            let s = env.state();
            let noise = stream.normal() * 0.3;
            let mut towards = |k: usize| ((s[2 + k] - s[k]) / 100.0 + stream.normal() * 0.3 + noise) as f32;
            Some([towards(0), towards(1)])
        });
        live.push(renderer.view(&env.render_state()).to_vec());
        (episode, live)
    }

    #[test]
    fn a_thousand_stored_frames_equal_the_live_ones() {
        let (episodes, live): (Vec<_>, Vec<_>) = (0..25).map(|seed| play(seed, 224)).unzip();
        let (_guard, store) = store(&episodes);
        let spec = FrameSpec { resolution: 224, filter: Filter::Linear };
        let mut frames = crate::FrameSource::new(spec);
        let mut out = vec![0; 224 * 224 * 3];
        let mut checked = 0;
        for (e, view) in store.views().enumerate() {
            // Backwards: a frame must not depend on the one drawn before it.
            for row in (0..view.len()).rev() {
                frames.write(e, &view, row, &mut out).unwrap();
                assert!(out == live[e][row], "episode {e} row {row} differs");
                checked += 1;
            }
        }
        let contact = store.stats().contact_rows;
        assert!(checked >= 1000 && contact * 4 > checked, "{contact} of {checked} rows with contact");
    }

    #[test]
    fn a_recorded_episode_replays_bit_for_bit() {
        let (episode, _) = play(3, 64);
        let mut env = PushT::new(&Factors::default(), PushTConfig::default());
        let mut stream = Stream::new(3, "play", &[]);
        let mut pixel = || stream.uniform(150.0, 350.0);
        env.set_state(&[pixel(), pixel(), pixel(), pixel(), pixel()]).unwrap();
        let again = record(&mut env, (Kind::Random, 3, 3), usize::MAX, |_, t| {
            Some(episode.rows[t].action).filter(|a| !a[0].is_nan())
        });
        assert_eq!(crate::testing::bits(&again), crate::testing::bits(&episode));
    }
}
