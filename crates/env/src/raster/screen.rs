//! What the renderers of all environments share: a static scene, a canvas to draw on, and the frame made from it.

use worldbench_core::Frame;

use super::canvas::{Canvas, Columns, unpack};
use super::resize::{Filter, Resampler};
use super::{RESOLUTIONS, RasterError};

/// A canvas that is restored, drawn on and reduced only where it differs from the static scene.
///
/// Nothing here allocates after construction, save [`Screen::canvas_frame`].
#[derive(Clone, Debug)]
pub(super) struct Screen<const N: usize> {
    resolution: usize,
    base: Canvas<N>,
    canvas: Canvas<N>,
    resampler: Resampler<N>,
    base_frame: Vec<u8>,
    frame: Vec<u8>,
    /// Columns in which `frame` differs from `base_frame`, for each row.
    written: Vec<Columns>,
}

impl<const N: usize> Screen<N> {
    /// A screen over the static scene `base` with square frames of `resolution` pixels.
    pub fn new(mut base: Canvas<N>, resolution: usize, filter: Filter) -> Result<Self, RasterError> {
        if !RESOLUTIONS.contains(&resolution) {
            return Err(RasterError::Resolution(resolution));
        }
        base.mark_clean();
        let mut resampler = Resampler::new(resolution, filter);
        let mut base_frame = vec![0; resolution * resolution * 3];
        let mut written = vec![Columns::EMPTY; resolution];
        let everything = [Columns { start: 0, end: N as u16 }; N];
        resampler.run(&base, &everything, &mut base_frame, &mut written);
        written.fill(Columns::EMPTY);
        let (canvas, frame) = (base.clone(), base_frame.clone());
        Ok(Self { resolution, base, canvas, resampler, base_frame, frame, written })
    }

    /// Side of the frames in pixels.
    pub fn resolution(&self) -> usize {
        self.resolution
    }

    /// The canvas, brought back to the static scene, and that scene.
    pub fn begin(&mut self) -> (&mut Canvas<N>, &Canvas<N>) {
        self.canvas.restore(&self.base);
        (&mut self.canvas, &self.base)
    }

    /// The frame of what the canvas shows now, RGB bytes `[resolution, resolution, 3]`.
    pub fn develop(&mut self) -> &[u8] {
        let width = self.resolution * 3;
        let rows = self.frame.chunks_exact_mut(width).zip(self.base_frame.chunks_exact(width));
        for ((frame, base), written) in rows.zip(&self.written) {
            if !written.is_empty() {
                let bytes = usize::from(written.start) * 3..usize::from(written.end) * 3;
                frame[bytes.clone()].copy_from_slice(&base[bytes]);
            }
        }
        self.resampler.run(&self.canvas, self.canvas.dirty(), &mut self.frame, &mut self.written);
        &self.frame
    }

    /// What the canvas shows now, as a new frame of `N` x `N`.
    pub fn canvas_frame(&self) -> Frame {
        let data = self.canvas.pixels().iter().flat_map(|&pixel| unpack(pixel)).collect();
        Frame { width: N, height: N, data }
    }
}
