//! Trainer, checkpoints and logs.
