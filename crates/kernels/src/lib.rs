//! Fused CPU kernels with reproducible sums for planning and training.
