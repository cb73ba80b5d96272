//! A batch of clips as transitions with goals.

use std::ops::Range;

use burn::tensor::{Device, Tensor};
use worldbench_core::Stream;
use worldbench_data::{Batch, GoalSampler, Moment, Split, Store};
use worldbench_models::compact::ACTION;
use worldbench_models::goal::{GoalSizes, Transitions};
use worldbench_models::iq_learn::Demonstrations;
use worldbench_nn::params::from_vec;
use worldbench_plan::ActionNormaliser;

use super::GoalTraining;
use super::config::Reached;
use super::observations::Observed;
use crate::TrainError;

/// Goals of one side of the split.
pub(super) struct Goals {
    actor: GoalSampler,
    value: GoalSampler,
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

/// What a batch is to look at.
pub(super) struct Moments {
    /// Every window's context and the row behind it, `[B, T + 1]`.
    pub windows: Vec<Moment>,
    /// Goals of the actor, `[B]`.
    pub actor: Vec<Moment>,
    /// Goals of the value, `[B]`.
    pub value: Vec<Moment>,
}

impl Moments {
    /// Draws goals for the windows of `batch` with a context of `frames`; they are keyed by the number of the sample.
    pub fn draw(batch: &Batch, frames: usize, goals: &Goals) -> Self {
        let count = batch.windows.len();
        let (mut windows, mut actor, mut value) = (Vec::with_capacity(count * (frames + 1)), vec![], vec![]);
        for (i, window) in batch.windows.iter().enumerate() {
            let moment = |t: usize| Moment { episode: window.episode, row: window.start + t as u32 };
            let sample = batch.index * count as u64 + i as u64;
            let current = moment(frames - 1);
            windows.extend((0..=frames).map(moment));
            actor.push(goals.actor.draw(current, sample));
            value.push(goals.value.draw(current, sample));
        }
        Self { windows, actor, value }
    }

    /// Whether row `t + behind` of every window is its goal, `[B, T]`.
    fn reached(&self, goals: &[Moment], behind: usize) -> Vec<f32> {
        let rows = self.windows.len() / goals.len().max(1);
        let of_window = |(window, goal): (&[Moment], &Moment)| {
            let goal = *goal;
            let here = window[behind..rows - 1 + behind].iter();
            here.map(move |moment| f32::from(u8::from(*moment == goal))).collect::<Vec<_>>()
        };
        self.windows.chunks_exact(rows).zip(goals).flat_map(of_window).collect()
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
    /// Builds the transitions of `batch` out of what is `observed` at `moments`; `noise` is the policy's.
    pub fn new(
        batch: &Batch,
        sizes: GoalSizes,
        (moments, observed): (&Moments, Observed),
        (actions, reached): (&ActionNormaliser, Reached),
        mut noise: Stream,
    ) -> Self {
        let (frames, chunk) = (sizes.frames, sizes.action / ACTION);
        let (windows, rows) = (batch.windows.len(), rows(frames, chunk));
        let each = sizes.patches * sizes.width;
        let Observed { windows: all, actor: actor_goal, value: value_goal } = observed;
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
        let (reached, next_reached) = match reached {
            Reached::Moment => (moments.reached(&moments.value, 0), moments.reached(&moments.actor, 1)),
            Reached::Observation => (alike(&obs, &value_goal, each), alike(&next, &actor_goal, each)),
        };
        Self {
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
        }
    }

    /// Part `windows` of `values` with `width` numbers per window.
    fn part(values: &[f32], windows: &Range<usize>, width: usize) -> Vec<f32> {
        values[windows.start * width..windows.end * width].to_vec()
    }

    /// What networks look at: observations, successors, goals of the value, goals of the actor, each with its numbers per
    /// window.
    pub fn looks(&self) -> [(&[f32], usize); 4] {
        let goal = self.sizes.patches * self.sizes.width;
        let frames = self.frames * goal;
        [(&self.obs, frames), (&self.next, frames), (&self.value_goal, goal), (&self.actor_goal, goal)]
    }

    /// Numbers of everything that networks look at.
    pub fn len(&self) -> usize {
        self.looks().iter().map(|(values, _)| values.len()).sum()
    }

    /// Where the part `windows` of each look stands when the looks stand one after the other.
    pub fn places(&self, windows: &Range<usize>) -> Vec<Range<usize>> {
        let mut begin = 0;
        let place = |(values, width): (&[f32], usize)| {
            let place = begin + windows.start * width..begin + windows.end * width;
            begin += values.len();
            place
        };
        self.looks().into_iter().map(place).collect()
    }

    /// The gradient of the windows' observations `[B, T + 1, P, D]`, of the actor's and of the value's goals
    /// `[B, P, D]`, given that of the looks, one after the other.
    pub fn observed_gradient(&self, looks: &[f32]) -> Observed {
        let each = self.sizes.patches * self.sizes.width;
        let (obs, rest) = looks.split_at(self.obs.len());
        let (next, goals) = rest.split_at(self.next.len());
        let (value, actor) = goals.split_at(self.value_goal.len());
        let row = self.frames * each;
        let mut windows = Vec::with_capacity(obs.len() + actor.len());
        for (obs, next) in obs.chunks_exact(row).zip(next.chunks_exact(row)) {
            let start = windows.len();
            windows.extend_from_slice(obs);
            windows.resize(start + row + each, 0.0);
            windows[start + each..].iter_mut().zip(next).for_each(|(sum, g)| *sum += g);
        }
        Observed { windows, actor: actor.to_vec(), value: value.to_vec() }
    }

    /// The part `windows` for methods with a value, and where they are `leaves`, flat tensors with a gradient behind the
    /// looks.
    pub fn transitions(
        &self,
        windows: &Range<usize>,
        device: &Device,
        leaves: bool,
    ) -> (Transitions, Vec<Tensor<1>>) {
        let (b, t) = (windows.len(), self.frames);
        let GoalSizes { patches, width, action, .. } = self.sizes;
        let flat = |(values, width): (&[f32], usize)| {
            let look = from_vec(Self::part(values, windows, width), [windows.len() * width], device);
            if leaves { look.require_grad() } else { look }
        };
        let looks = self.looks().map(flat);
        let [obs, next, value_goal, actor_goal] = looks.each_ref().map(Tensor::clone);
        let transitions = Transitions {
            obs: obs.reshape([b, t, patches, width]),
            next: next.reshape([b, t, patches, width]),
            actions: from_vec(Self::part(&self.actions, windows, t * action), [b, t, action], device),
            value_goal: value_goal.reshape([b, patches, width]),
            reached: from_vec(Self::part(&self.reached, windows, t), [b, t], device),
            actor_goal: actor_goal.reshape([b, patches, width]),
        };
        (transitions, if leaves { looks.into() } else { Vec::new() })
    }

    /// `batch` for inverse Q-learning, whose goals are the actor's, and the policy's noise at s and s'.
    pub fn demonstrations(
        &self,
        batch: Transitions,
        windows: &Range<usize>,
        device: &Device,
    ) -> (Demonstrations, [Tensor<3>; 2]) {
        let (b, t, action) = (windows.len(), self.frames, self.sizes.action);
        let Transitions { obs, next, actions, actor_goal: goal, .. } = batch;
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
