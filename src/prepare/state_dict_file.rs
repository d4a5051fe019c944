//! Weights as PyTorch saves them: a state dict that `torch.load(weights_only=True)` takes, also with `mmap=True`.
//!
//! The format is PyTorch's zip format (`torch.save` since 1.6; `_save` in `torch/serialization.py`): `data.pkl` names the
//! tensors, and each storage is an entry of raw numbers. Entries are not compressed and begin at multiples of 64 bytes.
//! The bytes of the file depend on the weights alone. `checkpoint` reads it.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use pipeline_stages::formats::{ModelInfo, TensorFile, WEIGHTS_FILE};
use pipeline_stages::kinds::architecture::EncoderArchitecture;
use pipeline_stages::state_dict::encoder;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// The name of the file.
pub const STATE_DICT_FILE: &str = "weights.pt";

/// The folder in the archive.
const ROOT: &str = "weights";
/// Where entries begin: at multiples of this, as PyTorch maps them into memory.
const ALIGNMENT: u16 = 64;
/// What does not need the fields of a large archive.
const LARGE: usize = u32::MAX as usize;

/// Writes the weights of an artifact to a new file, in the order of PyTorch's `state_dict`.
///
/// # Errors
/// When the artifact does not have weights, PyTorch does not have their type, or the file cannot be written.
pub fn write_state_dict(artifact: &Path, file: &Path) -> anyhow::Result<()> {
    let tensors = TensorFile::open(&artifact.join(WEIGHTS_FILE))?;
    let tensors = tensors.tensors()?;
    let mut named: Vec<(String, TensorView<'_>)> = tensors.tensors();
    let order = order(artifact);
    named.sort_by_key(|(name, _)| place(&order, name));
    let pickle = pickle(&named)?;
    let write = || -> anyhow::Result<()> {
        let mut archive = ZipWriter::new(BufWriter::new(File::create(file)?));
        let mut entry = |name: &str, bytes: &[u8]| -> anyhow::Result<()> {
            let options = SimpleFileOptions::default()
                .compression_method(CompressionMethod::Stored)
                .with_alignment(ALIGNMENT)
                .large_file(bytes.len() >= LARGE);
            archive.start_file(format!("{ROOT}/{name}"), options)?;
            Ok(archive.write_all(bytes)?)
        };
        entry("data.pkl", &pickle)?;
        entry("byteorder", b"little")?;
        for (key, (_, tensor)) in named.iter().enumerate() {
            entry(&format!("data/{key}"), tensor.data())?;
        }
        entry("version", b"3\n")?;
        archive.finish()?.into_inner().context("not all of it could be written")?;
        Ok(())
    };
    write().with_context(|| format!("cannot write {}", file.display()))
}

/// The names of the tensors of the artifact's encoder in PyTorch's order. Empty where its architecture is not known here.
fn order(artifact: &Path) -> Vec<String> {
    let Ok(info) = ModelInfo::read(artifact) else { return Vec::new() };
    let known = EncoderArchitecture::named(&info.architecture);
    let tensors = known.map(|architecture| encoder(architecture, info.input.channels));
    tensors.into_iter().flatten().map(|tensor| tensor.name).collect()
}

/// What names are sorted by: the encoder's in its order, then the others; of a layer the weight first.
fn place(order: &[String], name: &str) -> (usize, String, bool, String) {
    let place = order.iter().position(|known| known == name).unwrap_or(order.len());
    let (layer, part) = name.rsplit_once('.').unwrap_or(("", name));
    (place, layer.to_owned(), part != "weight", part.to_owned())
}

/// The pickle of an `OrderedDict` of names to tensors, in protocol 2.
fn pickle(named: &[(String, TensorView<'_>)]) -> anyhow::Result<Vec<u8>> {
    const ORDERED_DICT: &[u8] = b"ccollections\nOrderedDict\n)R";
    let mut pickle = Vec::from(*b"\x80\x02");
    pickle.extend(ORDERED_DICT);
    pickle.push(b'(');
    for (key, (name, tensor)) in named.iter().enumerate() {
        let length = tensor.shape().iter().try_fold(1_usize, |all, one| all.checked_mul(*one));
        let length = length.with_context(|| format!("'{name}' is too large"))?;
        text(&mut pickle, name)?;
        pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n(");
        // The storage, by its key in the archive.
        pickle.push(b'(');
        text(&mut pickle, "storage")?;
        pickle.extend(format!("ctorch\n{}\n", storage(name, tensor.dtype())?).bytes());
        text(&mut pickle, &key.to_string())?;
        text(&mut pickle, "cpu")?;
        integer(&mut pickle, length)?;
        pickle.extend(b"tQ");
        // Where the tensor begins in it, its shape, and how far apart its elements are.
        integer(&mut pickle, 0)?;
        tuple(&mut pickle, tensor.shape())?;
        tuple(&mut pickle, &strides(tensor.shape()))?;
        // It does not require a gradient, and has no hooks.
        pickle.push(b'\x89');
        pickle.extend(ORDERED_DICT);
        pickle.extend(b"tR");
    }
    pickle.extend(b"u.");
    Ok(pickle)
}

/// PyTorch's name for a storage of this type.
fn storage(name: &str, dtype: Dtype) -> anyhow::Result<&'static str> {
    Ok(match dtype {
        Dtype::F64 => "DoubleStorage",
        Dtype::F32 => "FloatStorage",
        Dtype::F16 => "HalfStorage",
        Dtype::BF16 => "BFloat16Storage",
        Dtype::I64 => "LongStorage",
        Dtype::I32 => "IntStorage",
        Dtype::I16 => "ShortStorage",
        Dtype::I8 => "CharStorage",
        Dtype::U8 => "ByteStorage",
        Dtype::BOOL => "BoolStorage",
        other => bail!("'{name}' is {other:?}, and no state dict of PyTorch has that"),
    })
}

/// How far apart the elements of a tensor are along each dimension, row by row.
fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for place in (1..shape.len()).rev() {
        strides[place - 1] = strides[place] * shape[place].max(1);
    }
    strides
}

fn text(pickle: &mut Vec<u8>, text: &str) -> anyhow::Result<()> {
    let length = u32::try_from(text.len()).context("a name is too long")?;
    pickle.push(b'X');
    pickle.extend(length.to_le_bytes());
    pickle.extend(text.bytes());
    Ok(())
}

fn integer(pickle: &mut Vec<u8>, number: usize) -> anyhow::Result<()> {
    match i32::try_from(number) {
        Ok(number) => {
            pickle.push(b'J');
            pickle.extend(number.to_le_bytes());
        }
        Err(_) => {
            ensure!(i64::try_from(number).is_ok(), "a tensor is too large");
            pickle.extend([0x8a, 8]);
            pickle.extend((number as i64).to_le_bytes());
        }
    }
    Ok(())
}

fn tuple(pickle: &mut Vec<u8>, numbers: &[usize]) -> anyhow::Result<()> {
    pickle.push(b'(');
    numbers.iter().try_for_each(|number| integer(pickle, *number))?;
    pickle.push(b't');
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use pipeline_stages::formats::{ImageShape, NamedTensor, write_tensors};

    use super::*;
    use crate::checkpoint::{CheckpointFile, CheckpointFormat, CheckpointLimits, Leaf, Values};

    /// Writes an artifact with these tensors, and its state dict.
    fn written(tensors: &[NamedTensor<'_>]) -> anyhow::Result<Vec<u8>> {
        let folder = tempfile::tempdir().expect("a folder");
        write_tensors(&folder.path().join(WEIGHTS_FILE), tensors, &[]).expect("writable");
        let input = ImageShape { channels: 3, height: 32, width: 32 };
        let info = ModelInfo { architecture: "resnet8".to_owned(), input, ..ModelInfo::default() };
        info.write(folder.path()).expect("writable");
        let file = folder.path().join(STATE_DICT_FILE);
        write_state_dict(folder.path(), &file)?;
        Ok(std::fs::read(file).expect("it is there"))
    }

    #[test]
    fn what_is_written_is_read_as_it_was() {
        let float = |numbers: &[f32]| -> Cow<'static, [u8]> {
            numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
        };
        let seven: Cow<'_, [u8]> = 7_i64.to_le_bytes().to_vec().into();
        let mut tensors = vec![
            ("fc.bias", Dtype::F32, vec![2], float(&[1.0, 2.0])),
            ("fc.weight", Dtype::F32, vec![2, 3], float(&[1.5, -2.0, 3.0, 4.0, 5.0, 1e-30])),
            ("bn1.num_batches_tracked", Dtype::I64, vec![], seven),
            ("bn1.weight", Dtype::F32, vec![1], float(&[0.5])),
            ("conv1.weight", Dtype::F32, vec![1, 1, 1, 1], float(&[9.0])),
            ("empty", Dtype::F32, vec![0, 3], float(&[])),
        ];
        let bytes = written(&tensors).expect("it can be written");
        let checkpoint =
            CheckpointFile::open(&bytes, &CheckpointLimits::default()).expect("it is readable");
        assert_eq!(checkpoint.format(), CheckpointFormat::TorchZip);
        let contents = checkpoint.contents().expect("it has names");
        let entries = contents.entries().expect("they are tensors");
        let names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
        let order = [
            "conv1.weight",
            "bn1.weight",
            "bn1.num_batches_tracked",
            "empty",
            "fc.weight",
            "fc.bias",
        ];
        assert_eq!(names, order);
        for entry in &entries {
            let Leaf::Tensor(tensor) = &entry.leaf else { panic!("{entry:?}") };
            let (_, _, shape, bytes) =
                tensors.iter().find(|(name, ..)| *name == entry.name).expect("it was written");
            assert_eq!(tensor.shape, *shape, "{}", entry.name);
            let read: Vec<u8> = match contents.values(tensor).expect("its numbers") {
                Values::Floats(all) => all.iter().flat_map(|one| one.to_le_bytes()).collect(),
                Values::Integers(all) => all.iter().flat_map(|one| one.to_le_bytes()).collect(),
            };
            assert_eq!(read, **bytes, "{}", entry.name);
        }
        // Nothing but the weights is in the bytes.
        tensors.reverse();
        assert_eq!(written(&tensors).expect("it can be written"), bytes);
    }

    #[test]
    fn entries_are_aligned_and_not_compressed() {
        let zeros: Cow<'_, [u8]> = vec![0; 4000].into();
        let bytes = written(&[("a", Dtype::F32, vec![1000], zeros)]).expect("it can be written");
        let mut archive = zip::ZipArchive::new(std::io::Cursor::new(&bytes)).expect("an archive");
        for index in 0..archive.len() {
            let entry = archive.by_index(index).expect("an entry");
            assert_eq!(entry.compression(), CompressionMethod::Stored);
            let start = entry.data_start().expect("it has a place");
            assert_eq!(start % u64::from(ALIGNMENT), 0, "entry {index}");
        }
    }

    #[test]
    fn large_numbers_and_types_of_other_programs() {
        let mut pickle = Vec::new();
        integer(&mut pickle, 3 << 30).expect("it fits");
        assert_eq!(pickle, [0x8a, 8, 0, 0, 0, 0xc0, 0, 0, 0, 0]);
        let tensor = ("x", Dtype::U32, vec![1], Cow::Owned(vec![0; 4]));
        let error = format!("{:#}", written(&[tensor]).expect_err("PyTorch has no such storage"));
        assert_eq!(error, "'x' is U32, and no state dict of PyTorch has that");
    }
}
