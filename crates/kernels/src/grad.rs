//! Kernels of training: products of any layout, backward passes, AdamW.
//!
//! Sums over rows run in ascending order. [`matmul`] splits rows of C among rayon's threads, so its bits do not
//! depend on the number of threads; the other kernels work on the calling thread.

mod elementwise;
mod keypoints;
mod matmul;
mod norm;
mod optim;

pub use elementwise::{
    gelu_backward, gelu_with_derivative, relu_backward, silu_backward, softmax_backward, tanh_backward,
};
pub use keypoints::{Keypoints, keypoints, keypoints_backward};
pub use matmul::{Operand, add_rows, matmul};
pub use norm::{batch_norm, batch_norm_backward, layer_norm_backward};
pub use optim::{AdamW, squared_norm};
