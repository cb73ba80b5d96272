//! What the tests of this crate share.

use std::path::PathBuf;

/// The recorded reference of environment `env`; `WORLDBENCH_FIXTURES` names another root than the repository's.
pub fn fixtures(env: &str) -> PathBuf {
    let root = std::env::var_os("WORLDBENCH_FIXTURES").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures")),
        PathBuf::from,
    );
    root.join("env").join(env)
}

/// A JSON file below [`fixtures`].
pub fn json(env: &str, name: &str) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(fixtures(env).join(name)).unwrap()).unwrap()
}
