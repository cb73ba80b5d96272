//! Named tensors of a weight file: safetensors, or PyTorch's `.pt` and `.pth`.
//!
//! A PyTorch file is a pickle beside its storages. `pytorch-reader` interprets the few instructions that describe
//! tensors and dictionaries and runs no code of the file.

use std::collections::BTreeMap;
use std::path::Path;

use half::{bf16, f16};
use pytorch_reader::{DType, PytorchReader};
use safetensors::{Dtype, SafeTensors};
use sha2::{Digest, Sha256};

use crate::planning::weights::Tensors;

/// What is wrong with a weight file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read or is damaged.
    #[error("weight file {path}: {problem}; {remedy}")]
    File {
        /// The file.
        path: String,
        /// The reader's message.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The tensors are not those that the model needs.
    #[error("weight file {path} does not fit: {report}; {problems}; give the file of the model you named")]
    Keys {
        /// The file.
        path: String,
        /// How many tensors fit, as in `221/223 tensors`.
        report: String,
        /// Every missing, misshapen and unexpected key.
        problems: String,
    },
}

/// One tensor, widened to f32.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Row-major shape; empty for a scalar.
    pub shape: Vec<usize>,
    /// Row-major values.
    pub values: Vec<f32>,
}

/// The tensors of a file by key.
#[derive(Clone, Debug, PartialEq)]
pub struct StateDict {
    source: String,
    tensors: BTreeMap<String, Tensor>,
}

impl Tensors for StateDict {
    fn tensor(&self, key: &str) -> Option<&[f32]> {
        self.get(key).map(|tensor| tensor.values.as_slice())
    }
}

impl StateDict {
    /// Tensors at hand; `source` names them in errors.
    #[must_use]
    pub fn new(source: impl Into<String>, tensors: BTreeMap<String, Tensor>) -> Self {
        Self { source: source.into(), tensors }
    }

    /// Reads `.safetensors`, or anything else as a PyTorch file: floats of 16 to 64 bits, integers and booleans,
    /// dense or strided. Nested dictionaries become keys with dots.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, or holds no tensors or tensors of another type.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let safe = path.extension().is_some_and(|extension| extension == "safetensors");
        if safe {
            return Self::from_safetensors(
                path,
                &std::fs::read(path).map_err(|e| fail(path, e, "check the path"))?,
            );
        }
        Self::named(path, read_torch(path)?)
    }

    /// The tensors of a safetensors file in memory; `path` only names it in errors.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn from_safetensors(path: &Path, bytes: &[u8]) -> Result<Self, Error> {
        Self::named(path, read_safetensors(path, bytes)?)
    }

    fn named(path: &Path, tensors: BTreeMap<String, Tensor>) -> Result<Self, Error> {
        if tensors.is_empty() {
            return Err(fail(path, "holds no tensors", "give a file with a state dict"));
        }
        Ok(Self { source: path.display().to_string(), tensors })
    }

    /// Where the tensors come from.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The tensor called `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Tensor> {
        self.tensors.get(key)
    }

    /// All tensors, by ascending key.
    #[must_use]
    pub fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors
    }

    /// The part of a larger model that holds `anchor`, a key of the wanted part: whatever stands before it in this
    /// file (`backbone.`, `backbone.backbone.`, nothing) is the part's prefix and is taken off; with a prefix, keys
    /// of other parts are left out.
    #[must_use]
    pub fn part(mut self, anchor: &str) -> Self {
        let dotted = format!(".{anchor}");
        let whole = self.tensors.contains_key(anchor);
        if let Some(found) = self.tensors.keys().find(|key| !whole && key.ends_with(&dotted)) {
            let prefix = found[..found.len() - anchor.len()].to_owned();
            let inner =
                |(key, tensor): (String, Tensor)| Some((key.strip_prefix(&prefix)?.to_owned(), tensor));
            self.tensors = self.tensors.into_iter().filter_map(inner).collect();
        }
        self
    }

    /// Strict comparison with the keys and shapes that a model needs; keys that `ignored` accepts may be there or
    /// not. Returns a line such as `223/223 tensors`.
    ///
    /// # Errors
    /// A key is missing, unexpected or of another shape; all of them are named.
    pub fn check(
        &self,
        needed: &[(String, Vec<usize>)],
        ignored: impl Fn(&str) -> bool,
    ) -> Result<String, Error> {
        let mut problems = Vec::new();
        for (key, shape) in needed {
            match self.tensors.get(key) {
                None => problems.push(format!("missing `{key}` {shape:?}")),
                Some(t) if t.shape != *shape => {
                    problems.push(format!("shape of `{key}` is {:?}, the model needs {shape:?}", t.shape));
                }
                Some(_) => {}
            }
        }
        let report = format!("{}/{} tensors", needed.len() - problems.len(), needed.len());
        let known: std::collections::HashSet<&str> = needed.iter().map(|(key, _)| key.as_str()).collect();
        let strangers = self.tensors.keys().filter(|key| !known.contains(key.as_str()) && !ignored(key));
        problems.extend(strangers.map(|key| format!("unexpected `{key}`")));
        if problems.is_empty() {
            return Ok(report);
        }
        Err(Error::Keys { path: self.source.clone(), report, problems: problems.join("; ") })
    }

    /// SHA-256 over `settings` and all keys, shapes and values, in hexadecimal.
    #[must_use]
    pub fn digest(&self, settings: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(settings);
        for (key, tensor) in &self.tensors {
            hash.update(format!("\n{key} {:?} ", tensor.shape));
            hash_values(&mut hash, &tensor.values);
        }
        format!("{:x}", hash.finalize())
    }
}

/// Adds little-endian f32 to a hash.
pub(crate) fn hash_values(hash: &mut Sha256, values: &[f32]) {
    let mut bytes = [0; 4096];
    for chunk in values.chunks(bytes.len() / 4) {
        for (out, value) in bytes.chunks_exact_mut(4).zip(chunk) {
            out.copy_from_slice(&value.to_le_bytes());
        }
        hash.update(&bytes[..4 * chunk.len()]);
    }
}

const AGAIN: &str = "download or copy it again";

fn fail(path: &Path, problem: impl std::fmt::Display, remedy: &'static str) -> Error {
    Error::File { path: path.display().to_string(), problem: problem.to_string(), remedy }
}

fn read_safetensors(path: &Path, bytes: &[u8]) -> Result<BTreeMap<String, Tensor>, Error> {
    let file = SafeTensors::deserialize(bytes).map_err(|e| fail(path, e, AGAIN))?;
    let convert = |(key, view): (String, safetensors::tensor::TensorView)| {
        let values = widen(path, &key, view.dtype(), view.data())?;
        Ok((key, Tensor { shape: view.shape().to_vec(), values }))
    };
    file.tensors().into_iter().map(convert).collect()
}

fn read_torch(path: &Path) -> Result<BTreeMap<String, Tensor>, Error> {
    std::fs::File::open(path).map_err(|e| fail(path, e, "check the path"))?;
    let remedy = "save it again with torch.save(model.state_dict(), path), or copy it again if it is damaged";
    let reader = PytorchReader::new(path).map_err(|e| fail(path, e, remedy))?;
    let convert = |(key, tensor): (String, pytorch_reader::Tensor)| {
        let bytes = tensor.read().map_err(|e| fail(path, e, AGAIN))?;
        let values = widen(path, &key, stored_type(tensor.dtype()), &bytes)?;
        Ok((key, Tensor { shape: tensor.shape().to_vec(), values }))
    };
    reader.into_tensors().into_iter().map(convert).collect()
}

fn stored_type(dtype: DType) -> Dtype {
    match dtype {
        DType::F64 => Dtype::F64,
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::I64 => Dtype::I64,
        DType::I32 => Dtype::I32,
        DType::I16 => Dtype::I16,
        DType::I8 => Dtype::I8,
        DType::U64 => Dtype::U64,
        DType::U32 => Dtype::U32,
        DType::U16 => Dtype::U16,
        DType::U8 => Dtype::U8,
        DType::Bool => Dtype::BOOL,
    }
}

/// Values of a stored type as f32.
fn widen(path: &Path, key: &str, dtype: Dtype, bytes: &[u8]) -> Result<Vec<f32>, Error> {
    fn each<const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> f32) -> Vec<f32> {
        bytes.as_chunks::<N>().0.iter().map(|&c| read(c)).collect()
    }
    Ok(match dtype {
        Dtype::F64 => each(bytes, |b| f64::from_le_bytes(b) as f32),
        Dtype::F32 => each(bytes, f32::from_le_bytes),
        Dtype::F16 => each(bytes, |b| f16::from_le_bytes(b).to_f32()),
        Dtype::BF16 => each(bytes, |b| bf16::from_le_bytes(b).to_f32()),
        Dtype::I64 => each(bytes, |b| i64::from_le_bytes(b) as f32),
        Dtype::I32 => each(bytes, |b| i32::from_le_bytes(b) as f32),
        Dtype::I16 => each(bytes, |b| f32::from(i16::from_le_bytes(b))),
        Dtype::I8 => each(bytes, |b| f32::from(i8::from_le_bytes(b))),
        Dtype::U8 | Dtype::BOOL => bytes.iter().map(|&b| f32::from(b)).collect(),
        other => {
            let problem = format!("tensor `{key}` has type {other:?}");
            return Err(fail(path, problem, "save it as float32"));
        }
    })
}

#[cfg(test)]
mod tests;
