//! Bytes of a store file; all numbers little-endian.
//!
//! ```text
//! file    "WBSTORE\0" | version u32 | 0 u32 | record*
//! record  "\xF7EPISODE" | payload length u64 | payload crc32 u32 | crc32 of the 20 bytes before u32 | payload
//! payload info length u32 | rows u32 | pixel height u32 | pixel width u32 | info as JSON
//!         | row * rows | mark count u8 * rows | marks (4 x i16) | pixels
//! row     state 7 x f64 | agent x, y, angle, block cog x, y, raw angle 6 x f64 | action 2 x f32
//! ```
//!
//! The record mark and the checksum of the record's head let `repair` find the next good record behind a
//! damaged one. Most rows have no contact mark, so marks are one stream with a count a row.

use worldbench_env::render_state::{Marks, RenderState};

use crate::episode::{ACTION_DIM, Episode, EpisodeInfo, Row, STATE_DIM};

pub(crate) const FILE_MAGIC: [u8; 8] = *b"WBSTORE\0";
pub(crate) const VERSION: u32 = 1;
pub(crate) const FILE_HEAD: usize = 16;
pub(crate) const RECORD_MAGIC: [u8; 8] = *b"\xF7EPISODE";
pub(crate) const RECORD_HEAD: usize = 24;
const PAYLOAD_HEAD: usize = 16;
const POSE_DIM: usize = 6;
const ROW: usize = 8 * (STATE_DIM + POSE_DIM) + 4 * ACTION_DIM;
const MARK: usize = 8;

pub(crate) fn file_head() -> [u8; FILE_HEAD] {
    let mut head = [0; FILE_HEAD];
    head[..8].copy_from_slice(&FILE_MAGIC);
    head[8..12].copy_from_slice(&VERSION.to_le_bytes());
    head
}

/// Says why `bytes` does not start with a file head of this version; `None` when it does.
pub(crate) fn file_head_fault(bytes: &[u8]) -> Option<String> {
    match bytes.get(..FILE_HEAD) {
        None => Some("it is shorter than a file head; collect or import the data again".into()),
        Some(head) if head[..8] != FILE_MAGIC => {
            Some("its first bytes are not WBSTORE; give a .wbs file made by `worldbench collect`".into())
        }
        Some(head) if head[8..12] != VERSION.to_le_bytes() => {
            let found = u32_at(head, 8).unwrap_or(0);
            Some(format!("format version {found}, expected {VERSION}; use the version that wrote it"))
        }
        Some(_) => None,
    }
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
    let info =
        serde_json::to_vec(&episode.info).map_err(|e| format!("its factors have no JSON form: {e}"))?;
    let (height, width) = episode.pixels.as_ref().map_or((0, 0), |p| (p.height, p.width));
    let mut out = Vec::with_capacity(PAYLOAD_HEAD + info.len() + episode.rows.len() * (ROW + 4));
    for value in [info.len(), episode.rows.len(), height, width] {
        let value = u32::try_from(value).map_err(|_| format!("{value} is too large a size"))?;
        out.extend(value.to_le_bytes());
    }
    out.extend(info);
    for row in &episode.rows {
        row.state.iter().chain(&pose(&row.render)).for_each(|v| out.extend(v.to_le_bytes()));
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

fn pose(render: &RenderState) -> [f64; POSE_DIM] {
    let RenderState { agent, agent_angle, block_cog, block_angle, .. } = render;
    [agent[0], agent[1], *agent_angle, block_cog[0], block_cog[1], *block_angle]
}

/// Where the parts of an intact payload lie, counted from its start, and its decoded info.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub info: EpisodeInfo,
    pub rows: usize,
    pub height: usize,
    pub width: usize,
    first_row: usize,
    counts: usize,
    marks: usize,
    pixels: usize,
}

impl Layout {
    /// Reads the layout and checks that the parts fill the payload exactly.
    pub fn read(payload: &[u8]) -> Result<Self, String> {
        let size = |i: usize| u32_at(payload, 4 * i).map(|v| v as usize).ok_or("has no payload head");
        let (info_len, rows, height, width) = (size(0)?, size(1)?, size(2)?, size(3)?);
        let first_row = PAYLOAD_HEAD + info_len;
        let info = payload.get(PAYLOAD_HEAD..first_row).ok_or("has no complete info")?;
        let info = serde_json::from_slice(info).map_err(|e| format!("has unreadable info: {e}"))?;
        let counts = first_row + rows * ROW;
        let marks = counts + rows;
        let total: usize =
            payload.get(counts..marks).ok_or("has too few rows")?.iter().map(|&c| usize::from(c)).sum();
        let pixels = marks + total * MARK;
        let end = rows.checked_mul(height * width * 3).and_then(|n| n.checked_add(pixels));
        if rows == 0 || end != Some(payload.len()) {
            return Err("has parts that do not fill its payload".into());
        }
        Ok(Self { info, rows, height, width, first_row, counts, marks, pixels })
    }

    fn f64_at(&self, payload: &[u8], row: usize, column: usize) -> f64 {
        let at = self.first_row + row * ROW + 8 * column;
        payload.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(f64::NAN, f64::from_le_bytes)
    }

    /// Observed state of `row`.
    pub fn state(&self, payload: &[u8], row: usize) -> [f64; STATE_DIM] {
        std::array::from_fn(|i| self.f64_at(payload, row, i))
    }

    /// Action of `row`.
    pub fn action(&self, payload: &[u8], row: usize) -> [f32; ACTION_DIM] {
        let at = self.first_row + row * ROW + 8 * (STATE_DIM + POSE_DIM);
        std::array::from_fn(|i| u32_at(payload, at + 4 * i).map_or(f32::NAN, f32::from_bits))
    }

    /// What the frame of `row` is a function of.
    pub fn render(&self, payload: &[u8], row: usize) -> RenderState {
        let pose: [f64; POSE_DIM] = std::array::from_fn(|i| self.f64_at(payload, row, STATE_DIM + i));
        let counts = &payload[self.counts..self.marks];
        let before: usize = counts[..row].iter().map(|&c| usize::from(c)).sum();
        let start = self.marks + before * MARK;
        let marks = payload[start..start + usize::from(counts[row]) * MARK].chunks_exact(MARK);
        let decode =
            |mark: &[u8]| std::array::from_fn(|i| i16::from_le_bytes([mark[2 * i], mark[2 * i + 1]]));
        RenderState {
            agent: [pose[0], pose[1]],
            agent_angle: pose[2],
            block_cog: [pose[3], pose[4]],
            block_angle: pose[5],
            marks: marks.map(decode).collect::<Marks>(),
        }
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
