//! The header of a safetensors file whose tensors are written one after the other, without holding them in memory.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, ensure};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

/// Headers have a multiple of this many bytes, so that the tensors are aligned.
const ALIGNMENT: usize = 8;

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

    /// The length of the header and the header itself.
    pub(super) fn header(self, metadata: &[(&str, String)]) -> anyhow::Result<Vec<u8>> {
        self.header_of(metadata, 0)
    }

    /// The same for an artifact of this type, filled up with spaces to `bytes`, as safetensors allows.
    ///
    /// # Errors
    /// When it is longer.
    pub(super) fn reserved_header(self, artifact: &str, bytes: usize) -> anyhow::Result<Vec<u8>> {
        let header = self.header_of(&[("type", artifact.to_owned())], bytes)?;
        let expected = size_of::<u64>() + bytes;
        ensure!(header.len() == expected, "the header of a file of tensors is too long");
        Ok(header)
    }

    /// A header of at least this many bytes.
    fn header_of(self, metadata: &[(&str, String)], least: usize) -> anyhow::Result<Vec<u8>> {
        let metadata = header_metadata(metadata)?;
        let mut text = serde_json::to_vec(&Metadata::new(metadata, self.tensors)?)?;
        text.resize(text.len().next_multiple_of(ALIGNMENT).max(least), b' ');
        Ok([(text.len() as u64).to_le_bytes().as_slice(), &text].concat())
    }
}

/// Metadata as written in the header of a safetensors file.
fn header_metadata(metadata: &[(&str, String)]) -> anyhow::Result<Option<HashMap<String, String>>> {
    // One key: the order of a map in the safetensors header is not fixed, and the bytes must not vary.
    let text = serde_json::to_string(&metadata.iter().cloned().collect::<BTreeMap<_, _>>())?;
    Ok((!metadata.is_empty()).then(|| HashMap::from([("pipeline".to_owned(), text)])))
}
