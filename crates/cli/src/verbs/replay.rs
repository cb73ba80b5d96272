//! `worldbench replay`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use worldbench_env::{
    PushT,
    raster::{Filter, Renderer, write_png},
    replay::{Deviation, Episode, Replayed},
};

use crate::output::{Outcome, complain, is_broken_pipe, print_json};

/// Run recorded Push-T episode files and print what happened, one JSON object per file and line
///
/// A file holds `setup` and `ops` (["set", state] or ["act", action]); the result has one entry per operation and
/// key: state, block_angle_raw, block_velocity, contact_points, n_contacts, reward, terminated. Where the file holds
/// these keys already, the largest deviation is part of the object (`max_deviation`) and, without --json, is
/// printed to standard error as well.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  worldbench replay episode.json
  worldbench replay tests/fixtures/env/pusht/episodes/*.json --json | jq .max_deviation
  worldbench replay episode.json --frames frames --size 512")]
pub struct Args {
    /// Episode files
    #[arg(required = true, value_name = "FILE.json")]
    files: Vec<PathBuf>,
    /// Print nothing but the JSON objects
    #[arg(long)]
    json: bool,
    /// Write the frame after every operation to DIR/NAME_OP.png
    #[arg(long, value_name = "DIR")]
    frames: Option<PathBuf>,
    /// Width and height of the frames, 16 to 512
    #[arg(long, default_value_t = 224)]
    size: usize,
}

pub fn run(args: &Args) -> Result<Outcome> {
    if let Some(dir) = &args.frames {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    let mut refused = 0;
    for file in &args.files {
        // One bad file must not hide the results of the others.
        match replay(args, file) {
            Err(error) if is_broken_pipe(&error) => return Err(error),
            Err(error) => {
                complain(&error);
                refused += 1;
            }
            Ok(()) => (),
        }
    }
    if refused > 0 {
        bail!("{refused} of {} files could not be replayed", args.files.len());
    }
    Ok(Outcome::Done)
}

fn replay(args: &Args, file: &Path) -> Result<()> {
    let episode = Episode::read(file)?;
    let replayed = match &args.frames {
        None => episode.run(|_, _| ())?,
        Some(dir) => draw(&episode, args.size, file, dir)?,
    };
    print_json(&replayed)?;
    if let (false, Some(deviation)) = (args.json, &replayed.max_deviation) {
        eprintln_quietly(&format!("{}: largest deviation: {}", file.display(), summary(deviation)));
    }
    Ok(())
}

/// Runs the episode and writes a frame after each operation.
fn draw(episode: &Episode, size: usize, file: &Path, dir: &Path) -> Result<Replayed> {
    let mut renderer = Renderer::new(&episode.factors(), size, Filter::Linear)?;
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    let mut written = Ok(());
    let replayed = episode.run(|op, env: &PushT| {
        if written.is_ok() {
            let frame = renderer.frame(&env.render_state());
            written = write_png(&dir.join(format!("{name}_{op:03}.png")), &frame);
        }
    })?;
    written?;
    Ok(replayed)
}

/// Every key that could be compared, e.g. `state 0, reward 1.2e-14 (relative)`.
fn summary(deviation: &Deviation) -> String {
    let parts = [
        ("state", deviation.state),
        ("block_angle_raw", deviation.block_angle_raw),
        ("block_velocity", deviation.block_velocity),
        ("contact_points", deviation.contact_points),
        ("n_contacts", deviation.n_contacts),
        ("reward (relative)", deviation.reward),
        ("terminated", deviation.terminated),
    ];
    let known = parts.into_iter().filter_map(|(key, value)| Some(format!("{key} {:.1e}", value?)));
    known.collect::<Vec<_>>().join(", ")
}

/// Standard error may be closed; the results are not there.
fn eprintln_quietly(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
