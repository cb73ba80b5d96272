//! `worldbench data import` and `worldbench data export`.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use worldbench_data::{
    self as data, Episode, FrameSpec, Store, StoreWriter,
    formats::{hdf5, lerobot},
};
use worldbench_env::{DomainRef, domain as domains, raster::Filter};

use super::{Episodes, episodes, listed};
use crate::config::domain;
use crate::output::{bar, make_parent, print, print_json};

/// Import LeRobot Push-T demonstrations or an HDF5 file with states
#[derive(Debug, clap::Args)]
#[command(after_help = "\
From LeRobot come the 206 human demonstrations with their exact simulator states. An HDF5 file needs the columns
`state` (7 values a row, 2 of Two-Room), `action` (2) and `ep_len`; frames are rendered from the states, not imported.")]
pub struct ImportArgs {
    /// HDF5 file, directory that holds `data/chunk-*/*.parquet`, or one Parquet file
    path: PathBuf,
    /// Store to write
    #[arg(long, value_name = "STORE.wbs")]
    out: PathBuf,
    /// HDF5: environment that the states are of
    #[arg(long, value_name = "NAME", default_value = "push_t")]
    env: String,
    /// HDF5: report the share of recorded frames that equal our rendering of the recorded states
    #[arg(long)]
    check_pixels: bool,
    /// HDF5: store the recorded frames and use them in place of rendered ones
    #[arg(long)]
    keep_pixels: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Export to HDF5 with rendered frames, for training in Python
#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    /// The store
    store: PathBuf,
    /// HDF5 file to write
    #[arg(long, value_name = "FILE.h5")]
    out: PathBuf,
    /// Width and height of the frames, 16 to 512
    #[arg(long, default_value_t = 224)]
    size: usize,
    /// Episodes to export, from 0: numbers and ranges such as 0,5,10-19; all by default
    #[arg(long, value_name = "EP,EP-EP", value_delimiter = ',', value_parser = episodes)]
    episodes: Vec<Episodes>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Has `write` make a new file that appears as `out` only when it is whole.
fn whole<T>(out: &Path, write: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    if out.exists() {
        bail!("{} exists; give another path or remove the file", out.display());
    }
    make_parent(out)?;
    let partial = out.with_added_extension("partial");
    if partial.exists() {
        std::fs::remove_file(&partial).with_context(|| format!("cannot remove {}", partial.display()))?;
    }
    let written = write(&partial).inspect_err(|_| {
        let _ = std::fs::remove_file(&partial);
    })?;
    std::fs::rename(&partial, out).with_context(|| format!("cannot write {}", out.display()))?;
    Ok(written)
}

/// Has `read` hand `episodes` episodes (0: unknown) to a new store.
fn whole_store<T>(
    out: &Path,
    env: DomainRef,
    episodes: usize,
    read: impl FnOnce(&mut dyn FnMut(&Episode) -> data::Result<()>) -> data::Result<T>,
) -> Result<T> {
    whole(out, |partial| {
        let mut writer = StoreWriter::create(partial, env)?;
        let bar = bar(episodes, "episodes imported");
        let report = read(&mut |episode| {
            bar.inc(1);
            writer.append(episode)
        });
        bar.finish_and_clear();
        let report = report?;
        writer.sync()?;
        Ok(report)
    })
}

pub fn import(args: &ImportArgs) -> Result<()> {
    if is_hdf5(&args.path) { import_hdf5(args) } else { import_lerobot(args) }
}

fn is_hdf5(path: &Path) -> bool {
    let named = path.extension().is_some_and(|e| e == "h5" || e == "hdf5");
    let mut head = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(8).read_to_end(&mut head));
    named || (read.is_ok() && head == hdf5::SIGNATURE)
}

fn import_lerobot(args: &ImportArgs) -> Result<()> {
    if args.check_pixels || args.keep_pixels {
        bail!("{} is no HDF5 file; the pixel options are for these only", args.path.display());
    }
    let report = whole_store(&args.out, domains::all()[0], 0, |sink| lerobot::import(&args.path, sink))?;
    if args.json {
        return print_json(&report);
    }
    print(format!("{}: {} episodes, {} frames", args.out.display(), report.episodes, report.frames))?;
    let (agent, reward) = (report.max_agent_error, report.max_reward_error);
    print(format!("recovered states deviate by at most {agent:.1e} px (agent) and {reward:.1e} (reward)"))
}

fn import_hdf5(args: &ImportArgs) -> Result<()> {
    let importer = hdf5::Importer::open(&args.path)?;
    let env = domain(&args.env)?;
    let options = hdf5::ImportOptions { env, check_pixels: args.check_pixels, keep_pixels: args.keep_pixels };
    let report = whole_store(&args.out, env, importer.len(), |sink| importer.import(options, sink))?;
    if args.json {
        return print_json(&report);
    }
    print(format!("{}: {} episodes, {} rows", args.out.display(), report.episodes, report.rows))?;
    print(match report.drawn_from {
        _ if args.keep_pixels => "frames are the recorded ones",
        hdf5::Drawn::Recorded => "frames are drawn from the file's render.* columns",
        hdf5::Drawn::States => "frames are drawn from the states",
    })?;
    if args.check_pixels {
        let (same, all) = (report.frames_identical, report.frames_checked);
        let share = 100.0 * same as f64 / all.max(1) as f64;
        print(format!("{same} of {all} recorded frames ({share:.2} %) are identical to rendered ones"))?;
    }
    match report.ignored[..] {
        [] => Ok(()),
        _ => print(format!("not needed or not known: {}", report.ignored.join(", "))),
    }
}

pub fn export(args: &ExportArgs) -> Result<()> {
    let store = Store::open(&args.store)?;
    let episodes = match args.episodes[..] {
        [] => (0..store.len()).collect(),
        _ => listed(&args.episodes, &store)?,
    };
    let frames = FrameSpec { resolution: args.size, filter: Filter::Linear };
    let options = hdf5::ExportOptions { frames, episodes };
    let report = whole(&args.out, |partial| {
        let bar = bar(options.episodes.len(), "episodes exported");
        let report = hdf5::export(&store, partial, &options, || bar.inc(1));
        bar.finish_and_clear();
        Ok(report?)
    })?;
    if args.json {
        return print_json(&report);
    }
    let (path, size, megabytes) = (args.out.display(), args.size, report.bytes as f64 / 1e6);
    let (episodes, rows) = (report.episodes, report.rows);
    print(format!("{path}: {episodes} episodes, {rows} rows, frames of {size} x {size}, {megabytes:.1} MB"))
}
