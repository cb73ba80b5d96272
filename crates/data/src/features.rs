//! Frozen features on disk: what a frozen encoder makes of a store's frames, computed once.
//!
//! A cache holds the tokens of every `stride`-th row of all episodes as f16, `[frames, P, F]`, between a header that
//! names encoder, data and layout and a checksum of everything before. It is written front to back under another name
//! and renamed when complete; a build that was killed goes on after its last whole frame.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use half::f16;
use half::slice::HalfFloatSliceExt;
use memmap2::Mmap;
use serde::{Deserialize, Serialize};

use crate::error::{DataError, Result};
use crate::frames::FrameSource;
use crate::loader::FrameSpec;
use crate::mmap;
use crate::store::Store;

/// Bytes before the features.
const HEAD: usize = 512;
/// Bytes of the checksum (crc32) behind them.
const TAIL: usize = 4;
/// Frames that are encoded at a time.
const BATCH: usize = 64;

/// What a cache holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureSpec {
    /// Fingerprint of the encoder.
    pub encoder: String,
    /// Hash of the store.
    pub data: String,
    /// Rows between two frames, from row 0 of every episode.
    pub stride: usize,
    /// Tokens of a frame, P.
    pub tokens: usize,
    /// Width of a token, F.
    pub width: usize,
}

impl FeatureSpec {
    /// Values of a frame.
    #[must_use]
    pub fn frame_len(&self) -> usize {
        self.tokens * self.width
    }

    /// Where the cache of `store` lies: beside the store, under a name that tells encoder and stride.
    #[must_use]
    pub fn path(&self, store: &Path) -> PathBuf {
        let encoder = &self.encoder[..self.encoder.len().min(12)];
        let mut name = store.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".features-{encoder}-{}", self.stride));
        store.with_file_name(name)
    }

    /// Size in bytes of a cache with `frames` frames.
    #[must_use]
    pub fn bytes(&self, frames: usize) -> u64 {
        (self.end(frames) + TAIL) as u64
    }

    /// Where the features of `frames` frames end in the file.
    fn end(&self, frames: usize) -> usize {
        HEAD + frames * self.frame_len() * 2
    }

    fn header(&self) -> Result<[u8; HEAD]> {
        let text = serde_json::to_vec(self).map_err(|e| DataError::Invalid(e.to_string()))?;
        let mut head = [b' '; HEAD];
        match head.get_mut(..text.len()) {
            Some(room) => room.copy_from_slice(&text),
            None => return Err(DataError::Invalid("feature cache: the encoder's name is too long".into())),
        }
        Ok(head)
    }
}

/// Index of every episode's first cached frame, and the number of all frames.
fn layout(store: &Store, stride: usize) -> (Vec<usize>, usize) {
    let mut total = 0;
    let first = store.views().map(|view| {
        total += view.len().div_ceil(stride);
        total - view.len().div_ceil(stride)
    });
    (first.collect(), total)
}

/// Frames that a cache of `store` would hold.
#[must_use]
pub fn frames(store: &Store, stride: usize) -> usize {
    layout(store, stride.max(1)).1
}

/// Turns frames `[R, R, 3]` into features `[B, P, F]`, or says why not.
pub type Encode<'a> = dyn FnMut(&[&[u8]], &mut [f32]) -> std::result::Result<(), String> + 'a;

/// A complete cache, mapped into memory.
#[derive(Debug)]
pub struct Features {
    spec: FeatureSpec,
    first: Vec<usize>,
    map: Mmap,
}

impl Features {
    /// Opens the cache at `path`, after making or completing it with `encode` from frames as `frame` says. `progress`
    /// gets the frames done and the number of all.
    ///
    /// # Errors
    /// When the file belongs to something else, cannot be written, or the encoder fails.
    pub fn open_or_make(
        path: &Path,
        spec: &FeatureSpec,
        store: &Store,
        frame: FrameSpec,
        encode: &mut Encode,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        if spec.stride == 0 {
            return Err(DataError::Invalid("feature cache: the stride must be at least 1".into()));
        }
        if !path.exists() {
            make(path, spec, store, frame, encode, progress)?;
        }
        let map = mmap::map(path)?;
        let (first, total) = layout(store, spec.stride);
        let refuse = |reason: &str| {
            let remedy = "delete it, it is made again";
            Err(DataError::Invalid(format!("feature cache {}: {reason}; {remedy}", path.display())))
        };
        if map.get(..HEAD) != Some(&spec.header()?[..]) || map.len() as u64 != spec.bytes(total) {
            return refuse("it was made from other data, by another encoder or by another version");
        }
        let (content, checksum) = map.split_at(spec.end(total));
        if crc32fast::hash(content).to_le_bytes() != checksum {
            return refuse("it fails its checksum");
        }
        Ok(Self { spec: spec.clone(), first, map })
    }

    /// Writes the features of `row` of `episode` to `out`, `[P, F]`.
    ///
    /// # Errors
    /// When the row is not cached.
    pub fn read(&self, episode: usize, row: usize, out: &mut [f32]) -> Result<()> {
        let len = self.spec.frame_len();
        let at = self.first.get(episode).filter(|_| row.is_multiple_of(self.spec.stride));
        let bytes = at.and_then(|first| {
            let start = self.spec.end(first + row / self.spec.stride);
            self.map.get(start..start + len * 2)
        });
        let Some(bytes) = bytes.filter(|_| out.len() == len) else {
            let stride = self.spec.stride;
            let reason = format!("row {row} of episode {episode} is not cached; the stride is {stride}");
            return Err(DataError::Invalid(format!("feature cache: {reason}")));
        };
        let (values, _) = bytes.as_chunks::<2>();
        let mut halves = [f16::ZERO; 256];
        for (values, out) in values.chunks(256).zip(out.chunks_mut(256)) {
            halves.iter_mut().zip(values).for_each(|(half, bytes)| *half = f16::from_le_bytes(*bytes));
            halves[..out.len()].convert_to_f32_slice(out);
        }
        Ok(())
    }
}

fn make(
    path: &Path,
    spec: &FeatureSpec,
    store: &Store,
    frame: FrameSpec,
    encode: &mut Encode,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<()> {
    let mut temporary = path.as_os_str().to_os_string();
    temporary.push(".part");
    let temporary = PathBuf::from(temporary);
    let total = layout(store, spec.stride).1;
    let (mut file, done) = begin(&temporary, spec, total)?;
    let rows = store
        .views()
        .enumerate()
        .flat_map(|(e, view)| (0..view.len()).step_by(spec.stride).map(move |row| (e, row)));
    let rows: Vec<(usize, usize)> = rows.skip(done).collect();
    let size = frame.resolution.pow(2) * 3;
    let mut source = FrameSource::new(frame);
    let mut pixels = vec![0; BATCH * size];
    let mut features = vec![0.0f32; BATCH * spec.frame_len()];
    let mut bytes = Vec::new();
    let mut count = done;
    for rows in rows.chunks(BATCH) {
        for (&(episode, row), out) in rows.iter().zip(pixels.chunks_exact_mut(size)) {
            source.write(episode, &store.view(episode)?, row, out)?;
        }
        let frames: Vec<&[u8]> = pixels.chunks_exact(size).take(rows.len()).collect();
        let out = &mut features[..rows.len() * spec.frame_len()];
        encode(&frames, out).map_err(DataError::Invalid)?;
        bytes.clear();
        bytes.extend(out.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()));
        file.write_all(&bytes).map_err(DataError::io("write", &temporary))?;
        count += rows.len();
        progress(count, total);
    }
    let checksum = crc32fast::hash(&mmap::map(&temporary)?).to_le_bytes();
    file.write_all(&checksum).map_err(DataError::io("write", &temporary))?;
    file.sync_all().map_err(DataError::io("write", &temporary))?;
    fs::rename(&temporary, path).map_err(DataError::io("rename", &temporary))
}

/// The unfinished file, cut to whole frames, of `total`, and how many it holds. One with another header is begun anew.
fn begin(path: &Path, spec: &FeatureSpec, total: usize) -> Result<(File, usize)> {
    let header = spec.header()?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let mut file = options.open(path).map_err(DataError::io("open", path))?;
    let mut found = [0; HEAD];
    let same = file.read_exact(&mut found).is_ok() && found == header;
    let io = |e| DataError::io("write", path)(e);
    let len = file.metadata().map_err(io)?.len() as usize;
    let done = if same { total.min((len - HEAD) / (spec.frame_len() * 2)) } else { 0 };
    file.set_len(if same { spec.end(done) as u64 } else { 0 }).map_err(io)?;
    let mut file = OpenOptions::new().append(true).open(path).map_err(DataError::io("open", path))?;
    if !same {
        file.write_all(&header).map_err(io)?;
    }
    Ok((file, done))
}

#[cfg(test)]
mod tests {
    use worldbench_env::raster::Filter;

    use super::*;
    use crate::testing::{episode, store};

    const FRAME: FrameSpec = FrameSpec { resolution: 32, filter: Filter::Area };

    fn spec(store: &Store) -> FeatureSpec {
        FeatureSpec { encoder: "abc".into(), data: store.hash(), stride: 5, tokens: 2, width: 3 }
    }

    /// Means of frames, told apart by token and channel.
    fn encode(frames: &[&[u8]], out: &mut [f32]) -> std::result::Result<(), String> {
        for (frame, out) in frames.iter().zip(out.chunks_exact_mut(6)) {
            let mean = frame.iter().map(|&v| f32::from(v)).sum::<f32>() / frame.len() as f32;
            out.iter_mut().enumerate().for_each(|(i, v)| *v = mean + 1000.0 * i as f32);
        }
        Ok(())
    }

    #[test]
    fn a_killed_build_goes_on_and_gives_the_same_bytes() {
        let episodes: Vec<_> = (0..30).map(|i| episode(i, i, 20 + i as usize)).collect();
        let (guard, store) = store(&episodes);
        let spec = spec(&store);
        let (whole, broken) = (guard.path().join("a"), guard.path().join("b"));
        let mut quiet = |_: usize, _: usize| ();
        let features = Features::open_or_make(&whole, &spec, &store, FRAME, &mut encode, &mut quiet).unwrap();
        let mut calls = 0;
        let mut failing = |frames: &[&[u8]], out: &mut [f32]| {
            calls += 1;
            if calls == 3 { Err("killed".into()) } else { encode(frames, out) }
        };
        assert!(Features::open_or_make(&broken, &spec, &store, FRAME, &mut failing, &mut quiet).is_err());
        // A half-written frame at the end is cut off.
        let part = broken.with_extension("part");
        OpenOptions::new().append(true).open(&part).unwrap().write_all(&[7; 5]).unwrap();
        let mut first = None;
        let mut note = |done: usize, _: usize| {
            first.get_or_insert(done);
        };
        Features::open_or_make(&broken, &spec, &store, FRAME, &mut encode, &mut note).unwrap();
        assert_eq!(first, Some(3 * BATCH));
        assert_eq!(fs::read(&whole).unwrap(), fs::read(&broken).unwrap());
        let mut out = [0.0; 6];
        features.read(7, 15, &mut out).unwrap();
        let frame = store.frame(7, 15, FRAME).unwrap();
        let mut expected = [0.0; 6];
        encode(&[&frame], &mut expected).unwrap();
        assert!(out.iter().zip(expected).all(|(a, b)| (a - b).abs() <= b / 1024.0), "{out:?} {expected:?}");
        assert!(features.read(7, 16, &mut out).unwrap_err().to_string().contains("stride is 5"));
        let other = FeatureSpec { encoder: "abd".into(), ..spec.clone() };
        let error = Features::open_or_make(&whole, &other, &store, FRAME, &mut encode, &mut quiet);
        assert!(error.unwrap_err().to_string().contains("another encoder"));
        let mut damaged = fs::read(&whole).unwrap();
        damaged[HEAD + 99] ^= 1;
        fs::write(&broken, damaged).unwrap();
        let error = Features::open_or_make(&broken, &spec, &store, FRAME, &mut encode, &mut quiet);
        assert!(error.unwrap_err().to_string().contains("fails its checksum"));
    }
}
