use worldbench_env::{raster::Renderer, variation::Factors};

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
        self.renderer(&view.info().factors).render(&view.render(row), out);
        Ok(())
    }

    fn renderer(&mut self, factors: &Factors) -> &mut Renderer {
        let spec = self.spec;
        let make = || (factors.clone(), Renderer::new(factors, spec.resolution, spec.filter));
        let entry = self.renderer.get_or_insert_with(make);
        if entry.0 != *factors {
            *entry = make();
        }
        &mut entry.1
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
