//! `worldbench data`.

mod exchange;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde_json::json;
use worldbench_core::Frame;
use worldbench_data::{FrameSource, FrameSpec, Normaliser, NormaliserKind, Store, repair};
use worldbench_env::raster::{Filter, write_png};

use crate::output::{Outcome, print, print_json, table};

/// Look at, import, export and repair data sets
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  worldbench data inspect push_t.wbs
  worldbench data preview push_t.wbs --episodes 0,5 --out preview
  worldbench data import lerobot_pusht --out demos.wbs
  worldbench data import pusht_expert_train.h5 --out theirs.wbs --check-pixels
  worldbench data export push_t.wbs --out push_t.h5
  worldbench data repair push_t.wbs")]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// What a store holds: episodes, steps, lengths, kinds, hash
    Inspect(StoreArgs),
    Preview(PreviewArgs),
    Import(exchange::ImportArgs),
    Export(exchange::ExportArgs),
    /// Keep the good episodes of a damaged store; an intact file is not touched
    Repair(StoreArgs),
    Stats(StatsArgs),
}

#[derive(Debug, clap::Args)]
struct StoreArgs {
    /// The store
    store: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Draw episodes: a GIF each, or a PNG strip of eight moments
#[derive(Debug, clap::Args)]
struct PreviewArgs {
    /// The store
    store: PathBuf,
    /// Episodes to draw, from 0: numbers and ranges such as 0,5,10-19
    #[arg(long, value_name = "EP,EP-EP", value_delimiter = ',', default_value = "0", value_parser = episodes)]
    episodes: Vec<Episodes>,
    /// Directory to write to
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Width and height of rendered frames, 16 to 512
    #[arg(long, default_value_t = 224)]
    size: usize,
    /// Kind of picture
    #[arg(long, value_enum, default_value_t = Picture::Gif)]
    format: Picture,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Picture {
    /// Every frame, 10 a second
    Gif,
    /// Eight frames side by side
    Png,
}

/// Statistics per column: mean, standard deviation, range; shares of contact and of pairs that are not easily won
#[derive(Debug, clap::Args)]
struct StatsArgs {
    /// The store
    store: PathBuf,
    /// Env steps from start to goal of the pairs
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..))]
    offset: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// First and last of a range of episodes.
type Episodes = (usize, usize);

fn episodes(text: &str) -> std::result::Result<Episodes, String> {
    let number = |part: &str| part.trim().parse::<usize>().map_err(|e| format!("`{part}`: {e}"));
    match text.split_once('-') {
        None => number(text).map(|n| (n, n)),
        Some((first, last)) => match (number(first)?, number(last)?) {
            (first, last) if first <= last => Ok((first, last)),
            (first, last) => Err(format!("{first}-{last} is empty; write the smaller number first")),
        },
    }
}

/// The episodes that the ranges name, in their order. One beyond the store's end, or named twice, is an error.
fn listed(ranges: &[Episodes], store: &Store) -> Result<Vec<usize>> {
    let all = ranges.iter().flat_map(|&(first, last)| first..=last.min(store.len().max(first)));
    let mut seen = BTreeSet::new();
    let once = |episode| {
        store.view(episode)?;
        match seen.insert(episode) {
            true => Ok(episode),
            false => bail!("--episodes names episode {episode} twice"),
        }
    };
    all.map(once).collect()
}

pub fn run(args: &Args) -> Result<Outcome> {
    match &args.verb {
        Verb::Inspect(args) => inspect(args)?,
        Verb::Preview(args) => preview(args)?,
        Verb::Import(args) => exchange::import(args)?,
        Verb::Export(args) => exchange::export(args)?,
        Verb::Repair(args) => mend(args)?,
        Verb::Stats(args) => stats(args)?,
    }
    Ok(Outcome::Done)
}

fn inspect(args: &StoreArgs) -> Result<()> {
    let store = Store::open(&args.store)?;
    let stats = store.stats();
    let steps = stats.rows - stats.episodes;
    // Lengths are given in env steps, as everywhere on the command line.
    let (shortest, longest) = stats.length.map_or((0, 0), |(low, high)| (low - 1, high - 1));
    let pixels = store.views().filter_map(|view| view.pixel_shape()).count();
    if args.json {
        return print_json(&json!({
            "path": args.store, "env": store.env().spec().name, "bytes": stats.bytes, "episodes": stats.episodes, "steps": steps,
            "shortest": shortest, "longest": longest, "sources": stats.sources, "kinds": stats.kinds,
            "episodes_with_pixels": pixels, "hash": store.hash(),
        }));
    }
    print(format!("{}, {:.1} MB, hash {}", args.store.display(), stats.bytes as f64 / 1e6, store.hash()))?;
    let (episodes, sources) = (stats.episodes, stats.sources);
    let env = store.env().spec().title;
    print(format!(
        "{env}: {episodes} episodes from {sources} sources, {steps} steps, {shortest} to {longest} an episode"
    ))?;
    for (kind, count) in &stats.kinds {
        print(format!("  {:<13} {count}", kind.name()))?;
    }
    match pixels {
        0 => print("frames are rendered on demand"),
        _ => print(format!("{pixels} episodes hold their own frames")),
    }
}

fn preview(args: &PreviewArgs) -> Result<()> {
    let store = Store::open(&args.store)?;
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    for episode in listed(&args.episodes, &store)? {
        let frames = frames(&store, episode, args.size)?;
        let path = match args.format {
            Picture::Gif => {
                let path = args.out.join(format!("episode-{episode:05}.gif"));
                write_gif(&path, &frames).with_context(|| format!("cannot write {}", path.display()))?;
                path
            }
            Picture::Png => {
                let path = args.out.join(format!("episode-{episode:05}.png"));
                write_png(&path, &strip(&frames))?;
                path
            }
        };
        print(format!("wrote {}", path.display()))?;
    }
    Ok(())
}

/// All frames of an episode; stored ones keep their size.
fn frames(store: &Store, episode: usize, size: usize) -> Result<Vec<Frame>> {
    let view = store.view(episode)?;
    let resolution = match view.pixel_shape() {
        Some((height, width)) if height != width => {
            bail!("episode {episode} holds frames of {width} x {height}; only square ones can be drawn")
        }
        Some((height, _)) => height,
        None => size,
    };
    let mut source = FrameSource::new(FrameSpec { resolution, filter: Filter::Linear });
    let draw = |row| {
        let mut frame = Frame::new(resolution, resolution);
        source.write(episode, &view, row, &mut frame.data)?;
        Ok(frame)
    };
    (0..view.len()).map(draw).collect()
}

fn write_gif(path: &Path, frames: &[Frame]) -> Result<()> {
    let Some(first) = frames.first() else { bail!("the episode has no frames") };
    let (width, height) = (first.width as u16, first.height as u16);
    let mut encoder = gif::Encoder::new(std::fs::File::create(path)?, width, height, &[])?;
    encoder.set_repeat(gif::Repeat::Infinite)?;
    for frame in frames {
        let mut coded = gif::Frame::from_rgb_speed(width, height, &frame.data, 10);
        coded.delay = 10;
        encoder.write_frame(&coded)?;
    }
    Ok(())
}

/// Eight evenly spaced frames side by side, the first and the last among them.
fn strip(frames: &[Frame]) -> Frame {
    let count = frames.len().min(8);
    let size = frames.first().map_or(0, |frame| frame.width);
    let mut out = Frame::new(count * size, size);
    for k in 0..count {
        let frame = &frames[k * (frames.len() - 1) / (count - 1).max(1)];
        for (y, row) in frame.data.chunks_exact(3 * size).enumerate() {
            let at = (y * count + k) * 3 * size;
            out.data[at..at + 3 * size].copy_from_slice(row);
        }
    }
    out
}

fn mend(args: &StoreArgs) -> Result<()> {
    let report = repair(&args.store)?;
    if args.json {
        return print_json(&report);
    }
    if report.dropped.is_empty() {
        return print(format!("{} is intact: {} episodes", args.store.display(), report.kept));
    }
    print(format!("{}: kept {} episodes", args.store.display(), report.kept))?;
    for lost in &report.dropped {
        let (after, bytes, reason) = (lost.after_episode, lost.bytes, &lost.reason);
        print(format!("  dropped {bytes} bytes after {after} good episodes: the record {reason}"))?;
    }
    Ok(())
}

fn stats(args: &StatsArgs) -> Result<()> {
    let store = Store::open(&args.store)?;
    let all: Vec<usize> = (0..store.len()).collect();
    let (states, actions) = (
        Normaliser::fit_states(NormaliserKind::Zscore, &store, &all)?,
        Normaliser::fit_actions(NormaliserKind::Zscore, &store, &all)?,
    );
    let mean: Vec<f64> = states.offset.iter().chain(&actions.offset).copied().collect();
    let std: Vec<f64> = states.scale.iter().chain(&actions.scale).copied().collect();
    let spec = store.env().spec();
    let columns: Vec<&str> = spec.state.iter().copied().chain(["action x", "action y"]).collect();
    let stats = store.stats();
    let contact = stats.contact_rows as f64 / stats.rows.max(1) as f64;
    let hard = hard_share(&store, args.offset as usize)?;
    if args.json {
        return print_json(&json!({
            "columns": columns, "mean": mean, "std": std, "state_range": stats.state_range,
            "contact_share": contact, "hard_pairs": spec.hard.name, "hard_share": hard, "offset": args.offset, "rows": stats.rows,
        }));
    }
    let rows: Vec<[String; 5]> = (0..columns.len())
        .map(|i| {
            let (low, high) = stats.state_range.get(i).copied().unzip();
            let edge = |value: Option<f64>| value.map_or_else(|| "-".into(), |v| format!("{v:.2}"));
            [columns[i].into(), format!("{:.4}", mean[i]), format!("{:.4}", std[i]), edge(low), edge(high)]
        })
        .collect();
    print(table(["column", "mean", "std", "least", "most"], &rows))?;
    print(format!("contact marks in {:.1} % of {} rows", 100.0 * contact, stats.rows))?;
    let (name, about, offset) = (spec.hard.name, spec.hard.about, args.offset);
    print(match hard {
        Some(share) => {
            format!("{name} ({about}): {:.1} % of all stretches of {offset} env steps", 100.0 * share)
        }
        None => format!("no episode has {offset} env steps; give a smaller --offset"),
    })
}

/// Share of all stretches of `offset` env steps whose ends make a pair that is not easily won; none without a stretch.
fn hard_share(store: &Store, offset: usize) -> Result<Option<f64>> {
    let (mut hard, mut all) = (0usize, 0usize);
    for view in store.views() {
        let (env, factors) = (view.info().env, &view.info().factors);
        for t in 0..view.len().saturating_sub(offset) {
            all += 1;
            hard += usize::from(env.hard(factors, &view.state(t), &view.state(t + offset))?);
        }
    }
    Ok((all > 0).then(|| hard as f64 / all as f64))
}
