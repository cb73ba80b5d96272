//! Columns of an HDF5 file, checked before they are read: a foreign file may hold anything.

use std::{
    io::Read,
    ops::Range,
    path::{Path, PathBuf},
};

use rust_hdf5::{DatatypeMessage, H5Dataset, H5File, ReadNumeric};

use super::SIGNATURE;
use crate::error::{DataError, Result};

/// Most bytes that are decoded at once: what HDF5 allows for a chunk. A damaged header may claim any size.
const MAX_BYTES: usize = 1 << 32;

/// What a column must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// float32 or float64.
    Real,
    /// Integers of any width.
    Whole,
    /// uint8.
    Byte,
    /// Numbers of any kind, booleans among them.
    Number,
}

impl Class {
    fn admits(self, datatype: &DatatypeMessage) -> bool {
        match datatype {
            DatatypeMessage::FloatingPoint { size, .. } => {
                matches!(self, Self::Real | Self::Number) && matches!(size, 4 | 8)
            }
            DatatypeMessage::FixedPoint { size, signed, .. } => match self {
                Self::Real => false,
                Self::Byte => *size == 1 && !signed,
                Self::Whole | Self::Number => true,
            },
            // h5py writes booleans as an enumeration over int8.
            DatatypeMessage::Enum { .. } => self == Self::Number && datatype.element_size() == 1,
            _ => false,
        }
    }

    fn remedy(self) -> &'static str {
        match self {
            Self::Real => "expected float32 or float64: write it again with .astype('float64')",
            Self::Whole => "expected an integer type: write it again with .astype('int64')",
            Self::Byte => "expected uint8: write it again with .astype('uint8')",
            Self::Number => "expected a numeric type: write it again with .astype('float64')",
        }
    }
}

/// An open file.
pub(super) struct Table {
    path: PathBuf,
    file: H5File,
    names: Vec<String>,
}

impl Table {
    pub fn open(path: &Path) -> Result<Self> {
        check_head(path)?;
        let file = H5File::open(path).map_err(|e| fault(path, damaged(&e)))?;
        let mut names = file.dataset_names();
        names.sort();
        Ok(Self { path: path.into(), file, names })
    }

    /// Names of all columns, sorted.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    pub fn fault(&self, reason: String) -> DataError {
        fault(&self.path, reason)
    }

    /// The column `name` with `width` values a row; `None` where the file has none.
    pub fn optional(&self, name: &str, width: usize, class: Class) -> Result<Option<Column<'_>>> {
        if !self.names.iter().any(|known| known == name) {
            return Ok(None);
        }
        let column = self.any(name, class)?;
        if column.width() != width {
            let shape = &column.shape;
            return Err(self.fault(format!(
                "column `{name}` has shape {shape:?}, expected {width} value(s) a row, one row a step; reshape it"
            )));
        }
        Ok(Some(column))
    }

    /// As [`Table::optional`], where the import cannot do without the column; `why` says what to do.
    pub fn required(&self, name: &str, width: usize, class: Class, why: &str) -> Result<Column<'_>> {
        self.optional(name, width, class)?.ok_or_else(|| {
            let known = self.names.join(", ");
            self.fault(format!("it has no column `{name}` ({known}); {why}"))
        })
    }

    /// The column `name` with rows of any shape.
    pub fn any(&self, name: &str, class: Class) -> Result<Column<'_>> {
        let fail = |e| self.fault(format!("column `{name}`: {}", damaged(&e)));
        let dataset = self.file.dataset(name).map_err(fail)?;
        let datatype = dataset.datatype().map_err(fail)?;
        if !class.admits(&datatype) {
            return Err(self.fault(format!("column `{name}` holds {datatype}; {}", class.remedy())));
        }
        if let Some(filter) = dataset.filters().map_err(fail)?.iter().find_map(unknown_filter) {
            return Err(self.fault(format!(
                "column `{name}` is compressed with {filter}, which worldbench cannot decode; write it again \
                 with h5py: create_dataset(..., compression='gzip')"
            )));
        }
        let shape = dataset.shape();
        let chunk = dataset.chunk_dims().unwrap_or_default();
        let size = dataset.element_size();
        if shape.is_empty() || ![&shape[1..], &chunk].into_iter().all(|shape| bytes(shape, size).is_some()) {
            let reason = format!(
                "column `{name}` has shape {shape:?} in chunks of {chunk:?}; expected a first axis of rows, and \
                 chunks of at most 4 GiB"
            );
            return Err(self.fault(reason));
        }
        Ok(Column { table: self, name: name.into(), dataset, shape, datatype })
    }
}

/// One column of a [`Table`].
pub(super) struct Column<'a> {
    table: &'a Table,
    pub name: String,
    dataset: H5Dataset,
    /// `[rows, ...]`
    pub shape: Vec<usize>,
    datatype: DatatypeMessage,
}

impl Column<'_> {
    pub fn rows(&self) -> usize {
        self.shape[0]
    }

    /// Values a row.
    pub fn width(&self) -> usize {
        self.shape[1..].iter().product()
    }

    /// `read` of the hyperslab of these rows.
    fn slab<T>(
        &self,
        rows: &Range<usize>,
        read: impl FnOnce(&[usize], &[usize]) -> rust_hdf5::Result<Vec<T>>,
    ) -> Result<Vec<T>> {
        let mut starts = vec![0; self.shape.len()];
        let mut counts = self.shape.clone();
        (starts[0], counts[0]) = (rows.start, rows.len());
        if bytes(&counts, self.dataset.element_size()).is_none() {
            let (name, rows) = (&self.name, rows.len());
            let reason = format!("column `{name}`: an episode of {rows} rows is too large; split it");
            return Err(self.table.fault(reason));
        }
        read(&starts, &counts).map_err(|e| {
            let (name, reason) = (&self.name, damaged(&e));
            self.table.fault(format!("column `{name}`, rows {} to {}: {reason}", rows.start, rows.end - 1))
        })
    }

    /// Values of these rows as `T`, which the class asked for must fit into.
    pub fn read<T: ReadNumeric>(&self, rows: &Range<usize>) -> Result<Vec<T>> {
        self.slab(rows, |starts, counts| self.dataset.read_numeric_slice_as(starts, counts))
    }

    /// Values of these rows, which are bytes.
    pub fn bytes(&self, rows: &Range<usize>) -> Result<Vec<u8>> {
        self.slab(rows, |starts, counts| self.dataset.read_slice(starts, counts))
    }

    /// Values of these rows, numbers of any kind, as f64.
    pub fn numbers(&self, rows: &Range<usize>) -> Result<Vec<f64>> {
        match self.datatype {
            DatatypeMessage::FloatingPoint { .. } => self.read(rows),
            DatatypeMessage::Enum { .. } => Ok(self.bytes(rows)?.into_iter().map(f64::from).collect()),
            _ => Ok(self.read::<i64>(rows)?.into_iter().map(|v| v as f64).collect()),
        }
    }
}

/// Bytes of an array of this shape; `None` when they are more than [`MAX_BYTES`].
fn bytes(shape: &[usize], element: usize) -> Option<usize> {
    shape.iter().try_fold(element, |n, &d| n.checked_mul(d)).filter(|&n| n <= MAX_BYTES)
}

fn fault(path: &Path, reason: String) -> DataError {
    DataError::Import { path: path.into(), reason }
}

fn damaged(e: &rust_hdf5::Hdf5Error) -> String {
    format!("{e}; the file is damaged or incomplete, copy or write it again")
}

/// Checks the signature and that the file is as long as its superblock says (file format specification, II.A).
fn check_head(path: &Path) -> Result<()> {
    let mut file = std::fs::File::open(path).map_err(DataError::io("open", path))?;
    let length = file.metadata().map_err(DataError::io("read", path))?.len();
    let mut head = Vec::new();
    file.by_ref().take(48).read_to_end(&mut head).map_err(DataError::io("read", path))?;
    if !head.starts_with(&SIGNATURE) {
        return Err(fault(path, "it is not an HDF5 file; give one that h5py can open".into()));
    }
    // With addresses of 8 bytes, as everybody writes them, the end of the file stands here.
    let end = match head.get(8) {
        Some(0) => head.get(40..48),
        Some(2 | 3) => head.get(28..36),
        _ => None,
    };
    let end = end.and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
    match end {
        Some(end) if end > length => {
            let reason = format!("it is cut short, {length} bytes of {end}; copy or download it again");
            Err(fault(path, reason))
        }
        None if length < 48 => Err(fault(path, "it is cut short; copy or download it again".into())),
        _ => Ok(()),
    }
}

/// The name of a filter that cannot be undone here; `None` for the others.
fn unknown_filter(filter: &rust_hdf5::Filter) -> Option<String> {
    let name = match filter.id {
        // Deflate, shuffle, Fletcher-32, szip, n-bit, scale-offset and LZF.
        1..=6 | 32000 => return None,
        // The seventh parameter of Blosc is its codec; 5 is Zstandard.
        32001 if filter.cd_values.get(6) == Some(&5) => "Blosc with Zstandard",
        32001 => return None,
        307 => "bzip2",
        32004 => "LZ4",
        32008 => "bitshuffle",
        32013 => "ZFP",
        32015 => "Zstandard",
        32026 => "Blosc2",
        _ => "a filter unknown here",
    };
    Some(format!("{name} (HDF5 filter {})", filter.id))
}
