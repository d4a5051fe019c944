//! safetensors and JSON files, read and written with errors that name the file.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, ensure};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::layout::Layout;
use crate::text::shortened;

/// A safetensors file, mapped into memory.
pub struct TensorFile {
    path: PathBuf,
    map: Mmap,
}

impl TensorFile {
    /// Opens a file and checks its header.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        // SAFETY: artifacts are read-only once committed; nothing truncates them while they are mapped.
        let map = unsafe { Mmap::map(&file) }
            .with_context(|| format!("cannot map {}", path.display()))?;
        let opened = Self { path: path.to_owned(), map };
        opened.tensors()?;
        Ok(opened)
    }

    /// Every tensor of the file.
    pub fn tensors(&self) -> anyhow::Result<SafeTensors<'_>> {
        SafeTensors::deserialize(&self.map)
            .with_context(|| format!("{} is not a complete safetensors file", self.path.display()))
    }

    /// The bytes and the shape of one tensor of a given type.
    ///
    /// # Errors
    /// When the tensor is missing, or has another type or number of dimensions.
    pub fn view(
        &self,
        name: &str,
        dtype: Dtype,
        dimensions: usize,
    ) -> anyhow::Result<(&[u8], Vec<usize>)> {
        let tensors = self.tensors()?;
        let view = tensors
            .tensor(name)
            .with_context(|| format!("{} has no tensor '{name}'", self.path.display()))?;
        ensure!(
            view.dtype() == dtype && view.shape().len() == dimensions,
            "{}: '{name}' is {:?} with the shape {:?}; expected {dtype:?} with {dimensions} dimensions",
            self.path.display(),
            view.dtype(),
            view.shape(),
        );
        Ok((view.data(), view.shape().to_vec()))
    }

    /// Whether the file has a tensor of this name.
    pub(crate) fn has(&self, name: &str) -> anyhow::Result<bool> {
        Ok(self.tensors()?.tensor(name).is_ok())
    }

    /// Where the bytes of a tensor are in the file, for [`TensorFile::bytes`], and its shape.
    pub(super) fn place(
        &self,
        name: &str,
        dtype: Dtype,
        dimensions: usize,
    ) -> anyhow::Result<(Range<usize>, Vec<usize>)> {
        let (bytes, shape) = self.view(name, dtype, dimensions)?;
        let start = bytes.as_ptr() as usize - self.map.as_ptr() as usize;
        Ok((start..start + bytes.len(), shape))
    }

    /// Bytes of the file; empty for a range that is not within it.
    pub(super) fn bytes(&self, range: Range<usize>) -> &[u8] {
        self.map.get(range).unwrap_or_default()
    }

    /// A tensor of 64-bit integers with one dimension.
    pub fn integers(&self, name: &str) -> anyhow::Result<Vec<i64>> {
        let (bytes, _) = self.view(name, Dtype::I64, 1)?;
        let (numbers, _) = bytes.as_chunks::<8>();
        Ok(numbers.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect())
    }

    /// A tensor of 64-bit floats with one dimension.
    pub(super) fn doubles(&self, name: &str) -> anyhow::Result<Vec<f64>> {
        let (bytes, _) = self.view(name, Dtype::F64, 1)?;
        let (numbers, _) = bytes.as_chunks::<8>();
        Ok(numbers.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect())
    }

    /// A tensor of 32-bit floats with two dimensions, row by row, and its shape.
    pub(super) fn matrix(&self, name: &str) -> anyhow::Result<(Vec<f32>, [usize; 2])> {
        let (bytes, shape) = self.view(name, Dtype::F32, 2)?;
        let (numbers, _) = bytes.as_chunks::<4>();
        let numbers = numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        Ok((numbers, [shape[0], shape[1]]))
    }
}

/// A tensor to write: its name, type, shape and little-endian bytes.
pub type NamedTensor<'data> = (&'data str, Dtype, Vec<usize>, Cow<'data, [u8]>);

/// Writes tensors with metadata. The bytes of the file depend on nothing else.
pub fn write_tensors(
    path: &Path,
    tensors: &[NamedTensor<'_>],
    metadata: &[(&str, String)],
) -> anyhow::Result<()> {
    // In the order of the writer of the crate safetensors, which makes files that only their owner can read.
    let mut tensors: Vec<_> = tensors.iter().collect();
    tensors.sort_by(|one, other| other.1.cmp(&one.1).then(one.0.cmp(other.0)));
    let mut layout = Layout::default();
    for (name, dtype, shape, bytes) in &tensors {
        let before = layout.bytes();
        layout.add(name, *dtype, shape.clone())?;
        ensure!(
            layout.bytes() - before == bytes.len(),
            "'{name}' does not have the bytes of its shape"
        );
    }
    let header = layout.header(metadata)?;
    let write = || {
        let mut file = BufWriter::new(File::create(path)?);
        file.write_all(&header)?;
        tensors.iter().try_for_each(|(_, _, _, bytes)| file.write_all(bytes))?;
        file.flush()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// The bytes of integers in a safetensors file.
pub(super) fn integer_bytes(numbers: &[i64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// The bytes of 64-bit floats in a safetensors file.
pub(super) fn double_bytes(numbers: &[f64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// The bytes of 32-bit floats in a safetensors file.
pub(super) fn float_bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// Writes a value as indented JSON.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(value).context("not plain data")?;
    text.push('\n');
    File::create(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Reads a value from JSON.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).map_err(|error| {
        use serde_json::error::Category::Data;
        let (line, column) = (error.line(), error.column());
        let problem = error.to_string();
        let problem = problem.strip_suffix(&format!(" at line {line} column {column}"));
        let what = match (error.classify(), problem) {
            (Data, Some(problem)) => {
                format!("does not have the values that it needs: {}", shortened(problem))
            }
            (Data, None) => "does not have the values that it needs".to_owned(),
            _ if is_not_finite(&text, line, column) => {
                "is not JSON, which has neither NaN nor Infinity".to_owned()
            }
            _ => "is not JSON".to_owned(),
        };
        anyhow!("{} {what} (line {line}, column {column})", path.display())
    })
}

/// Whether the value at a place in a text, both from 1, is one that Python writes and JSON does not have.
fn is_not_finite(text: &[u8], line: usize, column: usize) -> bool {
    let line = text.split(|byte| *byte == b'\n').nth(line.saturating_sub(1));
    let value = line.and_then(|line| line.get(column.saturating_sub(1)..));
    value.is_some_and(|value| value.starts_with(b"NaN") || value.starts_with(b"Infinity"))
}
