//! The header of a safetensors file whose tensors are written one after the other, without holding them in memory.

use anyhow::{Context, ensure};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::tensors::header_metadata;

/// The tensors of a file, in their order in the file.
#[derive(Default)]
pub(super) struct Layout {
    tensors: Vec<(String, TensorInfo)>,
    end: usize,
}

impl Layout {
    /// The next tensor. Its bytes follow on those of the one before.
    pub(super) fn add(
        &mut self,
        name: &str,
        dtype: Dtype,
        shape: Vec<usize>,
    ) -> anyhow::Result<()> {
        let bytes =
            shape.iter().try_fold(dtype.bitsize() / 8, |bytes, &side| bytes.checked_mul(side));
        let end = bytes.and_then(|bytes| self.end.checked_add(bytes));
        let end = end.with_context(|| format!("the tensor '{name}' is too large"))?;
        let info = TensorInfo { dtype, shape, data_offsets: (self.end, end) };
        self.tensors.push((name.to_owned(), info));
        self.end = end;
        Ok(())
    }

    /// The bytes of all tensors so far.
    pub(super) fn bytes(&self) -> usize {
        self.end
    }

    /// The length of the header and the header itself, filled up with spaces to `bytes`, as safetensors allows.
    ///
    /// # Errors
    /// When it is longer.
    pub(super) fn header(self, artifact: &str, bytes: usize) -> anyhow::Result<Vec<u8>> {
        let metadata = header_metadata(&[("type", artifact.to_owned())])?;
        let mut text = serde_json::to_vec(&Metadata::new(metadata, self.tensors)?)?;
        ensure!(text.len() <= bytes, "the header of a file of tensors is too long");
        text.resize(bytes, b' ');
        Ok([(bytes as u64).to_le_bytes().as_slice(), &text].concat())
    }
}
