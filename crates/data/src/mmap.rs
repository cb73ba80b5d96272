//! The one place where a file is mapped into memory.

use std::{fs::File, path::Path};

use memmap2::Mmap;

use crate::error::{DataError, Result};

/// Maps the whole file read-only. Pages are loaded when first touched and shared between threads.
pub(crate) fn map(path: &Path) -> Result<Mmap> {
    let file = File::open(path).map_err(DataError::io("open", path))?;
    if file.metadata().is_ok_and(|found| found.is_dir()) {
        return Err(DataError::Invalid(format!("{} is a directory; name a file in it", path.display())));
    }
    // SAFETY: the map is read-only and private to this process. Stores are append-only, `repair` replaces a file by
    // renaming, and a writer that goes on cuts off only an incomplete record, which no open store reads again; no
    // reference into the map is handed out without a bounds check against the mapped length.
    #[allow(unsafe_code)]
    unsafe { Mmap::map(&file) }.map_err(DataError::io("map", path))
}
