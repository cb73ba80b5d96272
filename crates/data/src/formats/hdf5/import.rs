//! HDF5 to store: states and actions, not pixels, with what the file knows about scene and provenance.

use std::{ops::Range, path::Path};

use worldbench_core::Stream;
use worldbench_env::{
    Changes, DomainRef, Look, Marks, Scene, domain, raster::Filter, render_state::MAX_MARKS,
};

use super::columns::{Class, Column, Table};
use crate::{
    episode::{ACTION_DIM, Episode, EpisodeInfo, Kind, Pixels, Row},
    error::Result,
    frames::FrameSource,
    loader::FrameSpec,
};

/// Frames read at once when they are compared.
const BLOCK: usize = 64;

/// What to do with recorded frames; by default they are left out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ImportOptions {
    /// The environment that the states are of.
    pub env: DomainRef,
    /// Compare them with our rendering of the imported states.
    pub check_pixels: bool,
    /// Store them, so that they are used in place of rendered ones.
    pub keep_pixels: bool,
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self { env: domain::all()[0], check_pixels: false, keep_pixels: false }
    }
}

/// What the imported frames are drawn from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Drawn {
    /// The file's `render.*` columns: byte for byte what was exported.
    Recorded,
    /// The states, with the contact marks of bodies at rest in these poses: the same frames wherever we looked,
    /// but not by construction, as the block angle is known only modulo a turn.
    #[default]
    States,
}

/// What the import found.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ImportReport {
    /// Episodes imported.
    pub episodes: usize,
    /// Rows imported, all episodes together.
    pub rows: usize,
    /// What frames are drawn from.
    pub drawn_from: Drawn,
    /// Factors of variation that the file names; the others have their default.
    pub factors: usize,
    /// Columns that a store does not hold, or that follow from others.
    pub ignored: Vec<String>,
    /// Recorded frames compared with ours.
    pub frames_checked: usize,
    /// Those of them that are identical.
    pub frames_identical: usize,
}

/// An HDF5 file that can be imported.
pub struct Importer {
    table: Table,
    episodes: Vec<Range<usize>>,
}

impl Importer {
    /// Opens the file and finds its episodes.
    ///
    /// # Errors
    /// When it cannot be read, is cut short or no HDF5 file, or its `ep_len` or `ep_offset` are missing or do not
    /// fit its rows.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let table = Table::open(path.as_ref())?;
        let episodes = episodes(&table)?;
        Ok(Self { table, episodes })
    }

    /// Number of episodes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.episodes.len()
    }

    /// Whether there is no episode.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.episodes.is_empty()
    }

    /// Hands every episode to `sink` when it is read.
    ///
    /// # Errors
    /// When a column is missing, has another shape or type than expected or cannot be decoded, or an episode is
    /// inconsistent; and whatever `sink` returns.
    pub fn import(
        &self,
        options: ImportOptions,
        mut sink: impl FnMut(&Episode) -> Result<()>,
    ) -> Result<ImportReport> {
        let columns = Columns::find(&self.table, options)?;
        let end = self.episodes.iter().map(|rows| rows.end).max().unwrap_or(0);
        columns.check_rows(end)?;
        let mut report = columns.report();
        let mut check = match (&columns.pixels, options.check_pixels) {
            (Some(pixels), true) => Some(PixelCheck::new(&self.table, pixels)?),
            _ => None,
        };
        for (index, rows) in self.episodes.iter().enumerate() {
            let mut episode = columns.episode(index, rows)?;
            episode.check().map_err(|e| {
                let hint = "actions must be finite in all rows but the last, row t's leading to row t + 1";
                self.table.fault(format!("episode {index}: {e}; {hint}, and states in all rows"))
            })?;
            if let Some(check) = &mut check {
                report.frames_identical += check.identical(index, rows, &episode)?;
                report.frames_checked += rows.len();
            }
            if let (Some(pixels), true) = (&columns.pixels, options.keep_pixels) {
                let data = pixels.bytes(rows)?;
                episode.pixels = Some(Pixels { height: pixels.shape[1], width: pixels.shape[2], data });
            }
            sink(&episode)?;
            report.episodes += 1;
            report.rows += rows.len();
        }
        Ok(report)
    }
}

/// The rows of every episode.
fn episodes(table: &Table) -> Result<Vec<Range<usize>>> {
    let why = "it must give the number of rows of every episode; where there is an `ep_idx`, write \
               np.bincount(ep_idx)";
    let column = table.required("ep_len", 1, Class::Whole, why)?;
    let all = 0..column.rows();
    let lengths: Vec<i64> = column.read(&all)?;
    let offsets = match table.optional("ep_offset", 1, Class::Whole)? {
        Some(offsets) if offsets.rows() == all.end => Some(offsets.read::<i64>(&all)?),
        Some(offsets) => {
            let reason = format!("`ep_len` has {} entries, `ep_offset` {}", all.end, offsets.rows());
            return Err(table.fault(format!("{reason}; write one of each an episode")));
        }
        None => None,
    };
    let mut next = 0i64;
    let mut ranges = Vec::new();
    for (index, &length) in lengths.iter().enumerate() {
        let start = offsets.as_ref().map_or(next, |offsets| offsets[index]);
        next = start.saturating_add(length);
        match (usize::try_from(start), usize::try_from(next)) {
            (Ok(start), Ok(end)) if start < end => ranges.push(start..end),
            _ => {
                return Err(table.fault(format!(
                    "episode {index} has {length} rows from row {start} on; `ep_len` must be at least 1 and \
                     `ep_offset` at least 0"
                )));
            }
        }
    }
    Ok(ranges)
}

/// The columns that an import uses.
struct Columns<'a> {
    table: &'a Table,
    env: DomainRef,
    state: Column<'a>,
    action: Column<'a>,
    /// `render.pose`, `render.mark_count`, `render.marks`
    render: Option<[Column<'a>; 3]>,
    kind: Option<Column<'a>>,
    source: Option<Column<'a>>,
    seed: Option<Column<'a>>,
    factors: Vec<(&'static str, Column<'a>)>,
    pixels: Option<Column<'a>>,
}

impl<'a> Columns<'a> {
    fn find(table: &'a Table, options: ImportOptions) -> Result<Self> {
        let (env, spec) = (options.env, options.env.spec());
        let why = format!(
            "a store holds states and renders its frames, so pixels alone cannot be imported; record {}",
            spec.state.join(", ")
        );
        let width = table.any("state", Class::Real).map(|column| column.width()).ok();
        let fits = |other: &DomainRef| *other != env && Some(other.spec().state.len()) == width;
        if let Some(other) = domain::all().into_iter().find(fits).map(|other| other.spec()) {
            let (theirs, ours) = (other.state.len(), spec.state.len());
            let reason = format!("`state` has {theirs} values a row, as in {}, not {ours}", other.title);
            return Err(table.fault(format!("{reason} as in {}; give --env {}", spec.title, other.name)));
        }
        let state = table.required("state", spec.state.len(), Class::Real, &why)?;
        let why = "record the action taken in every row, NaN in an episode's last";
        let action = table.required("action", ACTION_DIM, Class::Real, why)?;
        let render = match (
            table.optional("render.pose", spec.look.len(), Class::Real)?,
            table.optional("render.mark_count", 1, Class::Whole)?,
            table.optional("render.marks", MAX_MARKS * 4, Class::Whole)?,
        ) {
            (Some(pose), Some(counts), Some(marks)) => Some([pose, counts, marks]),
            _ => None,
        };
        let mut factors = Vec::new();
        for factor in spec.factors {
            let name = format!("variation.{}", factor.name);
            let column = table.optional(&name, factor.len, Class::Number)?;
            factors.extend(column.map(|column| (factor.name, column)));
        }
        let pixels = match options.check_pixels || options.keep_pixels {
            true => Some(pixels(table)?),
            false => None,
        };
        let whole = |name| table.optional(name, 1, Class::Whole);
        let (kind, source, seed) = (whole("episode.kind")?, whole("episode.source")?, whole("episode.seed")?);
        Ok(Self { table, env, state, action, render, kind, source, seed, factors, pixels })
    }

    /// All of them.
    fn all(&self) -> impl Iterator<Item = &Column<'a>> {
        let single = [&self.kind, &self.source, &self.seed, &self.pixels].into_iter().flatten();
        let factors = self.factors.iter().map(|(_, column)| column);
        [&self.state, &self.action]
            .into_iter()
            .chain(self.render.iter().flatten())
            .chain(single)
            .chain(factors)
    }

    /// That every column has the rows up to `end`.
    fn check_rows(&self, end: usize) -> Result<()> {
        let short = |column: &&Column<'a>| column.rows() < end;
        let Some(column) = self.all().find(short) else { return Ok(()) };
        let (name, rows) = (&column.name, column.rows());
        Err(self.table.fault(format!(
            "column `{name}` has {rows} rows, but the episodes of `ep_len` and `ep_offset` reach to {end}; write \
             one row a step"
        )))
    }

    fn report(&self) -> ImportReport {
        let used = |name: &String| name.starts_with("ep_") || self.all().any(|column| column.name == *name);
        ImportReport {
            drawn_from: if self.render.is_some() { Drawn::Recorded } else { Drawn::States },
            factors: self.factors.len(),
            ignored: self.table.names().iter().filter(|name| !used(name)).cloned().collect(),
            ..ImportReport::default()
        }
    }

    fn episode(&self, index: usize, rows: &Range<usize>) -> Result<Episode> {
        let factors = self.scene(index, rows)?;
        let first = rows.start..rows.start + 1;
        let number = |column: &Option<Column<'_>>| -> Result<Option<u64>> {
            column.as_ref().map(|column| Ok(column.read::<u64>(&first)?[0])).transpose()
        };
        let kind = number(&self.kind)?.and_then(|code| Kind::ALL.get(usize::try_from(code).ok()?));
        let info = EpisodeInfo {
            env: self.env,
            kind: kind.copied().unwrap_or(Kind::Other),
            source: number(&self.source)?
                .unwrap_or_else(|| Stream::new(index as u64, "hdf5 episode", &[]).seed()),
            seed: number(&self.seed)?.unwrap_or(index as u64),
            factors,
        };
        let states = self.state.read::<f64>(rows)?;
        let states: Vec<Vec<f64>> = states.chunks_exact(self.state.width()).map(<[f64]>::to_vec).collect();
        let actions = self.action.read::<f64>(rows)?;
        let drawn = self.drawn(rows, &states, &info.factors)?;
        let mut rows: Vec<Row> = states
            .into_iter()
            .zip(actions.as_chunks::<ACTION_DIM>().0)
            .zip(drawn)
            .map(|((state, action), render)| Row { state, render, action: action.map(|v| v as f32) })
            .collect();
        // Nothing follows the last row; some writers leave a number there.
        if let Some(last) = rows.last_mut() {
            last.action = [f32::NAN; ACTION_DIM];
        }
        Ok(Episode { info, rows, pixels: None })
    }

    /// The factors of an episode: its columns' values, else the defaults.
    fn scene(&self, index: usize, rows: &Range<usize>) -> Result<Scene> {
        let mut changes = Changes::new();
        for (name, column) in &self.factors {
            let values = column.numbers(rows)?;
            let first = &values[..column.width()];
            if values.chunks_exact(first.len()).any(|row| row != first) {
                let reason = format!("episode {index}: `{}` changes within the episode", column.name);
                return Err(self.table.fault(format!("{reason}; split the episode where it changes")));
            }
            let change = ((*name).to_string(), first.to_vec());
            let alone = self.env.scene(&Changes::from([change.clone()]));
            alone.map_err(|e| self.table.fault(format!("episode {index}: column `{}`: {e}", column.name)))?;
            changes.extend([change]);
        }
        self.env.scene(&changes).map_err(|e| self.table.fault(format!("episode {index}: {e}")))
    }

    /// What the frames of these rows are drawn from.
    fn drawn(&self, rows: &Range<usize>, states: &[Vec<f64>], factors: &Scene) -> Result<Vec<Look>> {
        let Some([pose, counts, marks]) = &self.render else {
            return states.iter().map(|state| self.placed(state, factors)).collect();
        };
        let (poses, counts) = (pose.read::<f64>(rows)?, counts.read::<u64>(rows)?);
        let marks = marks.read::<i16>(rows)?;
        let parts = poses.chunks_exact(pose.width()).zip(counts).zip(marks.chunks_exact(MAX_MARKS * 4));
        let state = |((pose, count), marks): ((&[f64], u64), &[i16])| Look {
            values: pose.to_vec(),
            marks: marks.as_chunks().0.iter().take(count as usize).copied().collect::<Marks>(),
        };
        Ok(parts.map(state).collect())
    }

    /// The scene with the bodies of `state` at rest: a fresh world has no motion left, so that the one physics
    /// step of `set_state` moves nothing and finds the contacts of these poses.
    fn placed(&self, state: &[f64], factors: &Scene) -> Result<Look> {
        let (mut env, at_rest) = (self.env.build(factors), self.env.spec().at_rest(state));
        env.set_state(&at_rest).map_err(|e| self.table.fault(format!("column `state`: {e}")))?;
        Ok(env.look())
    }
}

/// The recorded frames.
fn pixels(table: &Table) -> Result<Column<'_>> {
    if !table.names().iter().any(|name| name == "pixels") {
        let reason = "it has no column `pixels` to check or to keep; leave the pixel options out";
        return Err(table.fault(reason.into()));
    }
    let column = table.any("pixels", Class::Byte)?;
    match column.shape[..] {
        [_, height, width, 3] if height > 0 && width > 0 => Ok(column),
        ref shape => {
            Err(table
                .fault(format!("column `pixels` has shape {shape:?}, expected rows x height x width x 3")))
        }
    }
}

/// Compares recorded frames with ours.
struct PixelCheck<'a> {
    pixels: &'a Column<'a>,
    source: FrameSource,
    ours: Vec<u8>,
}

impl<'a> PixelCheck<'a> {
    fn new(table: &Table, pixels: &'a Column<'a>) -> Result<Self> {
        let (height, width) = (pixels.shape[1], pixels.shape[2]);
        if height != width {
            let reason = format!("its frames are {width} x {height} pixels; only square ones can be checked");
            return Err(table.fault(reason));
        }
        let source = FrameSource::new(FrameSpec { resolution: height, filter: Filter::Linear });
        Ok(Self { pixels, source, ours: vec![0; height * width * 3] })
    }

    /// How many of the episode's recorded frames equal the rendered ones.
    fn identical(&mut self, index: usize, rows: &Range<usize>, episode: &Episode) -> Result<usize> {
        let mut identical = 0;
        for (block, drawn) in episode.rows.chunks(BLOCK).enumerate() {
            let start = rows.start + block * BLOCK;
            let recorded = self.pixels.bytes(&(start..start + drawn.len()))?;
            for (row, recorded) in drawn.iter().zip(recorded.chunks_exact(self.ours.len())) {
                let info = &episode.info;
                self.source.render(index, info.env, &info.factors, &row.render, &mut self.ours)?;
                identical += usize::from(recorded == self.ours);
            }
        }
        Ok(identical)
    }
}
