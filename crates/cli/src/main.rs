//! The `worldbench` binary.
fn main() {}
