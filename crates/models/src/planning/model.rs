//! The planner's model as planning policies use it.

use worldbench_kernels::gemm::Precision;
use worldbench_plan::{
    ActionNormaliser, Context, Cost, CostError, LatentModel, Objective, Part, Shape, WorldModel,
};

use super::{Error, JepaPlanner, Start, check_len};
use crate::compact::Whitener;

/// Map between raw action blocks and those the model was trained on.
pub trait BlockTransform: Send + Sync {
    /// Normalises one raw block in place, `[A]`.
    fn normalise(&self, block: &mut [f32]);

    /// The raw block `[A]` of a normalised one.
    fn denormalise(&self, block: &[f32], raw: &mut [f32]);
}

/// Z-score per dimension; the statistics of one action serve all actions of a block.
impl BlockTransform for ActionNormaliser {
    fn normalise(&self, block: &mut [f32]) {
        let raw: Vec<f64> = block.iter().map(|&a| f64::from(a)).collect();
        block.copy_from_slice(&ActionNormaliser::normalise(self, &raw));
    }

    fn denormalise(&self, block: &[f32], raw: &mut [f32]) {
        let values = ActionNormaliser::denormalise(self, block);
        raw.iter_mut().zip(values).for_each(|(r, v)| *r = v as f32);
    }
}

impl BlockTransform for Whitener {
    fn normalise(&self, block: &mut [f32]) {
        self.forward(block);
    }

    fn denormalise(&self, block: &[f32], raw: &mut [f32]) {
        self.inverse(block, raw);
    }
}

/// A [`JepaPlanner`] with the statistics of its training data: the learned model of a planning policy.
pub struct JepaModel {
    planner: JepaPlanner,
    actions: Box<dyn BlockTransform>,
    action_block: usize,
}

impl JepaModel {
    /// `action_block` environment steps make one block of the model.
    ///
    /// # Errors
    /// The model's blocks are no whole number of actions.
    pub fn new(
        planner: JepaPlanner,
        actions: Box<dyn BlockTransform>,
        action_block: usize,
    ) -> Result<Self, Error> {
        let size = planner.config().action;
        if action_block == 0 || !size.is_multiple_of(action_block) {
            return Err(Error::Config(format!("{size} numbers per block are no {action_block} actions")));
        }
        Ok(Self { planner, actions, action_block })
    }

    /// See [`history`].
    fn begin<'c>(&self, context: &Context<'c>) -> Result<(Vec<&'c [u8]>, Vec<f32>), CostError> {
        history(context, self.max_history(), self.planner.config().action, self.actions.as_ref())
    }

    /// Latents `[N, D]` of frames `[R, R, 3]`.
    fn encode(&self, frames: &[&[u8]]) -> Result<Vec<f32>, CostError> {
        let side = self.resolution();
        let mut all = Vec::with_capacity(frames.len() * side * side * 3);
        for frame in frames {
            check_len("frame", frame.len(), side * side * 3, "RGB of the model's side")?;
            all.extend_from_slice(frame);
        }
        Ok(self.planner.encode(&all)?)
    }

    /// Computes rollouts in `precision`; frames are always encoded in f32.
    #[must_use]
    pub fn in_precision(self, precision: Precision) -> Self {
        Self { planner: self.planner.in_precision(precision), ..self }
    }

    /// The model itself.
    #[must_use]
    pub fn planner(&self) -> &JepaPlanner {
        &self.planner
    }
}

/// The newest frames of the context, at most `most`, and the normalised blocks of `block` numbers between them.
pub(super) fn history<'c>(
    context: &Context<'c>,
    most: usize,
    block: usize,
    actions: &dyn BlockTransform,
) -> Result<(Vec<&'c [u8]>, Vec<f32>), CostError> {
    let frames = &context.frames[context.frames.len().saturating_sub(most)..];
    if frames.is_empty() {
        return Err("a plan needs at least one context frame".into());
    }
    let between = (frames.len() - 1) * block;
    let first = context.actions.len().checked_sub(between).ok_or_else(|| {
        let got = context.actions.len();
        format!("{} context frames need {between} action values between them, got {got}", frames.len())
    })?;
    let mut history = context.actions[first..].to_vec();
    history.chunks_exact_mut(block).for_each(|b| actions.normalise(b));
    Ok((frames.iter().map(Vec::as_slice).collect(), history))
}

/// A goal cost from one start.
pub(super) struct Problem<'a> {
    pub planner: &'a JepaPlanner,
    pub context: Vec<f32>,
    pub history: Vec<f32>,
    pub goal: Vec<f32>,
    pub objective: Objective,
}

impl Cost for Problem<'_> {
    fn evaluate(&mut self, shape: Shape, candidates: &[f32], costs: &mut [f32]) -> Result<(), CostError> {
        let start = Start { context: &self.context, history: &self.history };
        let known = self.context.len() / self.planner.width();
        let parts = [Part::whole(self.goal.len())];
        let (objective, goal) = (self.objective, &self.goal);
        self.planner.for_each_path(start, shape, candidates, costs, 1, |_, path, cost| {
            let counted = path.skip(known).enumerate().filter(|&(t, _)| objective.counts(t, shape.horizon));
            cost[0] = counted.map(|(_, z)| objective.step_cost(z, goal, &parts)).fold(0.0, |sum, c| sum + c);
        })?;
        objective.add_control(shape, candidates, costs);
        Ok(())
    }
}

impl WorldModel for JepaModel {
    fn resolution(&self) -> usize {
        self.planner.config().encoder.image
    }

    fn area_filter(&self) -> bool {
        false
    }

    fn action_block(&self) -> usize {
        self.action_block
    }

    fn max_history(&self) -> usize {
        self.planner.config().predictor.frames
    }

    fn problem<'a>(
        &'a self,
        context: &Context,
        objective: Objective,
    ) -> Result<Box<dyn Cost + 'a>, CostError> {
        let (mut frames, history) = self.begin(context)?;
        frames.push(context.goal_frame);
        let mut latents = self.encode(&frames)?;
        let goal = latents.split_off((frames.len() - 1) * self.planner.width());
        Ok(Box::new(Problem { planner: &self.planner, context: latents, history, goal, objective }))
    }

    fn decode_block(&self, block: &[f32], actions: &mut [f32]) {
        self.actions.denormalise(block, actions);
    }
}

impl LatentModel for JepaModel {
    fn embedding(&self) -> usize {
        self.planner.width()
    }

    fn parts(&self) -> Vec<Part> {
        vec![Part::whole(self.planner.width())]
    }

    fn latents(&self, frames: &[Vec<u8>], _: &[[f64; 4]]) -> Result<Vec<f32>, CostError> {
        self.encode(&frames.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    fn rollout(&self, context: &Context, shape: Shape, candidates: &[f32]) -> Result<Vec<f32>, CostError> {
        let (frames, history) = self.begin(context)?;
        let latents = self.encode(&frames)?;
        let start = Start { context: &latents, history: &history };
        let (known, width) = (latents.len(), self.planner.width());
        let paths = self.planner.rollout(start, shape, candidates)?; // [S, n + H, D]
        let predicted = paths.chunks_exact(known + shape.horizon * width).flat_map(|path| &path[known..]);
        Ok(predicted.copied().collect())
    }

    fn encode_block(&self, block: &mut [f32]) {
        self.actions.normalise(block);
    }
}
