use worldbench_env::{Camera, DomainRef, Look, Scene, raster::RasterError};

use crate::{
    error::{DataError, Result},
    loader::FrameSpec,
    store::{EpisodeView, Store},
};

/// Turns rows into frames, with one renderer that is rebuilt only when the factors change.
pub struct FrameSource {
    spec: FrameSpec,
    eye: Option<Eye>,
}

/// A renderer and what it draws.
struct Eye {
    env: DomainRef,
    /// The factors of the latest frame.
    factors: Scene,
    /// Those of them that show.
    visible: Scene,
    camera: Box<dyn Camera>,
}

impl FrameSource {
    /// A source of frames of the given size.
    #[must_use]
    pub fn new(spec: FrameSpec) -> Self {
        Self { spec, eye: None }
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
        let info = view.info();
        self.render(episode, info.env, &info.factors, &view.render(row), out)
    }

    /// Draws the frame of one state in the scene `factors` into `out`, `[R, R, 3]` bytes.
    pub(crate) fn render(
        &mut self,
        episode: usize,
        env: DomainRef,
        factors: &Scene,
        state: &Look,
        out: &mut [u8],
    ) -> Result<()> {
        let fault = |e: RasterError| DataError::Env { episode, reason: e.to_string() };
        let eye = match self.eye.take() {
            Some(eye) if eye.env == env && eye.factors == *factors => eye,
            other => {
                let visible = env.visible(factors);
                let camera = match other.filter(|eye| eye.env == env && eye.visible == visible) {
                    Some(eye) => eye.camera,
                    None => env.camera(&visible, self.spec.resolution, self.spec.filter).map_err(fault)?,
                };
                Eye { env, factors: factors.clone(), visible, camera }
            }
        };
        let eye = self.eye.insert(eye);
        eye.camera.shoot(state, out).map_err(fault)
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
