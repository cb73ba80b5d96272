//! NumPy-compatible generators.
