//! A batch of clips as transitions with goals.

use std::ops::Range;

use burn::tensor::Device;
use worldbench_core::Stream;
use worldbench_data::{Batch, GoalSampler, Moment, Split, Store};
use worldbench_models::compact::ACTION;
use worldbench_models::goal::{GoalSizes, Transitions};
use worldbench_models::iq_learn::Demonstrations;
use worldbench_nn::params::from_vec;
use worldbench_plan::ActionNormaliser;

use super::GoalTraining;
use super::config::Reached;
use super::observations::Observations;
use crate::TrainError;

/// Goals of one side of the split.
pub(super) struct Goals {
    actor: GoalSampler,
    value: GoalSampler,
    reached: Reached,
}

impl Goals {
    /// Goals out of `episodes` only; `side` keys their streams.
    pub fn new(
        model: &GoalTraining,
        store: &Store,
        episodes: &[usize],
        (seed, side): (u64, &str),
    ) -> Result<Self, TrainError> {
        let sampler =
            |goals, who| GoalSampler::new(goals, store, episodes, seed, &format!("{who} goals/{side}"));
        Ok(Self {
            actor: sampler(&model.actor_goals, "actor")?,
            value: sampler(&model.value_goals, "value")?,
            reached: model.reached,
        })
    }

    /// The two sides of `split`; without validation episodes there is no second.
    pub fn of(
        model: &GoalTraining,
        store: &Store,
        split: &Split,
        seed: u64,
    ) -> Result<(Self, Option<Self>), TrainError> {
        let side = |episodes: &[usize], name| Self::new(model, store, episodes, (seed, name));
        let val = (!split.val.is_empty()).then(|| side(&split.val, "validation")).transpose()?;
        Ok((side(&split.train, "train")?, val))
    }
}

/// A batch in host memory, B windows of T frames.
pub(super) struct Inputs {
    sizes: GoalSizes,
    /// Frames T of the context.
    frames: usize,
    /// `[B, T, P, D]`
    obs: Vec<f32>,
    /// `[B, T, P, D]`
    next: Vec<f32>,
    /// `[B, T, A]`
    actions: Vec<f32>,
    /// `[B, P, D]`
    actor_goal: Vec<f32>,
    /// `[B, P, D]`
    value_goal: Vec<f32>,
    /// The observation is the value goal, `[B, T]`.
    reached: Vec<f32>,
    /// The next observation is the actor goal, `[B, T]`.
    next_reached: Vec<f32>,
    /// Standard normal numbers for s and for s', `[B, T, A]` each.
    noise: [Vec<f32>; 2],
}

/// Which windows of the loader a learner reads: T frames, and rows for the successor and for whole chunks behind them.
pub(super) fn rows(frames: usize, chunk: usize) -> usize {
    frames + chunk
}

/// Which observations of `seen` `[B, T, each]` equal their window's goal of `goals` `[B, each]`, `[B, T]`.
fn alike(seen: &[f32], goals: &[f32], each: usize) -> Vec<f32> {
    let frames = seen.len() / goals.len().max(1);
    let alike = |(i, seen): (usize, &[f32])| seen == &goals[i / frames * each..][..each];
    seen.chunks_exact(each).enumerate().map(|pair| f32::from(u8::from(alike(pair)))).collect()
}

impl Inputs {
    /// Builds the transitions of `batch`. Goals are keyed by the number of the sample, the policy's noise by `noise`.
    pub fn new(
        batch: &Batch,
        sizes: GoalSizes,
        observations: &Observations,
        goals: &Goals,
        actions: &ActionNormaliser,
        mut noise: Stream,
    ) -> Result<Self, TrainError> {
        let (frames, chunk) = (sizes.frames, sizes.action / ACTION);
        let (windows, rows) = (batch.windows.len(), rows(frames, chunk));
        let mut seen = Vec::with_capacity(windows * (frames + 1));
        let (mut actor, mut value) = (Vec::with_capacity(windows), Vec::with_capacity(windows));
        let (mut reached, mut next_reached) = (Vec::new(), Vec::new());
        for (i, window) in batch.windows.iter().enumerate() {
            let moment = |t: usize| Moment { episode: window.episode, row: window.start + t as u32 };
            let sample = batch.index * windows as u64 + i as u64;
            let current = moment(frames - 1);
            let (actor_goal, value_goal) =
                (goals.actor.draw(current, sample), goals.value.draw(current, sample));
            let flag = |is: bool| f32::from(u8::from(is));
            reached.extend((0..frames).map(|t| flag(moment(t) == value_goal)));
            next_reached.extend((0..frames).map(|t| flag(moment(t + 1) == actor_goal)));
            seen.extend((0..=frames).map(moment));
            actor.push(actor_goal);
            value.push(value_goal);
        }
        let each = sizes.patches * sizes.width;
        let all = observations.read(&seen)?; // [B, T + 1, P, D]
        let (mut obs, mut next) = (Vec::with_capacity(all.len()), Vec::with_capacity(all.len()));
        for window in all.chunks_exact((frames + 1) * each) {
            obs.extend_from_slice(&window[..frames * each]);
            next.extend_from_slice(&window[each..]);
        }
        let mut blocks = Vec::with_capacity(windows * frames * sizes.action);
        for window in batch.actions.chunks_exact(rows * ACTION) {
            for t in 0..frames {
                let raw: Vec<f64> =
                    window[t * ACTION..][..sizes.action].iter().map(|&a| f64::from(a)).collect();
                blocks.extend(actions.normalise(&raw));
            }
        }
        let noise = [(); 2].map(|()| {
            let mut values = vec![0.0; windows * frames * sizes.action];
            noise.fill_normal(&mut values);
            values
        });
        let (actor_goal, value_goal) = (observations.read(&actor)?, observations.read(&value)?);
        if goals.reached == Reached::Observation {
            reached = alike(&obs, &value_goal, each);
            next_reached = alike(&next, &actor_goal, each);
        }
        Ok(Self {
            sizes,
            frames,
            obs,
            next,
            actions: blocks,
            actor_goal,
            value_goal,
            reached,
            next_reached,
            noise,
        })
    }

    /// Part `windows` of `values` with `width` numbers per window.
    fn part(values: &[f32], windows: &Range<usize>, width: usize) -> Vec<f32> {
        values[windows.start * width..windows.end * width].to_vec()
    }

    /// The part `windows` for methods with a value.
    pub fn transitions(&self, windows: &Range<usize>, device: &Device) -> Transitions {
        let (b, t) = (windows.len(), self.frames);
        let GoalSizes { patches, width, action, .. } = self.sizes;
        let frames = |values| {
            from_vec(Self::part(values, windows, t * patches * width), [b, t, patches, width], device)
        };
        let goal =
            |values| from_vec(Self::part(values, windows, patches * width), [b, patches, width], device);
        Transitions {
            obs: frames(&self.obs),
            next: frames(&self.next),
            actions: from_vec(Self::part(&self.actions, windows, t * action), [b, t, action], device),
            value_goal: goal(&self.value_goal),
            reached: from_vec(Self::part(&self.reached, windows, t), [b, t], device),
            actor_goal: goal(&self.actor_goal),
        }
    }

    /// The part `windows` for inverse Q-learning, whose goals are the actor's, and the policy's noise at s and s'.
    pub fn demonstrations(
        &self,
        windows: &Range<usize>,
        device: &Device,
    ) -> (Demonstrations, [burn::tensor::Tensor<3>; 2]) {
        let (b, t, action) = (windows.len(), self.frames, self.sizes.action);
        let Transitions { obs, next, actions, actor_goal: goal, .. } = self.transitions(windows, device);
        let next_reached = from_vec(Self::part(&self.next_reached, windows, t), [b, t], device);
        let noise = self.noise.each_ref();
        let noise = noise.map(|v| from_vec(Self::part(v, windows, t * action), [b, t, action], device));
        (Demonstrations { obs, next, actions, goal, next_reached }, noise)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_goal_may_be_reached_wherever_it_looks_the_same() {
        let (seen, goals) = ([1.0, 2.0, 3.0, 4.0, 3.0, 4.0, 1.0, 2.0], [3.0, 4.0, 3.0, 4.0]);
        assert_eq!(super::alike(&seen, &goals, 2), [0.0, 1.0, 1.0, 0.0]);
    }
}
