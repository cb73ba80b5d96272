//! World models: one method, one file.
