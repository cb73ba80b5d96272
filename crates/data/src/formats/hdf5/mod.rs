//! Exchange with Python through HDF5, in the layout of stable-worldmodel 0.1.1.
//!
//! One data set per column in the root group, first axis = rows of all episodes one after the other, k + 1 rows
//! for an episode of k env steps. Row t's action leads to row t + 1; the last row's is NaN. `ep_len` (i32) and
//! `ep_offset` (i64) have one entry an episode.
//!
//! | column | type | per row | |
//! |---|---|---|---|
//! | `pixels` | u8 | H, W, 3 | RGB frames, rendered |
//! | `state`, `proprio` | f64 | 7, 4 (Two-Room 2, 2) | as the environment observes them |
//! | `action` | f32 | 2 | as the environment takes it |
//! | `pos_agent`, `vel_agent`, `block_pose`, `goal_pose` | f64 | 2, 2, 3, 3 | as in the environment's info |
//! | `step_idx`, `ep_idx` | i64, i32 | - | row in its episode, episode |
//! | `variation.<factor>` | u8, f32, i64, f64 | 3, 1, -, 1 or 2 | colour, scale, index, real |
//! | `render.pose`, `render.marks`, `render.mark_count` | f64, i16, u8 | 6 (4), 32 x 4, - | what a frame is drawn from |
//! | `episode.kind`, `episode.source`, `episode.seed` | u8, u64, u64 | - | provenance, the same in every row |
//!
//! The last two rows of the table are ours: with them an exported file comes back bit for bit. They stand in
//! every row because readers of this layout take each data set but `ep_*` for a column of rows. Files of others
//! need `state`, `action` and `ep_len` only; their frames are drawn from the states ([`import`]).
//!
//! Deviations: chunks are near 64 KiB and deflated, where the reference writes one row a chunk, uncompressed.
//! Rewards and terminations are left out, as they belong to a goal and a store has none.

mod columns;
mod export;
mod import;

pub use export::{ExportOptions, ExportReport, export};
pub use import::{Drawn, ImportOptions, ImportReport, Importer};

/// First bytes of every HDF5 file without a user block.
pub const SIGNATURE: [u8; 8] = *b"\x89HDF\r\n\x1a\n";

#[cfg(test)]
mod tests;
