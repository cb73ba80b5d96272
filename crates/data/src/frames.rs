use worldbench_env::{
    Factors, RenderState,
    raster::{RasterError, Render, Renderer},
};

use crate::{
    error::{DataError, Result},
    loader::FrameSpec,
    store::{EpisodeView, Store},
};

/// Turns rows into frames, with one renderer that is rebuilt only when the factors change.
pub struct FrameSource {
    spec: FrameSpec,
    renderer: Option<(Factors, Renderer)>,
}

impl FrameSource {
    /// A source of frames of the given size.
    #[must_use]
    pub fn new(spec: FrameSpec) -> Self {
        Self { spec, renderer: None }
    }

    /// Writes the frame of `row` into `out`, `[R, R, 3]` bytes: the stored one where the episode has pixels,
    /// else the rendered one. `episode` only names the episode in errors.
    ///
    /// # Errors
    /// When stored frames have another size than asked for, or the factors cannot be drawn.
    pub fn write(
        &mut self,
        episode: usize,
        view: &EpisodeView<'_>,
        row: usize,
        out: &mut [u8],
    ) -> Result<()> {
        let size = self.spec.resolution;
        if let Some(frame) = view.frame(row) {
            if view.pixel_shape() != Some((size, size)) {
                let shape = view.pixel_shape().unwrap_or_default();
                let reason =
                    format!("its stored frames are {} x {}; set the resolution to that", shape.0, shape.1);
                return Err(DataError::Env { episode, reason: format!("{reason}, not {size}") });
            }
            out.copy_from_slice(frame);
            return Ok(());
        }
        self.render(episode, &view.info().factors, &view.render(row), out)
    }

    /// Draws the frame of one state in the scene `factors` into `out`, `[R, R, 3]` bytes.
    pub(crate) fn render(
        &mut self,
        episode: usize,
        factors: &Factors,
        state: &RenderState,
        out: &mut [u8],
    ) -> Result<()> {
        let fault = |e: RasterError| DataError::Env { episode, reason: e.to_string() };
        let factors = visible(factors);
        let renderer = match self.renderer.take() {
            Some((drawn, renderer)) if drawn == factors => renderer,
            _ => Renderer::new(&factors, self.spec.resolution, self.spec.filter).map_err(fault)?,
        };
        let (_, renderer) = self.renderer.insert((factors, renderer));
        renderer.render(state, out).map_err(fault)
    }
}

/// The factors with those reset that only set where an episode starts: they do not change its frames.
fn visible(factors: &Factors) -> Factors {
    let start = Factors::default();
    Factors {
        agent_angle: start.agent_angle,
        agent_start: start.agent_start,
        agent_velocity: start.agent_velocity,
        block_angle: start.block_angle,
        block_start: start.block_start,
        ..*factors
    }
}

impl Store {
    /// The frame of one row, `[R, R, 3]` bytes. For many frames keep a [`FrameSource`].
    ///
    /// # Errors
    /// When the episode does not exist, or as [`FrameSource::write`]; panics when the row does not exist.
    pub fn frame(&self, episode: usize, row: usize, spec: FrameSpec) -> Result<Vec<u8>> {
        let mut out = vec![0; spec.resolution.pow(2) * 3];
        FrameSource::new(spec).write(episode, &self.view(episode)?, row, &mut out)?;
        Ok(out)
    }
}
