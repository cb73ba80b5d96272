//! DINO-WM with its frozen encoder and the statistics of its training data, as planning policies use it.

use std::sync::Arc;

use worldbench_kernels::gemm::Precision;
use worldbench_plan::{Context, Cost, CostError, LatentModel, Objective, Part, Reduction, Shape, WorldModel};

use super::super::model::history;
use super::super::{BlockTransform, Error};
use super::{DinoWmPlanner, DinoWmStart};
use crate::encoders::FrozenEncoder;

/// Turns features `[P, F]` into a frame `[R, R, 3]`.
pub type Picture = Box<dyn Fn(&[f32]) -> Vec<u8> + Send + Sync>;

/// Mean and standard deviation of agent position and velocity (px, px/s).
pub type ProprioStatistics = [[f64; 4]; 2];

/// The learned model of a planning policy.
pub struct DinoWmModel {
    planner: DinoWmPlanner,
    encoder: Arc<dyn FrozenEncoder>,
    actions: Box<dyn BlockTransform>,
    proprio: ProprioStatistics,
    action_block: usize,
    picture: Option<Picture>,
}

impl DinoWmModel {
    /// `action_block` environment steps make one block of the model.
    ///
    /// # Errors
    /// The model's blocks are no whole number of actions, or the encoder's tokens are not the model's.
    pub fn new(
        planner: DinoWmPlanner,
        encoder: Arc<dyn FrozenEncoder>,
        actions: Box<dyn BlockTransform>,
        proprio: ProprioStatistics,
        action_block: usize,
    ) -> Result<Self, Error> {
        let config = planner.config();
        if action_block == 0 || !config.action.is_multiple_of(action_block) {
            let size = config.action;
            return Err(Error::Config(format!("{size} numbers per block are no {action_block} actions")));
        }
        let (tokens, width) = (encoder.tokens(), encoder.width());
        if (tokens, width) != (config.predictor.patches, config.features) {
            let name = encoder.name();
            return Err(Error::Config(format!(
                "encoder {name} gives {tokens} tokens of width {width}, the model was made for {} of width {}",
                config.predictor.patches, config.features
            )));
        }
        Ok(Self { planner, encoder, actions, proprio, action_block, picture: None })
    }

    /// With a decoder, which makes latents visible.
    #[must_use]
    pub fn with_picture(self, picture: Picture) -> Self {
        Self { picture: Some(picture), ..self }
    }

    /// Computes rollouts in `precision`; the encoder stays as it is.
    #[must_use]
    pub fn in_precision(self, precision: Precision) -> Self {
        Self { planner: self.planner.in_precision(precision), ..self }
    }

    /// With another limit on the memory of rollouts, in bytes; results do not depend on it.
    #[must_use]
    pub fn with_memory(self, bytes: usize, steps: usize) -> Self {
        let threads = rayon::current_num_threads();
        Self { planner: self.planner.with_memory(bytes, threads, steps), ..self }
    }

    /// The model itself.
    #[must_use]
    pub fn planner(&self) -> &DinoWmPlanner {
        &self.planner
    }

    /// Features `[N, P, F]` of frames `[R, R, 3]`.
    fn encode(&self, frames: &[&[u8]]) -> Result<Vec<f32>, CostError> {
        let mut out = vec![0.0; frames.len() * self.encoder.tokens() * self.encoder.width()];
        self.encoder.encode(frames, &mut out)?;
        Ok(out)
    }

    /// Normalised proprioception `[N, 4]`.
    fn normalise(&self, raw: &[[f64; 4]]) -> Vec<f32> {
        let [mean, std] = &self.proprio;
        raw.iter()
            .flat_map(|p| std::array::from_fn::<f32, 4, _>(|i| ((p[i] - mean[i]) / std[i]) as f32))
            .collect()
    }

    /// Start and goal of a problem; the goal as a latent `[L]`.
    fn start(&self, context: &Context, goal: bool) -> Result<(DinoWmStart, Vec<f32>), CostError> {
        let (mut frames, history) =
            history(context, self.max_history(), self.planner.config().action, self.actions.as_ref())?;
        let known = frames.len();
        let mut proprio = context.proprio[context.proprio.len().saturating_sub(known)..].to_vec();
        if goal {
            frames.push(context.goal_frame);
            proprio.push(context.goal_proprio);
        }
        let mut features = self.encode(&frames)?;
        let mut proprio = self.normalise(&proprio);
        let goal_features = features.split_off(known * self.encoder.tokens() * self.encoder.width());
        let goal_proprio = proprio.split_off(4 * known);
        let start = self.planner.start(&features, &proprio, &history)?;
        let goal = if goal { self.planner.latents(&goal_features, &goal_proprio)? } else { Vec::new() };
        Ok((start, goal))
    }
}

/// A goal cost from one start.
pub(in crate::planning) struct Problem<'a> {
    pub planner: &'a DinoWmPlanner,
    pub start: DinoWmStart,
    pub goal: Vec<f32>,
    pub objective: Objective,
}

impl Cost for Problem<'_> {
    fn evaluate(&mut self, shape: Shape, candidates: &[f32], costs: &mut [f32]) -> Result<(), CostError> {
        Ok(self.planner.costs(&self.start, &self.goal, self.objective, shape, candidates, costs)?)
    }
}

impl WorldModel for DinoWmModel {
    fn resolution(&self) -> usize {
        self.encoder.image_size()
    }

    fn area_filter(&self) -> bool {
        self.encoder.area_filter()
    }

    fn action_block(&self) -> usize {
        self.action_block
    }

    fn max_history(&self) -> usize {
        self.planner.config().predictor.frames
    }

    /// The published cost is a mean over features plus a mean over proprioception: `objective.reduction` is not looked
    /// at.
    fn problem<'a>(
        &'a self,
        context: &Context,
        objective: Objective,
    ) -> Result<Box<dyn Cost + 'a>, CostError> {
        let (start, goal) = self.start(context, true)?;
        let objective = Objective { reduction: Reduction::Sum, ..objective };
        Ok(Box::new(Problem { planner: &self.planner, start, goal, objective }))
    }

    fn decode_block(&self, block: &[f32], actions: &mut [f32]) {
        self.actions.denormalise(block, actions);
    }
}

impl LatentModel for DinoWmModel {
    fn embedding(&self) -> usize {
        self.encoder.tokens() * self.encoder.width()
    }

    fn parts(&self) -> Vec<Part> {
        self.planner.parts()
    }

    fn latents(&self, frames: &[Vec<u8>], proprio: &[[f64; 4]]) -> Result<Vec<f32>, CostError> {
        let features = self.encode(&frames.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
        Ok(self.planner.latents(&features, &self.normalise(proprio))?)
    }

    fn rollout(&self, context: &Context, shape: Shape, candidates: &[f32]) -> Result<Vec<f32>, CostError> {
        let (start, _) = self.start(context, false)?;
        Ok(self.planner.predicted_latents(&start, shape, candidates)?)
    }

    fn encode_block(&self, block: &mut [f32]) {
        self.actions.normalise(block);
    }

    fn picture(&self, latent: &[f32]) -> Option<Vec<u8>> {
        let features = latent.get(..self.embedding())?;
        self.picture.as_ref().map(|picture| picture(features))
    }
}
