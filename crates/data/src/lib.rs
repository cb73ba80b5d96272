//! State-first episode store, windows, normalisers, splits, importers and the loader.
//!
//! An [`Episode`] of k env steps has k + 1 [`Row`]s. [`StoreWriter`] appends episodes to a file, [`Store`] maps
//! it, [`WindowSpec`] cuts clips out of it, [`Split`] keeps replays of one source on one side, [`GoalSampler`] draws
//! goals, and [`Loader`] renders batches of clips on background threads.

pub mod features;
pub mod formats;
pub mod perf;
pub mod store;

mod episode;
mod error;
mod frames;
mod goals;
mod loader;
mod mmap;
mod normaliser;
mod record;
mod split;
mod windows;

pub use episode::{ACTION_DIM, Episode, EpisodeInfo, Kind, Pixels, Row};
pub use error::{DataError, Result};
pub use frames::FrameSource;
pub use goals::{GoalSampler, GoalSampling, Moment};
pub use loader::{Batch, FrameSpec, Loader, LoaderConfig};
pub use normaliser::{Normaliser, NormaliserKind};
pub use record::{Recorder, record};
pub use split::Split;
pub use store::{EpisodeView, RepairReport, Store, StoreStats, StoreWriter, repair};
pub use windows::{Window, WindowSpec};

#[cfg(test)]
mod testing;
