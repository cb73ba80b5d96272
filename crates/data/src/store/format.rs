//! Bytes of a store file; all numbers little-endian.
//!
//! ```text
//! file    "WBSTORE\0" | version u32 | name length u32 | name of the environment | record*
//! record  "\xF7EPISODE" | payload length u64 | payload crc32 u32 | crc32 of the 20 bytes before u32 | payload
//! payload info length u32 | rows u32 | pixel height u32 | pixel width u32 | info as JSON
//!         | row * rows | mark count u8 * rows | marks (4 x i16) | pixels
//! row     state n x f64 | render state m x f64 | action 2 x f32
//! ```
//!
//! How many numbers state and render state have is the environment's affair (for Push-T 7 and 6). Version 1 names none and
//! is Push-T's; version 2 names it.
//!
//! The record mark and the checksum of the record's head let `repair` find the next good record behind a
//! damaged one. Most rows have no contact mark, so marks are one stream with a count a row.

use serde::Deserialize;
use worldbench_env::{DomainRef, Look, Marks, domain};

use crate::episode::{ACTION_DIM, Episode, EpisodeInfo, Kind, Row};

pub(crate) const FILE_MAGIC: [u8; 8] = *b"WBSTORE\0";
/// Stores of the environment that needs no name, and of all others.
const VERSIONS: [u32; 2] = [1, 2];
const FILE_HEAD: usize = 16;
/// Longest name of an environment; a damaged head may claim any length.
const MAX_NAME: usize = 256;
pub(crate) const RECORD_MAGIC: [u8; 8] = *b"\xF7EPISODE";
pub(crate) const RECORD_HEAD: usize = 24;
const PAYLOAD_HEAD: usize = 16;
const MARK: usize = 8;

pub(crate) fn file_head(env: DomainRef) -> Vec<u8> {
    let unnamed = env == domain::all()[0];
    let (version, name) = if unnamed { (VERSIONS[0], "") } else { (VERSIONS[1], env.spec().name) };
    let mut head = FILE_MAGIC.to_vec();
    head.extend(version.to_le_bytes());
    head.extend((name.len() as u32).to_le_bytes());
    head.extend(name.as_bytes());
    head
}

/// The environment that the head of the file `bytes` names, and where the records begin; or what is wrong with it.
pub(crate) fn read_file_head(bytes: &[u8]) -> Result<(DomainRef, usize), String> {
    let short = "it is shorter than a file head; collect or import the data again";
    let head = bytes.get(..FILE_HEAD).ok_or(short)?;
    if head[..8] != FILE_MAGIC {
        return Err("its first bytes are not WBSTORE; give a .wbs file made by `worldbench collect`".into());
    }
    let (version, length) = (u32_at(head, 8).unwrap_or(0), u32_at(head, 12).unwrap_or(0) as usize);
    if version == VERSIONS[0] {
        return Ok((domain::all()[0], FILE_HEAD));
    }
    if version != VERSIONS[1] || length > MAX_NAME {
        let [first, last] = VERSIONS;
        return Err(format!(
            "format version {version}, expected {first} or {last}; use the version that wrote it"
        ));
    }
    let end = FILE_HEAD + length;
    let name = String::from_utf8_lossy(bytes.get(FILE_HEAD..end).ok_or(short)?).into_owned();
    let env = domain::find(&name)
        .ok_or_else(|| format!("it is of the environment `{name}`, which is not known here"))?;
    Ok((env, end))
}

/// Length and checksum of the payload that follows a record head.
pub(crate) struct RecordHead {
    pub length: usize,
    pub crc: u32,
}

impl RecordHead {
    pub fn encode(payload: &[u8]) -> [u8; RECORD_HEAD] {
        let mut head = [0; RECORD_HEAD];
        head[..8].copy_from_slice(&RECORD_MAGIC);
        head[8..16].copy_from_slice(&(payload.len() as u64).to_le_bytes());
        head[16..20].copy_from_slice(&crc32fast::hash(payload).to_le_bytes());
        let own = crc32fast::hash(&head[..20]);
        head[20..].copy_from_slice(&own.to_le_bytes());
        head
    }

    /// The head at the start of `bytes`, when it is complete and its checksum holds.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let head = bytes.get(..RECORD_HEAD)?;
        let intact = head[..8] == RECORD_MAGIC && crc32fast::hash(&head[..20]) == u32_at(head, 20)?;
        let length = u64::from_le_bytes(head[8..16].try_into().ok()?);
        intact.then_some(Self { length: usize::try_from(length).ok()?, crc: u32_at(head, 16)? })
    }
}

/// Encodes a checked episode; `Err` names what does not fit into the format.
pub(crate) fn encode(episode: &Episode) -> Result<Vec<u8>, String> {
    let info = info_text(&episode.info).map_err(|e| format!("its factors have no JSON form: {e}"))?;
    let (height, width) = episode.pixels.as_ref().map_or((0, 0), |p| (p.height, p.width));
    let row_bytes = Columns::of(episode.info.env).row();
    let mut out = Vec::with_capacity(PAYLOAD_HEAD + info.len() + episode.rows.len() * (row_bytes + 4));
    for value in [info.len(), episode.rows.len(), height, width] {
        let value = u32::try_from(value).map_err(|_| format!("{value} is too large a size"))?;
        out.extend(value.to_le_bytes());
    }
    out.extend(info.as_bytes());
    for row in &episode.rows {
        row.state.iter().chain(&row.render.values).for_each(|v| out.extend(v.to_le_bytes()));
        row.action.iter().for_each(|v| out.extend(v.to_le_bytes()));
    }
    for (t, row) in episode.rows.iter().enumerate() {
        let marks = row.render.marks.as_slice().len();
        out.push(u8::try_from(marks).map_err(|_| format!("row {t} has {marks} contact marks, at most 255"))?);
    }
    for mark in episode.rows.iter().flat_map(|row| row.render.marks.as_slice()) {
        mark.iter().for_each(|v| out.extend(v.to_le_bytes()));
    }
    out.extend(episode.pixels.iter().flat_map(|p| &p.data));
    Ok(out)
}

fn info_text(info: &EpisodeInfo) -> Result<String, serde_json::Error> {
    let (kind, factors) = (serde_json::to_string(&info.kind)?, info.env.write_scene(&info.factors)?);
    let EpisodeInfo { source, seed, .. } = info;
    Ok(format!("{{\"kind\":{kind},\"source\":{source},\"seed\":{seed},\"factors\":{factors}}}"))
}

#[derive(Deserialize)]
struct InfoText {
    kind: Kind,
    source: u64,
    seed: u64,
    factors: serde_json::Value,
}

fn read_info(env: DomainRef, text: &[u8]) -> Result<EpisodeInfo, serde_json::Error> {
    let InfoText { kind, source, seed, factors } = serde_json::from_slice(text)?;
    Ok(EpisodeInfo { env, kind, source, seed, factors: env.read_scene(factors)? })
}

/// Numbers of a row.
#[derive(Clone, Copy, Debug)]
struct Columns {
    state: usize,
    look: usize,
}

impl Columns {
    fn of(env: DomainRef) -> Self {
        Self { state: env.spec().state.len(), look: env.spec().look.len() }
    }

    /// Bytes of a row.
    fn row(self) -> usize {
        8 * (self.state + self.look) + 4 * ACTION_DIM
    }
}

/// Where the parts of an intact payload lie, counted from its start, and its decoded info.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub info: EpisodeInfo,
    pub rows: usize,
    pub height: usize,
    pub width: usize,
    columns: Columns,
    first_row: usize,
    counts: usize,
    marks: usize,
    pixels: usize,
}

impl Layout {
    /// Reads the layout and checks that the parts fill the payload exactly.
    pub fn read(env: DomainRef, payload: &[u8]) -> Result<Self, String> {
        let size = |i: usize| u32_at(payload, 4 * i).map(|v| v as usize).ok_or("has no payload head");
        let (info_len, rows, height, width) = (size(0)?, size(1)?, size(2)?, size(3)?);
        let first_row = PAYLOAD_HEAD + info_len;
        let info = payload.get(PAYLOAD_HEAD..first_row).ok_or("has no complete info")?;
        let info = read_info(env, info).map_err(|e| format!("has unreadable info: {e}"))?;
        let columns = Columns::of(env);
        let counts = first_row + rows * columns.row();
        let marks = counts + rows;
        let total: usize =
            payload.get(counts..marks).ok_or("has too few rows")?.iter().map(|&c| usize::from(c)).sum();
        let pixels = marks + total * MARK;
        let end = rows.checked_mul(height * width * 3).and_then(|n| n.checked_add(pixels));
        if rows == 0 || end != Some(payload.len()) {
            return Err("has parts that do not fill its payload".into());
        }
        Ok(Self { info, rows, height, width, columns, first_row, counts, marks, pixels })
    }

    /// `count` numbers of `row` from column `first` on.
    fn numbers(&self, payload: &[u8], row: usize, first: usize, count: usize) -> Vec<f64> {
        let at = self.first_row + row * self.columns.row() + 8 * first;
        let bytes = payload.get(at..at + 8 * count).unwrap_or_default();
        bytes.as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect()
    }

    /// Observed state of `row`.
    pub fn state(&self, payload: &[u8], row: usize) -> Vec<f64> {
        self.numbers(payload, row, 0, self.columns.state)
    }

    /// Action of `row`.
    pub fn action(&self, payload: &[u8], row: usize) -> [f32; ACTION_DIM] {
        let at = self.first_row + (row + 1) * self.columns.row() - 4 * ACTION_DIM;
        std::array::from_fn(|i| u32_at(payload, at + 4 * i).map_or(f32::NAN, f32::from_bits))
    }

    /// What the frame of `row` is a function of.
    pub fn render(&self, payload: &[u8], row: usize) -> Look {
        let counts = &payload[self.counts..self.marks];
        let before: usize = counts[..row].iter().map(|&c| usize::from(c)).sum();
        let start = self.marks + before * MARK;
        let marks = payload[start..start + usize::from(counts[row]) * MARK].chunks_exact(MARK);
        let decode =
            |mark: &[u8]| std::array::from_fn(|i| i16::from_le_bytes([mark[2 * i], mark[2 * i + 1]]));
        let values = self.numbers(payload, row, self.columns.state, self.columns.look);
        Look { values, marks: marks.map(decode).collect::<Marks>() }
    }

    /// Stored frame of `row`; empty where the episode has no pixel column.
    pub fn frame<'a>(&self, payload: &'a [u8], row: usize) -> &'a [u8] {
        let size = self.height * self.width * 3;
        &payload[self.pixels + row * size..][..size]
    }

    /// Number of rows with at least one contact mark.
    pub fn contact_rows(&self, payload: &[u8]) -> usize {
        payload[self.counts..self.marks].iter().filter(|&&c| c > 0).count()
    }

    /// All three columns of `row`.
    pub fn row(&self, payload: &[u8], row: usize) -> Row {
        Row {
            state: self.state(payload, row),
            render: self.render(payload, row),
            action: self.action(payload, row),
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}
