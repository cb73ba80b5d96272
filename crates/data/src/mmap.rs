//! The one place where a file is mapped into memory.

use std::{fs::File, path::Path};

use memmap2::Mmap;

use crate::error::{DataError, Result};

/// Maps the whole file read-only. Pages are loaded when first touched and shared between threads.
pub(crate) fn map(path: &Path) -> Result<Mmap> {
    let file = File::open(path).map_err(DataError::io("open", path))?;
    // SAFETY: the map is read-only and private to this process. Stores are append-only and `repair` replaces
    // a file by renaming, so the mapped bytes are never rewritten or cut off by worldbench while mapped; no
    // reference into the map is handed out without a bounds check against the mapped length.
    #[allow(unsafe_code)]
    unsafe { Mmap::map(&file) }.map_err(DataError::io("map", path))
}
