//! Solves a frozen Push-T pair on the true simulator and writes what happens as a GIF.
//! `cargo run --release --example 01_push_t_gif -- push_t.gif`

use std::path::PathBuf;

use worldbench_eval::protocol::{DEFAULT, Split};
use worldbench_eval::{Protocol, gif::write_gif, policies::Oracle, runner::run_episode};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path: PathBuf = std::env::args_os().nth(1).unwrap_or_else(|| "push_t.gif".into()).into();
    // A protocol holds the rules, its manifest the pairs of start and goal. Use `dev` for trying things out.
    let protocol = Protocol::find(DEFAULT, "push_t")?;
    let manifest = protocol.manifest(Split::Dev)?;
    let (index, seed) = (3, 0);
    let outcome = run_episode(&protocol, &manifest.pairs[index], index, &Oracle::default(), seed)?;
    write_gif(&path, protocol.env()?, &outcome)?;
    println!(
        "success: {}, {} steps, {} plans: {}",
        outcome.success,
        outcome.steps,
        outcome.plans,
        path.display()
    );
    Ok(())
}
