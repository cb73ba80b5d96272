use std::{fs::File, io::Write, path::Path};

use super::{
    format::{self, RECORD_HEAD, RECORD_MAGIC, RecordHead},
    read_record,
};
use crate::{
    error::{DataError, Result},
    mmap,
};

/// A stretch of the file that `repair` left out.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Dropped {
    /// How many good episodes stand before it.
    pub after_episode: usize,
    /// Position in the old file.
    pub offset: usize,
    /// Length in bytes.
    pub bytes: usize,
    /// What was wrong.
    pub reason: String,
}

/// What `repair` found.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct RepairReport {
    /// Good episodes, all kept in their order.
    pub kept: usize,
    /// Everything left out.
    pub dropped: Vec<Dropped>,
}

/// Keeps the good episodes of the store at `path` and drops the rest.
///
/// The good records are written to `PATH.repair` and renamed over the old file; an intact file is not touched.
///
/// # Errors
/// When the file is no store or cannot be read or written.
pub fn repair(path: impl AsRef<Path>) -> Result<RepairReport> {
    let path = path.as_ref();
    let map = mmap::map(path)?;
    let (env, mut at) =
        format::read_file_head(&map).map_err(|reason| DataError::NotAStore { path: path.into(), reason })?;
    let mut report = RepairReport::default();
    let mut good = Vec::new();
    while at < map.len() {
        match read_record(env, &map, at) {
            Ok((payload, _)) => {
                report.kept += 1;
                good.push(at..payload.end);
                at = payload.end;
            }
            Err(fault) => {
                let next = next_record(&map, at + 1);
                let reason = fault.to_string();
                let dropped = Dropped { after_episode: report.kept, offset: at, bytes: next - at, reason };
                report.dropped.push(dropped);
                at = next;
            }
        }
    }
    if report.dropped.is_empty() {
        return Ok(report);
    }
    let temporary = path.with_added_extension("repair");
    let mut file = File::create(&temporary).map_err(DataError::io("create", &temporary))?;
    let mut write = |bytes: &[u8]| file.write_all(bytes).map_err(DataError::io("write", &temporary));
    write(&format::file_head(env))?;
    for record in good {
        write(&map[record])?;
    }
    file.sync_all().map_err(DataError::io("flush", &temporary))?;
    drop(map);
    std::fs::rename(&temporary, path).map_err(DataError::io("replace", path))?;
    Ok(report)
}

/// The next place from `from` on where a record head stands, or the end of the file. Only heads with a valid
/// checksum count: a payload may hold the mark's bytes by chance.
fn next_record(bytes: &[u8], from: usize) -> usize {
    let candidates = bytes[from..].windows(RECORD_HEAD).enumerate();
    candidates
        .filter(|(_, window)| window.starts_with(&RECORD_MAGIC))
        .find(|(_, window)| RecordHead::decode(window).is_some())
        .map_or(bytes.len(), |(i, _)| from + i)
}
