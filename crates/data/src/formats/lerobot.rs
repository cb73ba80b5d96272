//! The 206 human Push-T demonstrations of Diffusion Policy (Chi et al. 2023), as LeRobot publishes them.
//!
//! The Parquet file holds the agent position and the absolute target of every frame, but no block pose. Each
//! episode was collected with the environment seed equal to its index, so the initial block pose can be drawn
//! again from NumPy's legacy generator, and the exact simulator does the rest. Agent positions and rewards in
//! the file check the recovery frame by frame.
//!
//! Actions are stored in relative mode, `(target - agent) / 100` in f32, so that the episodes can be mixed with
//! our own. The rows hold the states of the original f64 target; replaying the rounded actions deviates a little.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use parquet::{
    column::reader::{ColumnReader, ColumnReaderImpl},
    data_type::DataType,
    file::reader::{FileReader, SerializedFileReader},
};
use worldbench_core::{Stream, numpy::Mt19937};
use worldbench_env::domain::{Appearance, domain};
use worldbench_env::{PushT, Scene};

use super::legacy::{Legacy, initial_state};
use crate::{
    episode::{Episode, EpisodeInfo, Kind, Row},
    error::{DataError, Result},
};

/// Largest deviation from the file's agent positions: half a unit in the last place of f32 below 512, and a margin.
const AGENT_TOLERANCE: f64 = 2e-5;
const REWARD_TOLERANCE: f64 = 1e-6;
/// Pixels per unit of a relative action.
const ACTION_SCALE: f64 = 100.0;

/// What the import found.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct ImportReport {
    /// Episodes imported.
    pub episodes: usize,
    /// Frames compared with the file.
    pub frames: usize,
    /// Largest deviation of a recovered agent position, pixels.
    pub max_agent_error: f64,
    /// Largest deviation of a recovered reward.
    pub max_reward_error: f64,
}

/// Imports the data set at `path`: its directory (the one that holds `data/`) or a single Parquet file. Every
/// episode is handed to `sink` when it is recovered.
///
/// # Errors
/// When a file or column is missing, or an episode's recovery deviates from the file by more than 2e-5 px or
/// 1e-6 of reward; and whatever `sink` returns.
pub fn import(path: impl AsRef<Path>, mut sink: impl FnMut(&Episode) -> Result<()>) -> Result<ImportReport> {
    let mut report = ImportReport::default();
    for file in parquet_files(path.as_ref())? {
        let table = Table::read(&file)?;
        let mut start = 0;
        while start < table.episode.len() {
            let index = table.episode[start];
            let end = start + table.episode[start..].iter().take_while(|&&e| e == index).count();
            let frames = table.frames(start..end);
            let (episode, agent_error, reward_error) = recover(index, &frames, &file)?;
            if agent_error > AGENT_TOLERANCE || reward_error > REWARD_TOLERANCE {
                let reason = format!(
                    "episode {index} was not recovered: agent off by {agent_error:.1e} px, reward by \
                     {reward_error:.1e}; only the original lerobot/pusht data can be imported"
                );
                return Err(DataError::Import { path: file, reason });
            }
            sink(&episode)?;
            report.episodes += 1;
            report.frames += end - start;
            report.max_agent_error = report.max_agent_error.max(agent_error);
            report.max_reward_error = report.max_reward_error.max(reward_error);
            start = end;
        }
    }
    Ok(report)
}

fn parquet_files(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.into()]);
    }
    let mut files = Vec::new();
    let data = path.join("data");
    for chunk in std::fs::read_dir(&data).map_err(DataError::io("list", &data))?.flatten() {
        let inside = std::fs::read_dir(chunk.path()).map_err(DataError::io("list", &chunk.path()))?;
        files.extend(
            inside.flatten().map(|f| f.path()).filter(|f| f.extension().is_some_and(|e| e == "parquet")),
        );
    }
    files.sort();
    if files.is_empty() {
        return Err(DataError::Import { path: data, reason: "it holds no chunk-*/*.parquet file".into() });
    }
    Ok(files)
}

/// One frame of the file.
struct Recorded {
    agent: [f32; 2],
    target: [f32; 2],
    next_reward: f32,
}

/// The columns that the recovery needs, over all row groups of one file.
#[derive(Default)]
struct Table {
    episode: Vec<i64>,
    agent: Vec<f32>,
    target: Vec<f32>,
    reward: Vec<f32>,
}

impl Table {
    fn read(path: &Path) -> Result<Self> {
        let fault = |reason: String| DataError::Import { path: path.into(), reason };
        let file = File::open(path).map_err(DataError::io("open", path))?;
        let reader = SerializedFileReader::new(file).map_err(|e| fault(e.to_string()))?;
        let mut table = Self::default();
        table.read_groups(&reader).map_err(fault)?;
        let rows = table.episode.len();
        if [table.agent.len(), table.target.len(), 2 * table.reward.len()] != [2 * rows; 3] {
            return Err(fault(format!("its columns do not all have {rows} rows of the expected shape")));
        }
        Ok(table)
    }

    fn read_groups(&mut self, reader: &dyn FileReader) -> std::result::Result<(), String> {
        for group in 0..reader.num_row_groups() {
            let group = reader.get_row_group(group).map_err(|e| e.to_string())?;
            let column = |name: &str| {
                let columns = group.metadata().columns();
                let place =
                    columns.iter().position(|c| c.column_path().parts().first().is_some_and(|p| p == name));
                let place = place.ok_or_else(|| format!("it has no column `{name}`"))?;
                group.get_column_reader(place).map_err(|e| e.to_string())
            };
            let wrong = |name: &str| Err(format!("its column `{name}` has an unexpected type"));
            for (name, out) in [
                ("observation.state", &mut self.agent),
                ("action", &mut self.target),
                ("next.reward", &mut self.reward),
            ] {
                let ColumnReader::FloatColumnReader(reader) = column(name)? else { return wrong(name) };
                read_all(reader, out)?;
            }
            let name = "episode_index";
            let ColumnReader::Int64ColumnReader(reader) = column(name)? else { return wrong(name) };
            read_all(reader, &mut self.episode)?;
        }
        Ok(())
    }

    fn frames(&self, range: std::ops::Range<usize>) -> Vec<Recorded> {
        let pair = |values: &[f32], i: usize| [values[2 * i], values[2 * i + 1]];
        range
            .map(|i| Recorded {
                agent: pair(&self.agent, i),
                target: pair(&self.target, i),
                next_reward: self.reward[i],
            })
            .collect()
    }
}

fn read_all<T: DataType>(
    mut reader: ColumnReaderImpl<T>,
    out: &mut Vec<T::T>,
) -> std::result::Result<(), String> {
    const RECORDS: usize = 1 << 16;
    let (mut definition, mut repetition) = (Vec::new(), Vec::new());
    loop {
        let read = reader.read_records(RECORDS, Some(&mut definition), Some(&mut repetition), out);
        if read.map_err(|e| e.to_string())?.0 == 0 {
            return Ok(());
        }
    }
}

/// Simulates the episode along the recorded targets; returns it with the largest errors of agent and reward.
fn recover(index: i64, frames: &[Recorded], path: &Path) -> Result<(Episode, f64, f64)> {
    let seed = u32::try_from(index).map_err(|_| {
        let reason = format!("episode_index {index} is no seed; expected 0 to 205");
        DataError::Import { path: path.into(), reason }
    })?;
    let start = initial_state(&mut Mt19937::new(seed));
    let mut world = Legacy::new(&start);
    let (mut agent_error, mut reward_error) = (0.0f64, 0.0f64);
    let mut rows = Vec::with_capacity(frames.len() + 1);
    for (i, frame) in frames.iter().enumerate() {
        let agent = world.agent();
        for (simulated, recorded) in agent.iter().zip(frame.agent) {
            agent_error = agent_error.max((simulated - f64::from(recorded)).abs());
        }
        if let Some(previous) = i.checked_sub(1) {
            let error = (world.reward() - f64::from(frames[previous].next_reward)).abs();
            reward_error = reward_error.max(error);
        }
        let target = frame.target.map(f64::from);
        let action = std::array::from_fn(|k| ((target[k] - agent[k]) / ACTION_SCALE) as f32);
        rows.push(Row { state: world.state().to_vec(), render: world.render_state().look(), action });
        world.step(target);
    }
    let (state, render) = (world.state().to_vec(), world.render_state().look());
    rows.push(Row { state, render, action: [f32::NAN; 2] });
    let info = EpisodeInfo {
        env: domain::<PushT>(),
        kind: Kind::Human,
        source: Stream::new(u64::from(seed), "human demonstration", &[]).seed(),
        seed: u64::from(seed),
        factors: Scene::of(world.factors()),
    };
    Ok((Episode { info, rows, pixels: None }, agent_error, reward_error))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Set `WORLDBENCH_LEROBOT` to the directory of `lerobot/pusht` to run the check over all 206 episodes.
    #[test]
    fn all_demonstrations_are_recovered() {
        let Some(path) = std::env::var_os("WORLDBENCH_LEROBOT") else {
            println!("skipped: WORLDBENCH_LEROBOT does not name a copy of lerobot/pusht");
            return;
        };
        let mut rows = 0;
        let report = import(Path::new(&path), |episode| {
            rows += episode.rows.len();
            episode.check()
        })
        .unwrap();
        println!("{report:?}");
        assert_eq!((report.episodes, report.frames, rows), (206, 25_650, 25_650 + 206));
    }

    #[test]
    fn files_that_are_something_else_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let sink = |_: &Episode| Ok(());
        assert!(import(directory.path(), sink).unwrap_err().to_string().contains("cannot list"));
        let file = directory.path().join("x.parquet");
        std::fs::write(&file, b"PAR1 this is no parquet file PAR1").unwrap();
        assert!(import(&file, sink).unwrap_err().to_string().contains("x.parquet"));
    }

    #[test]
    fn a_wrong_agent_position_shows_as_an_error() {
        let frame = |x: f32| Recorded { agent: [x, 97.0], target: [222.0, 97.0], next_reward: 0.0 };
        let (episode, error, _) = recover(0, &[frame(222.0), frame(222.0)], Path::new("x")).unwrap();
        assert_eq!((episode.rows.len(), error), (3, 0.0));
        assert_eq!(recover(0, &[frame(223.0)], Path::new("x")).unwrap().1, 1.0);
        assert!(recover(-1, &[], Path::new("x")).is_err());
    }
}
