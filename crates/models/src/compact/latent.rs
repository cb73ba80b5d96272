//! A compact model's latents, for diagnosis.

use worldbench_plan::{Context, CostError, LatentModel, Part, Shape};

use super::{CompactModel, Scratch};

impl LatentModel for CompactModel {
    fn embedding(&self) -> usize {
        self.config().encoder.latent
    }

    fn parts(&self) -> Vec<Part> {
        self.cost_parts()
    }

    fn latents(&self, frames: &[Vec<u8>], proprio: &[[f64; 4]]) -> Result<Vec<f32>, CostError> {
        let mut latents = Vec::with_capacity(frames.len() * self.config().state_dim());
        for (frame, proprio) in frames.iter().zip(proprio) {
            self.check_frame(frame)?;
            latents.extend(self.state(frame, proprio));
        }
        Ok(latents) // [N, S]
    }

    fn rollout(&self, context: &Context, shape: Shape, candidates: &[f32]) -> Result<Vec<f32>, CostError> {
        let (start, previous) = self.begin(context)?;
        let width = start.len();
        let mut paths = vec![0.0; candidates.len() / shape.dim.max(1) * width];
        let start = (&start[..], previous.as_deref());
        self.unroll(start, shape, candidates, &mut Scratch::default(), |h, states| {
            let steps = paths.chunks_exact_mut(shape.horizon * width);
            for (path, state) in steps.zip(states.chunks_exact(width)) {
                path[h * width..(h + 1) * width].copy_from_slice(state);
            }
        })?;
        Ok(paths) // [S, H, W]
    }

    fn encode_block(&self, block: &mut [f32]) {
        self.whiten(block);
    }
}
