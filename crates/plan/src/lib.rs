//! Sampling planners over plain arrays: CEM, MPPI and model-predictive control.
