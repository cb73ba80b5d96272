//! Many environments stepped, and rendered, on a thread pool.
//!
//! Every environment is touched by one task at a time and shares nothing with the others, so results do not
//! depend on the number of threads.

use crate::error::EnvError;
use crate::push_t::{PushT, PushTConfig, ResetOptions, State};
use crate::variation::Factors;
use rayon::prelude::*;

/// `N` Push-T environments.
pub struct VecEnv {
    envs: Vec<PushT>,
    pool: rayon::ThreadPool,
}

impl VecEnv {
    /// `count` environments on a pool of `threads` threads (0: one per core).
    ///
    /// # Errors
    /// When the pool cannot be started.
    pub fn new(count: usize, threads: usize, config: PushTConfig) -> Result<Self, EnvError> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|e| EnvError::Pool { threads, message: e.to_string() })?;
        Ok(Self { envs: vec![PushT::new(&Factors::default(), config); count], pool })
    }

    /// The environments.
    #[must_use]
    pub fn envs(&self) -> &[PushT] {
        &self.envs
    }

    /// The environments, to set states or goals.
    pub fn envs_mut(&mut self) -> &mut [PushT] {
        &mut self.envs
    }

    /// Resets environment `i` with seed `seed + i`, as vectorised reference environments do.
    ///
    /// # Errors
    /// As [`PushT::reset`].
    pub fn reset(&mut self, seed: u64, options: &ResetOptions) -> Result<Vec<State>, EnvError> {
        let Self { envs, pool } = self;
        pool.install(|| {
            let reset = |(i, env): (usize, &mut PushT)| env.reset(seed.wrapping_add(i as u64), options);
            envs.par_iter_mut().enumerate().map(reset).collect()
        })
    }

    /// One control step of every environment; `actions` [N, 2]. Environments beyond the actions stand still in
    /// time.
    pub fn step_f32(&mut self, actions: &[[f32; 2]]) {
        let Self { envs, pool } = self;
        pool.install(|| envs.par_iter_mut().zip(actions).for_each(|(env, &action)| env.step_f32(action)));
    }

    /// Runs `work(index, env)` for every environment on the pool and collects its results in order: for
    /// policies, whole rollouts or rewards.
    pub fn map<R: Send>(&mut self, work: impl Fn(usize, &mut PushT) -> R + Sync) -> Vec<R> {
        let Self { envs, pool } = self;
        pool.install(|| envs.par_iter_mut().enumerate().map(|(i, env)| work(i, env)).collect())
    }

    /// Draws every environment into its part of `pixels` [N, frame_len]: `draw` gets a canvas of the thread's
    /// own, made by `canvas`, the environment and its part.
    pub fn render<C>(
        &self,
        pixels: &mut [u8],
        frame_len: usize,
        canvas: impl Fn() -> C + Sync + Send,
        draw: impl Fn(&mut C, &PushT, &mut [u8]) + Sync + Send,
    ) {
        self.pool.install(|| {
            self.envs
                .par_iter()
                .zip(pixels.par_chunks_mut(frame_len.max(1)))
                .for_each_init(canvas, |canvas, (env, out)| draw(canvas, env, out));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policies::{Policy, Weak};

    fn rollout(threads: usize) -> (Vec<[u64; 7]>, Vec<u8>) {
        let mut envs = VecEnv::new(9, threads, PushTConfig::default()).unwrap();
        envs.reset(3, &ResetOptions::default()).unwrap();
        let mut policies: Vec<Weak> = (0..9).map(|i| Weak::new(1, i)).collect();
        for step in 0..40 {
            let actions: Vec<_> =
                policies.iter_mut().zip(envs.envs()).map(|(p, env)| p.act(&env.state(), step)).collect();
            envs.step_f32(&actions);
        }
        let mut pixels = vec![0; 9 * 4];
        envs.render(&mut pixels, 4, || (), |(), env, out| out.fill(env.state()[2] as u8));
        (envs.map(|_, env| env.state().map(f64::to_bits)), pixels)
    }

    #[test]
    fn results_do_not_depend_on_the_thread_count() {
        let one = rollout(1);
        assert_eq!(one, rollout(2));
        assert!(one.1.chunks(4).all(|frame| frame.iter().all(|&p| p == frame[0])));
    }
}
