//! Exact software renderers: observations are part of the simulator, so every pixel is reproducible.
//!
//! Push-T is drawn on a 512 x 512 canvas without anti-aliasing (contact marks excepted) and then reduced; Two-Room on
//! one of 224 x 224, with soft dots. Only what differs from the static scene (background, goal overlay, walls) is drawn,
//! restored and reduced for each frame; the result is the same as a full redraw, at a small part of its cost.

mod canvas;
mod dot;
mod line;
mod png;
mod push_t;
mod resize;
mod screen;
mod throughput;
mod two_room;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub use png::write_png;
pub use push_t::{CANVAS_SIZE, Renderer};
pub use resize::Filter;
pub use throughput::frames_per_second;
pub use two_room::TwoRoomRenderer;

use worldbench_core::Frame;

/// Smallest and largest resolution of a renderer.
pub const RESOLUTIONS: std::ops::RangeInclusive<usize> = 16..=512;

/// Draws the observations of one scene of an environment.
pub trait Render: Clone + Send + Sized {
    /// What the scene is made of.
    type Factors;
    /// What else a frame depends on.
    type State;

    /// A renderer of the scene `factors` with square frames of `resolution` pixels.
    ///
    /// # Errors
    /// [`RasterError::Resolution`] unless the resolution lies in 16 to 512.
    fn new(factors: &Self::Factors, resolution: usize, filter: Filter) -> Result<Self, RasterError>;

    /// Side of the frames in pixels.
    fn resolution(&self) -> usize;

    /// Draws `state` and lends the frame, RGB bytes `[resolution, resolution, 3]`.
    fn view(&mut self, state: &Self::State) -> &[u8];

    /// Draws `state` into `out`, RGB bytes `[resolution, resolution, 3]`.
    ///
    /// # Errors
    /// [`RasterError::Buffer`] if `out` has another length.
    fn render(&mut self, state: &Self::State, out: &mut [u8]) -> Result<(), RasterError> {
        let resolution = self.resolution();
        if out.len() != resolution * resolution * 3 {
            return Err(RasterError::Buffer { len: out.len(), resolution });
        }
        out.copy_from_slice(self.view(state));
        Ok(())
    }

    /// Draws `state` as a new frame of `resolution` x `resolution`.
    fn frame(&mut self, state: &Self::State) -> Frame {
        let (side, data) = (self.resolution(), self.view(state).to_vec());
        Frame { width: side, height: side, data }
    }
}

/// Why a frame could not be drawn or stored.
#[derive(Debug, thiserror::Error)]
pub enum RasterError {
    /// The resolution is outside [`RESOLUTIONS`].
    #[error("render resolution {0} is not supported; choose a whole number from 16 to 512")]
    Resolution(usize),
    /// The output buffer does not hold exactly one frame.
    #[error(
        "the frame buffer holds {len} bytes but {resolution} x {resolution} x 3 needs {}; resize the buffer",
        resolution * resolution * 3
    )]
    Buffer {
        /// Bytes given.
        len: usize,
        /// Resolution of the renderer.
        resolution: usize,
    },
    /// The output buffer does not hold exactly one frame for each environment.
    #[error(
        "the frame buffer holds {len} bytes but {count} frames of {resolution} x {resolution} x 3 need {}; resize \
         the buffer",
        count * resolution * resolution * 3
    )]
    Frames {
        /// Bytes given.
        len: usize,
        /// Environments.
        count: usize,
        /// Resolution asked for.
        resolution: usize,
    },
    /// The data of a frame do not fit its width and height.
    #[error(
        "the frame holds {len} bytes but its size {width} x {height} x 3 needs another length; rebuild it"
    )]
    FrameLength {
        /// Bytes in the frame.
        len: usize,
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
    },
    /// An image file could not be written.
    #[error("cannot write {}: {source}; check that the folder exists and is writable", path.display())]
    Png {
        /// The file.
        path: PathBuf,
        /// What the encoder or the file system says.
        source: image::ImageError,
    },
}
