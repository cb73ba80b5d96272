//! The native store: one append-only file, one checksummed record an episode, **states instead of pixels**.
//!
//! A frame is a function of a few numbers: in Push-T the agent position, the block's centre of gravity and raw angle, the
//! factor values and the contact marks of the last physics step. Storing these takes about 120 bytes a row instead
//! of 150,528, and the frame rendered from them is byte-identical to the live one. The layout is described in
//! `format.rs`.

mod format;
mod repair;
mod writer;

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use memmap2::Mmap;
use worldbench_env::{DomainRef, Look, PROPRIO};

pub use repair::{Dropped, RepairReport, repair};
pub use writer::StoreWriter;

use crate::{
    episode::{ACTION_DIM, Episode, EpisodeInfo, Kind, Pixels, Row},
    error::{DataError, Result},
    mmap,
};
use format::{Layout, RECORD_HEAD, RecordHead};

/// A store opened for reading. The file is mapped; rows are decoded when asked for. Share it between threads
/// in an `Arc`.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    env: DomainRef,
    map: Mmap,
    episodes: Vec<(Range<usize>, Layout)>,
    /// Where the last of them ends in the file.
    end: usize,
    hash: u64,
}

impl Store {
    /// Opens and verifies every record (about a gigabyte a second).
    ///
    /// # Errors
    /// When the file cannot be read, is no store, or an episode is incomplete or damaged; the message names
    /// the first bad episode.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::read(path.as_ref(), false)
    }

    /// As [`Store::open`], without the record at the end that a killed writer left incomplete; the file is not touched.
    ///
    /// # Errors
    /// As [`Store::open`] in every other case.
    pub fn open_unfinished(path: impl AsRef<Path>) -> Result<Self> {
        Self::read(path.as_ref(), true)
    }

    fn read(path: &Path, unfinished: bool) -> Result<Self> {
        let path = path.to_path_buf();
        let map = mmap::map(&path)?;
        let (env, mut at) = match format::read_file_head(&map) {
            Ok(found) => found,
            Err(reason) => return Err(DataError::NotAStore { path, reason }),
        };
        let mut episodes = Vec::new();
        let mut hash = Hash::default();
        while at < map.len() {
            match read_record(env, &map, at) {
                Ok((payload, layout)) => {
                    hash.update(&map[payload.clone()]);
                    at = payload.end;
                    episodes.push((payload, layout));
                }
                Err(Fault::CutOff) if unfinished => break,
                Err(fault) => {
                    let (episode, reason) = (episodes.len(), fault.to_string());
                    return Err(DataError::Damaged { path, episode, reason });
                }
            }
        }
        Ok(Self { path, env, map, episodes, end: at, hash: hash.finish() })
    }

    /// The file this store was read from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The environment of all its episodes.
    #[must_use]
    pub fn env(&self) -> DomainRef {
        self.env
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

    /// Cheap access to episode `index` without decoding it.
    ///
    /// # Errors
    /// When there is no such episode.
    pub fn view(&self, index: usize) -> Result<EpisodeView<'_>> {
        let (range, layout) = self.episodes.get(index).ok_or_else(|| {
            let path = self.path.display();
            DataError::Invalid(format!("{path} has no episode {index}; it holds {}", self.len()))
        })?;
        Ok(EpisodeView { payload: &self.map[range.clone()], layout })
    }

    /// Episode `index`, decoded.
    ///
    /// # Errors
    /// When there is no such episode.
    pub fn episode(&self, index: usize) -> Result<Episode> {
        Ok(self.view(index)?.decode())
    }

    /// Views of all episodes in file order.
    pub fn views(&self) -> impl Iterator<Item = EpisodeView<'_>> {
        self.episodes.iter().map(|(range, layout)| EpisodeView { payload: &self.map[range.clone()], layout })
    }

    /// Content hash of all episodes in order, as 16 hex digits, for provenance (not for security).
    #[must_use]
    pub fn hash(&self) -> String {
        format!("{:016x}", self.hash)
    }

    /// Counts and ranges over the whole store.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        let mut stats = StoreStats::new(self.map.len(), self.env.spec().state.len());
        self.views().for_each(|view| stats.add(&view));
        stats
    }
}

/// One episode of a [`Store`], read in place.
#[derive(Clone, Copy, Debug)]
pub struct EpisodeView<'a> {
    payload: &'a [u8],
    layout: &'a Layout,
}

impl<'a> EpisodeView<'a> {
    /// Kind, source, seed and factors.
    #[must_use]
    pub fn info(&self) -> &'a EpisodeInfo {
        &self.layout.info
    }

    /// Number of rows: env steps plus one.
    #[must_use]
    #[allow(clippy::len_without_is_empty)] // an episode has at least its reset row
    pub fn len(&self) -> usize {
        self.layout.rows
    }

    /// Observed state of `row`. Like every accessor here it panics when `row >= len()`.
    #[must_use]
    pub fn state(&self, row: usize) -> Vec<f64> {
        self.guard(row);
        self.layout.state(self.payload, row)
    }

    /// Agent position and velocity of `row`; 0 where the environment has none.
    #[must_use]
    pub fn proprio(&self, row: usize) -> [f64; PROPRIO] {
        self.info().env.spec().proprioception(&self.state(row))
    }

    /// Action of `row`; NaN in the last one.
    #[must_use]
    pub fn action(&self, row: usize) -> [f32; ACTION_DIM] {
        self.guard(row);
        self.layout.action(self.payload, row)
    }

    /// What the frame of `row` is a function of, beside the factors.
    #[must_use]
    pub fn render(&self, row: usize) -> Look {
        self.guard(row);
        self.layout.render(self.payload, row)
    }

    /// State, render state and action of `row`.
    #[must_use]
    pub fn row(&self, row: usize) -> Row {
        self.guard(row);
        self.layout.row(self.payload, row)
    }

    /// Height and width of the stored frames; `None` where frames are rendered.
    #[must_use]
    pub fn pixel_shape(&self) -> Option<(usize, usize)> {
        let shape = (self.layout.height, self.layout.width);
        (shape != (0, 0)).then_some(shape)
    }

    /// Stored frame of `row`, `height * width * 3` RGB bytes; `None` where frames are rendered.
    #[must_use]
    pub fn frame(&self, row: usize) -> Option<&'a [u8]> {
        self.guard(row);
        self.pixel_shape().map(|_| self.layout.frame(self.payload, row))
    }

    /// The whole episode, decoded.
    #[must_use]
    pub fn decode(&self) -> Episode {
        let rows = (0..self.len()).map(|t| self.row(t)).collect();
        let pixels = self.pixel_shape().map(|(height, width)| Pixels {
            height,
            width,
            data: (0..self.len()).flat_map(|t| self.layout.frame(self.payload, t)).copied().collect(),
        });
        Episode { info: self.info().clone(), rows, pixels }
    }

    fn guard(&self, row: usize) {
        assert!(row < self.len(), "row {row} of an episode with {} rows", self.len());
    }
}

/// Counts and ranges of a store, for `data stats`.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct StoreStats {
    /// Size of the file.
    pub bytes: usize,
    /// Number of episodes.
    pub episodes: usize,
    /// Number of rows over all episodes.
    pub rows: usize,
    /// Shortest and longest episode in rows.
    pub length: Option<(usize, usize)>,
    /// Number of distinct source episodes.
    pub sources: usize,
    /// Episodes of each kind.
    pub kinds: std::collections::BTreeMap<Kind, usize>,
    /// Rows with at least one contact mark.
    pub contact_rows: usize,
    /// Smallest and largest value of each state column; infinite while empty.
    pub state_range: Vec<(f64, f64)>,
    #[serde(skip)]
    seen: std::collections::HashSet<u64>,
}

impl StoreStats {
    fn new(bytes: usize, state: usize) -> Self {
        Self {
            bytes,
            episodes: 0,
            rows: 0,
            length: None,
            sources: 0,
            kinds: Default::default(),
            contact_rows: 0,
            state_range: vec![(f64::INFINITY, f64::NEG_INFINITY); state],
            seen: Default::default(),
        }
    }

    fn add(&mut self, view: &EpisodeView<'_>) {
        let len = view.len();
        self.episodes += 1;
        self.rows += len;
        self.length = Some(self.length.map_or((len, len), |(lo, hi)| (lo.min(len), hi.max(len))));
        self.seen.insert(view.info().source);
        self.sources = self.seen.len();
        *self.kinds.entry(view.info().kind).or_default() += 1;
        self.contact_rows += view.layout.contact_rows(view.payload);
        for t in 0..len {
            for (range, value) in self.state_range.iter_mut().zip(view.state(t)) {
                *range = (range.0.min(value), range.1.max(value));
            }
        }
    }
}

/// What is wrong with a record.
#[derive(Debug, thiserror::Error)]
enum Fault {
    /// The file ends within it.
    #[error("is incomplete (the writer was stopped)")]
    CutOff,
    /// Its bytes are not those that were written.
    #[error("{0}")]
    Damaged(String),
}

/// The payload's place and layout of the record that starts at `at`, or what is wrong with it.
fn read_record(
    env: DomainRef,
    bytes: &[u8],
    at: usize,
) -> std::result::Result<(Range<usize>, Layout), Fault> {
    let damaged = |reason: &str| Fault::Damaged(reason.into());
    let rest = &bytes[at..];
    if rest.len() < RECORD_HEAD {
        return Err(Fault::CutOff);
    }
    let head = RecordHead::decode(rest).ok_or_else(|| damaged("has a damaged record head"))?;
    let payload = rest[RECORD_HEAD..].get(..head.length).ok_or(Fault::CutOff)?;
    if crc32fast::hash(payload) != head.crc {
        return Err(damaged("fails its checksum"));
    }
    let start = at + RECORD_HEAD;
    Ok((start..start + head.length, Layout::read(env, payload).map_err(Fault::Damaged)?))
}

/// 64-bit content hash: words are folded in by xor, multiply and rotate, lengths included.
struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0x9E37_79B9_7F4A_7C15)
    }
}

impl Hash {
    fn word(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0xD6E8_FEB8_6659_FD93).rotate_left(29);
    }

    fn update(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
    }

    fn finish(mut self) -> u64 {
        self.word(self.0 >> 32);
        self.0
    }
}

#[cfg(test)]
mod tests;
