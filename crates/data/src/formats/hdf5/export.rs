//! Store to HDF5, episode by episode: memory holds one frame and one chunk a column, whatever the store's size.

use std::{collections::BTreeMap, path::Path};

use rust_hdf5::{H5Dataset, H5File, H5Type};
use worldbench_env::{Scene, Spec, render_state::MAX_MARKS, variation::Kind as FactorKind};

use crate::{
    episode::{ACTION_DIM, Kind, Row},
    error::{DataError, Result},
    frames::FrameSource,
    loader::FrameSpec,
    store::{EpisodeView, Store},
};

/// Frames of a drawn scene shrink fiftyfold at this level; higher ones cost time and gain little.
const DEFLATE_LEVEL: u32 = 4;
/// Aim for the size of a chunk before compression.
const CHUNK_BYTES: usize = 1 << 16;
const MAX_CHUNK_ROWS: usize = 1024;

/// What to export.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// Size and resampling of the rendered frames; stored frames must have this size already.
    pub frames: FrameSpec,
    /// Episodes of the store, in the order in which they are written; at least one.
    pub episodes: Vec<usize>,
}

/// What was exported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ExportReport {
    /// Episodes written.
    pub episodes: usize,
    /// Rows written, all episodes together.
    pub rows: usize,
    /// Size of the file.
    pub bytes: u64,
}

/// Writes episodes of `store` with rendered frames to a new HDF5 file at `path`; `written` is called after each.
/// The bytes of the file depend on the store and the options alone.
///
/// # Errors
/// When no episode is asked for, one does not exist or cannot be drawn at that size, or the disk refuses; the
/// file is then incomplete and to be removed.
pub fn export(
    store: &Store,
    path: impl AsRef<Path>,
    options: &ExportOptions,
    mut written: impl FnMut(),
) -> Result<ExportReport> {
    let path = path.as_ref();
    if options.episodes.is_empty() {
        let reason = format!("no episode is chosen; {} holds {}", store.path().display(), store.len());
        return Err(DataError::Export { path: path.into(), reason });
    }
    let mut writer = Writer::create(path, store)?;
    let mut source = FrameSource::new(options.frames);
    let mut frame = vec![0; options.frames.resolution.pow(2) * 3];
    let mut report = ExportReport::default();
    for (place, &index) in options.episodes.iter().enumerate() {
        let view = store.view(index)?;
        writer.put("ep_len", &[], &[view.len() as i32])?;
        writer.put("ep_offset", &[], &[report.rows as i64])?;
        writer.episode(place, &view)?;
        for row in 0..view.len() {
            source.write(index, &view, row, &mut frame)?;
            let side = options.frames.resolution;
            writer.put("pixels", &[side, side, 3], &frame)?;
        }
        report.episodes += 1;
        report.rows += view.len();
        written();
    }
    writer.close()?;
    report.bytes = std::fs::metadata(path).map_err(DataError::io("read", path))?.len();
    Ok(report)
}

type Reals = fn(&Row, &[f64]) -> Vec<f64>;

/// Environment, name, values a row and content of the f64 columns that the reference has for it beside `state` and
/// `proprio`; content is a function of the row and of the factors that are named last.
const INFO: [(&str, &str, usize, Reals, &[&str]); 5] = [
    ("push_t", "pos_agent", 2, |row, _| row.state[..2].to_vec(), &[]),
    ("push_t", "vel_agent", 2, |row, _| row.state[5..].to_vec(), &[]),
    ("push_t", "block_pose", 3, |row, _| vec![row.state[2], row.state[3], row.render.values[5]], &[]),
    ("push_t", "goal_pose", 3, |_, goal| goal.to_vec(), &["goal.position", "goal.angle"]),
    ("two_room", "pos_agent", 2, |row, _| row.state.clone(), &[]),
];

/// A file being written. Columns are made when their first values come.
struct Writer<'a> {
    path: &'a Path,
    file: H5File,
    columns: BTreeMap<String, H5Dataset>,
}

impl<'a> Writer<'a> {
    fn create(path: &'a Path, store: &Store) -> Result<Self> {
        let fault = |e| fault(path, "the file", &e);
        let file = H5File::create(path).map_err(fault)?;
        let kinds: Vec<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        let generator = concat!("worldbench ", env!("CARGO_PKG_VERSION"));
        file.set_attr_string("generator", generator).map_err(fault)?;
        file.set_attr_string("store_hash", &store.hash()).map_err(fault)?;
        file.set_attr_string("episode.kinds", &kinds.join(",")).map_err(fault)?;
        Ok(Self { path, file, columns: BTreeMap::new() })
    }

    /// Appends whole rows of shape `tail` to the column `name`.
    fn put<T: H5Type>(&mut self, name: &str, tail: &[usize], values: &[T]) -> Result<()> {
        let fault = |e| fault(self.path, name, &e);
        if !self.columns.contains_key(name) {
            let column = create::<T>(&self.file, name, tail).map_err(fault)?;
            self.columns.insert(name.into(), column);
        }
        self.columns[name].append(values).map_err(fault)
    }

    /// Every column of an episode but its frames.
    fn episode(&mut self, place: usize, view: &EpisodeView<'_>) -> Result<()> {
        let (info, len) = (view.info(), view.len());
        let rows: Vec<Row> = (0..len).map(|t| view.row(t)).collect();
        let spec = info.env.spec();
        let states: Vec<f64> = rows.iter().flat_map(|row| &row.state).copied().collect();
        self.put("state", &[spec.state.len()], &states)?;
        let proprio = |row: &Row| spec.proprioception(&row.state)[..spec.proprio.len()].to_vec();
        self.put("proprio", &[spec.proprio.len()], &rows.iter().flat_map(proprio).collect::<Vec<f64>>())?;
        for (_, name, width, values, factors) in INFO.into_iter().filter(|(env, ..)| *env == spec.name) {
            let factors: Vec<f64> =
                factors.iter().flat_map(|name| factor(spec, &info.factors, name)).collect();
            let values: Vec<f64> = rows.iter().flat_map(|row| values(row, &factors)).collect();
            self.put(name, &[width], &values)?;
        }
        let poses: Vec<f64> = rows.iter().flat_map(|row| &row.render.values).copied().collect();
        self.put("render.pose", &[spec.look.len()], &poses)?;
        let actions: Vec<f32> = rows.iter().flat_map(|row| row.action).collect();
        self.put("action", &[ACTION_DIM], &actions)?;
        self.put("step_idx", &[], &(0..len as i64).collect::<Vec<_>>())?;
        self.put("ep_idx", &[], &vec![place as i32; len])?;
        self.marks(&rows)?;
        let kind = Kind::ALL.iter().position(|&kind| kind == info.kind).unwrap_or(Kind::ALL.len() - 1);
        self.put("episode.kind", &[], &vec![kind as u8; len])?;
        self.put("episode.source", &[], &vec![info.source; len])?;
        self.put("episode.seed", &[], &vec![info.seed; len])?;
        self.factors(spec, &info.factors, len)
    }

    fn marks(&mut self, rows: &[Row]) -> Result<()> {
        let counts: Vec<u8> = rows.iter().map(|row| row.render.marks.as_slice().len() as u8).collect();
        let mut marks = vec![0i16; rows.len() * MAX_MARKS * 4];
        for (row, out) in rows.iter().zip(marks.chunks_exact_mut(MAX_MARKS * 4)) {
            let held = row.render.marks.as_slice().as_flattened();
            out[..held.len()].copy_from_slice(held);
        }
        self.put("render.mark_count", &[], &counts)?;
        self.put("render.marks", &[MAX_MARKS, 4], &marks)
    }

    fn factors(&mut self, spec: &Spec, scene: &Scene, len: usize) -> Result<()> {
        for f in spec.factors {
            let name = format!("variation.{}", f.name);
            let all = factor(spec, scene, f.name).repeat(len);
            match f.kind {
                FactorKind::Color => self.put(&name, &[3], &all.iter().map(|&v| v as u8).collect::<Vec<_>>()),
                FactorKind::Float32 => {
                    self.put(&name, &[f.len], &all.iter().map(|&v| v as f32).collect::<Vec<_>>())
                }
                FactorKind::Index | FactorKind::Integers => {
                    let tail: &[usize] = if f.len == 1 { &[] } else { &[f.len] };
                    self.put(&name, tail, &all.iter().map(|&v| v as i64).collect::<Vec<_>>())
                }
                FactorKind::Float64 => self.put(&name, &[f.len], &all),
            }?;
        }
        Ok(())
    }

    fn close(self) -> Result<()> {
        drop(self.columns);
        self.file.close().map_err(|e| fault(self.path, "the file", &e))
    }
}

/// The values of one factor.
fn factor(spec: &Spec, scene: &Scene, name: &str) -> Vec<f64> {
    let before = spec.factors.iter().take_while(|f| f.name != name).map(|f| f.len).sum();
    let len = spec.factors.iter().find(|f| f.name == name).map_or(0, |f| f.len);
    scene.values().iter().skip(before).take(len).copied().collect()
}

/// An empty column with rows of shape `tail` that grows along its first axis.
fn create<T: H5Type>(file: &H5File, name: &str, tail: &[usize]) -> rust_hdf5::Result<H5Dataset> {
    let row_bytes = T::element_size() * tail.iter().product::<usize>();
    let rows = (CHUNK_BYTES / row_bytes).clamp(1, MAX_CHUNK_ROWS);
    let axes = |first: usize| [&[first], tail].concat();
    let limits: Vec<_> = std::iter::once(None).chain(tail.iter().map(|&n| Some(n))).collect();
    let column = file.new_dataset::<T>().shape(axes(0)).max_shape(&limits).chunk(&axes(rows));
    match T::element_size() {
        1 => column.deflate(DEFLATE_LEVEL),
        // Bytes of equal weight side by side: slowly changing numbers then compress better.
        _ => column.shuffle_deflate(DEFLATE_LEVEL),
    }
    .create(name)
}

fn fault(path: &Path, what: &str, e: &rust_hdf5::Hdf5Error) -> DataError {
    let reason = format!("{what} was not written: {e}; check the free space and the rights of the directory");
    DataError::Export { path: path.into(), reason }
}
