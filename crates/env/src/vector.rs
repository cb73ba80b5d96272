//! Many environments stepped, and rendered, on a thread pool.
//!
//! Every environment is touched by one task at a time and shares nothing with the others, so results do not
//! depend on the number of threads.

use crate::environment::{Action, Environment, ResetOptions};
use crate::error::EnvError;
use crate::raster::{Filter, RasterError, Render};
use rayon::prelude::*;

/// `N` environments of one kind.
pub struct VecEnv<E: Environment> {
    envs: Vec<E>,
    eyes: Vec<Option<Eye<E>>>,
    pool: rayon::ThreadPool,
}

/// A renderer and what it was made for.
struct Eye<E: Environment> {
    renderer: E::Renderer,
    factors: E::Factors,
    filter: Filter,
}

impl<E: Environment> Eye<E> {
    fn fits(&self, factors: &E::Factors, resolution: usize, filter: Filter) -> bool {
        self.renderer.resolution() == resolution && self.filter == filter && self.factors == *factors
    }
}

impl<E: Environment> VecEnv<E> {
    /// `count` clones of `env` on a pool of `threads` threads (0: one per core).
    ///
    /// # Errors
    /// When the pool cannot be started.
    pub fn new(env: E, count: usize, threads: usize) -> Result<Self, EnvError> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|e| EnvError::Pool { threads, message: e.to_string() })?;
        let eyes = (0..count).map(|_| None).collect();
        Ok(Self { envs: vec![env; count], eyes, pool })
    }

    /// The environments.
    #[must_use]
    pub fn envs(&self) -> &[E] {
        &self.envs
    }

    /// The environments, to set states or goals.
    pub fn envs_mut(&mut self) -> &mut [E] {
        &mut self.envs
    }

    /// Resets environment `i` with seed `seed + i`, as vectorised reference environments do.
    ///
    /// # Errors
    /// As [`Environment::reset`].
    pub fn reset(&mut self, seed: u64, options: &ResetOptions) -> Result<Vec<E::State>, EnvError> {
        let Self { envs, pool, .. } = self;
        pool.install(|| {
            let reset = |(i, env): (usize, &mut E)| env.reset(seed.wrapping_add(i as u64), options);
            envs.par_iter_mut().enumerate().map(reset).collect()
        })
    }

    /// One control step of every environment; `actions` [N, 2]. Environments beyond the actions stand still in
    /// time.
    pub fn step(&mut self, actions: &[Action]) {
        let Self { envs, pool, .. } = self;
        pool.install(|| envs.par_iter_mut().zip(actions).for_each(|(env, &action)| env.step(action)));
    }

    /// Runs `work(index, env)` for every environment on the pool and collects its results in order: for
    /// policies, whole rollouts or rewards.
    pub fn map<R: Send>(&mut self, work: impl Fn(usize, &mut E) -> R + Sync) -> Vec<R> {
        let Self { envs, pool, .. } = self;
        pool.install(|| envs.par_iter_mut().enumerate().map(|(i, env)| work(i, env)).collect())
    }

    /// Draws the environments into `pixels`, RGB bytes `[N, resolution, resolution, 3]`. Renderers are kept from call
    /// to call, one for each environment, and made anew where the factors have changed.
    ///
    /// # Errors
    /// When the resolution is not supported or `pixels` has another length.
    pub fn render(
        &mut self,
        resolution: usize,
        filter: Filter,
        pixels: &mut [u8],
    ) -> Result<(), RasterError> {
        let frame = resolution.saturating_mul(resolution).saturating_mul(3);
        let count = self.envs.len();
        if pixels.len() != frame.saturating_mul(count) {
            return Err(RasterError::Frames { len: pixels.len(), count, resolution });
        }
        let Self { envs, eyes, pool } = self;
        let draw = |((env, eye), out): ((&E, &mut Option<Eye<E>>), &mut [u8])| {
            let factors = env.factors();
            let kept = eye.take().filter(|eye| eye.fits(factors, resolution, filter));
            let fresh = || {
                let renderer = E::Renderer::new(factors, resolution, filter)?;
                Ok::<_, RasterError>(Eye { renderer, factors: factors.clone(), filter })
            };
            let eye = eye.insert(kept.map_or_else(fresh, Ok)?);
            eye.renderer.render(&env.render_state(), out)
        };
        pool.install(|| envs.par_iter().zip(eyes).zip(pixels.par_chunks_mut(frame.max(1))).try_for_each(draw))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policies::{Policy, Weak};
    use crate::push_t::PushT;
    use crate::two_room::TwoRoom;
    use crate::variation::Sampling;

    /// States, frames, then both again after a reset to other scenes.
    fn rollout<E: Environment>(threads: usize) -> (Vec<u64>, Vec<u8>) {
        let mut envs = VecEnv::new(E::build(&E::Factors::default()), 9, threads).unwrap();
        let (mut states, mut frames) = (Vec::new(), Vec::new());
        for sampling in [Sampling::default(), Sampling::all()] {
            envs.reset(3, &ResetOptions { sampling, ..ResetOptions::default() }).unwrap();
            let mut policies: Vec<Weak> = (0..9).map(|i| Weak::new(1, i)).collect();
            for step in 0..40 {
                let actions: Vec<_> =
                    policies.iter_mut().zip(envs.envs()).map(|(p, env)| p.act(env, step)).collect();
                envs.step(&actions);
            }
            let mut pixels = vec![0; 9 * 32 * 32 * 3];
            envs.render(32, Filter::Area, &mut pixels).unwrap();
            frames.extend(pixels);
            let bits = |_, env: &mut E| env.state().as_ref().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            states.extend(envs.map(bits).concat());
        }
        (states, frames)
    }

    fn check<E: Environment>() {
        let one = rollout::<E>(1);
        assert_eq!(one, rollout::<E>(2));
        assert_eq!(one, rollout::<E>(5));
        let frames: Vec<&[u8]> = one.1.chunks(32 * 32 * 3).collect();
        assert!(frames.iter().skip(1).all(|frame| *frame != frames[0]), "every environment draws its own");
    }

    #[test]
    fn results_do_not_depend_on_the_thread_count() {
        check::<PushT>();
        check::<TwoRoom>();
    }

    #[test]
    fn frames_are_those_of_a_fresh_renderer() {
        let mut envs = VecEnv::new(TwoRoom::build(&Default::default()), 3, 2).unwrap();
        let mut pixels = vec![0; 3 * 48 * 48 * 3];
        for seed in 0..4 {
            let sampling = if seed % 2 == 0 { Sampling::all() } else { Sampling::default() };
            envs.reset(seed, &ResetOptions { sampling, ..ResetOptions::default() }).unwrap();
            for _ in 0..3 {
                envs.step(&[[1.0, 0.5]; 3]);
                envs.render(48, Filter::Linear, &mut pixels).unwrap();
                for (env, frame) in envs.envs().iter().zip(pixels.chunks(48 * 48 * 3)) {
                    let mut fresh =
                        <TwoRoom as Environment>::Renderer::new(env.factors(), 48, Filter::Linear).unwrap();
                    assert!(fresh.view(&env.render_state()) == frame);
                }
            }
        }
    }

    #[test]
    fn wrong_buffers_and_resolutions_are_refused() {
        let mut envs = VecEnv::new(TwoRoom::build(&Default::default()), 2, 1).unwrap();
        let message = envs.render(16, Filter::Linear, &mut [0; 7]).unwrap_err().to_string();
        assert!(message.contains('7') && message.contains("1536"), "{message}");
        assert!(matches!(envs.render(2, Filter::Linear, &mut [0; 24]), Err(RasterError::Resolution(2))));
    }
}
