//! Types, keyed random streams and layered configuration shared by every worldbench crate.
//!
//! This crate does no machine learning and no physics; everything else in the workspace may depend on it.

pub mod config;
pub mod numpy;
pub mod rng;

mod frame;

pub use frame::Frame;
pub use rng::Stream;
