//! `worldbench replay`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use worldbench_env::{
    Environment, PushT, TwoRoom,
    raster::{Filter, Render, write_png},
    replay::{Deviation, Recording, TwoRoomDeviation},
};

use crate::output::{Outcome, complain, is_broken_pipe, print_json};

/// Run recorded episode files and print what happened, one JSON object per file and line
///
/// A Push-T file holds `setup` and `ops` (["set", state] or ["act", action]); the result has one entry per operation
/// and key: state, block_angle_raw, block_velocity, contact_points, n_contacts, reward, terminated. A Two-Room file
/// holds `config`, `start`, `target` and `actions`; the result has one entry per action and key: pos, distance,
/// terminated, expert_action. Where the file holds these keys already, the largest deviation is part of the object
/// (`max_deviation`) and, without --json, is printed to standard error as well.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  worldbench replay episode.json
  worldbench replay tests/fixtures/env/pusht/episodes/*.json --json | jq .max_deviation
  worldbench replay tests/fixtures/env/tworoom/episodes/expert_0.json --frames frames
  worldbench replay episode.json --frames frames --size 512")]
pub struct Args {
    /// Episode files
    #[arg(required = true, value_name = "FILE.json")]
    files: Vec<PathBuf>,
    /// Print nothing but the JSON objects
    #[arg(long)]
    json: bool,
    /// Write the frame after every operation or action to DIR/NAME_OP.png
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
    match Recording::read(file)? {
        Recording::PushT(episode) => {
            let mut pictures = Pictures::<PushT>::new(args, file, &episode.factors())?;
            let replayed = episode.run(|op, env| pictures.take(op, env))?;
            pictures.written?;
            report(args, file, &replayed, replayed.max_deviation.as_ref().map(push_t_errors))
        }
        Recording::TwoRoom(episode) => {
            let mut pictures = Pictures::<TwoRoom>::new(args, file, &episode.config.factors()?)?;
            let replayed = episode.run(|action, env| pictures.take(action, env))?;
            pictures.written?;
            report(args, file, &replayed, replayed.max_deviation.as_ref().map(two_room_errors))
        }
    }
}

fn report(args: &Args, file: &Path, replayed: &impl Serialize, errors: Option<Vec<Known>>) -> Result<()> {
    print_json(replayed)?;
    if let (false, Some(errors)) = (args.json, errors) {
        eprintln_quietly(&format!("{}: largest deviation: {}", file.display(), summary(&errors)));
    }
    Ok(())
}

/// Writes a frame after each operation, if frames are wanted, until one cannot be written.
struct Pictures<E: Environment> {
    renderer: Option<(E::Renderer, PathBuf)>,
    name: String,
    written: Result<()>,
}

impl<E: Environment> Pictures<E> {
    fn new(args: &Args, file: &Path, factors: &E::Factors) -> Result<Self> {
        let renderer = match &args.frames {
            Some(dir) => Some((E::Renderer::new(factors, args.size, Filter::Linear)?, dir.clone())),
            None => None,
        };
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { renderer, name, written: Ok(()) })
    }

    fn take(&mut self, index: usize, env: &E) {
        if let (Some((renderer, dir)), Ok(())) = (&mut self.renderer, &self.written) {
            let frame = renderer.frame(&env.render_state());
            let path = dir.join(format!("{}_{index:03}.png", self.name));
            self.written = write_png(&path, &frame).map_err(Into::into);
        }
    }
}

/// A key and its largest error, if the file has the key.
type Known = (&'static str, Option<f64>);

fn push_t_errors(deviation: &Deviation) -> Vec<Known> {
    vec![
        ("state", deviation.state),
        ("block_angle_raw", deviation.block_angle_raw),
        ("block_velocity", deviation.block_velocity),
        ("contact_points", deviation.contact_points),
        ("n_contacts", deviation.n_contacts),
        ("reward (relative)", deviation.reward),
        ("terminated", deviation.terminated),
    ]
}

fn two_room_errors(deviation: &TwoRoomDeviation) -> Vec<Known> {
    vec![
        ("pos", deviation.pos),
        ("distance", deviation.distance),
        ("terminated", deviation.terminated),
        ("expert_action", deviation.expert_action),
        ("observation", deviation.observation),
    ]
}

/// Every key that could be compared, e.g. `state 0, reward 1.2e-14 (relative)`.
fn summary(errors: &[Known]) -> String {
    let known = errors.iter().filter_map(|(key, value)| Some(format!("{key} {:.1e}", (*value)?)));
    known.collect::<Vec<_>>().join(", ")
}

/// Standard error may be closed; the results are not there.
fn eprintln_quietly(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
