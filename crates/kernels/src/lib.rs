//! Fused CPU kernels with reproducible sums for planning and training.
//!
//! Every kernel is written once over sixteen virtual lanes and runs on AVX-512, AVX2 + FMA or portable code,
//! chosen at run time, with equal bits: sums run in one fixed order, each operation is rounded once.
//! Kernels work on the calling thread; [`par_rows`] and [`par_rows_mut`] split a batch among threads.
//!
//! Shapes are the caller's duty: a slice that is too short for its shape panics with a message that names it.

pub mod attention;
mod buffer;
pub mod conv;
pub mod depthwise;
pub mod gemm;
pub mod grad;
mod math;
pub mod ops;
mod par;
mod perf;
mod scratch;
mod simd;

pub use buffer::Buffer;
pub use par::{par_rows, par_rows_mut};
pub use perf::peak_flops;
pub use scratch::Scratch;
pub use simd::instruction_set;
