//! Exact software renderers: observations are part of the simulator, so every pixel is reproducible.
//!
//! Push-T is drawn on a 512 x 512 canvas without anti-aliasing (contact marks excepted) and then reduced. Only what
//! differs from the static scene (background, goal overlay, walls) is drawn, restored and reduced for each frame; the
//! result is the same as a full redraw, at a small part of its cost.

mod canvas;
mod line;
mod png;
mod push_t;
mod resize;
mod throughput;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub use canvas::CANVAS_SIZE;
pub use png::write_png;
pub use push_t::Renderer;
pub use resize::Filter;
pub use throughput::push_t_frames_per_second;

/// Smallest and largest resolution of a [`Renderer`].
pub const RESOLUTIONS: std::ops::RangeInclusive<usize> = 16..=CANVAS_SIZE;

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
