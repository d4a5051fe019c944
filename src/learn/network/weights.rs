//! The tensors of a network in a safetensors file, read strictly: every name, every shape.
//!
//! Does not depend on any architecture: the names come from the network.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use pipeline_stages::formats::{ModelInfo, TensorFile, write_tensors};
use pipeline_stages::kinds::architecture::EncoderArchitecture;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use tch::{Kind, Tensor};

use crate::network::{NetworkTensor, bytes_of};

/// The architecture of an encoder on disk.
///
/// # Errors
/// When this version has none of that name.
pub fn architecture(info: &ModelInfo) -> anyhow::Result<EncoderArchitecture> {
    EncoderArchitecture::named(&info.architecture).with_context(|| {
        format!("the weights are of a '{}', which this version does not support", info.architecture)
    })
}

/// Writes tensors under their names.
///
/// # Errors
/// When the file cannot be written.
pub fn write<'a>(
    path: &Path,
    artifact: &str,
    tensors: impl IntoIterator<Item = &'a NetworkTensor>,
) -> anyhow::Result<()> {
    let mut entries = Vec::new();
    for named in tensors {
        let bytes = Cow::Owned(bytes_of(&named.tensor)?);
        entries.push((
            named.name.as_str(),
            dtype_of(&named.tensor)?,
            shape_of(&named.tensor),
            bytes,
        ));
    }
    write_tensors(path, &entries, &[("type", artifact.to_owned())])
}

/// Fails on a tensor with a number that is not finite: such a network is of no use to anybody.
///
/// # Errors
/// With the names of the tensors, and what to try.
pub fn check_finite(tensors: &[NetworkTensor]) -> anyhow::Result<()> {
    let mut wrong = Vec::new();
    for named in tensors {
        let floating = named.tensor.f_is_floating_point()?;
        if floating && named.tensor.f_isfinite()?.f_all()?.f_int64_value(&[])? == 0 {
            wrong.push(named.name.as_str());
        }
    }
    ensure!(
        wrong.is_empty(),
        "{} of the trained network have values that are not finite: training diverged; try a \
         smaller learning-rate, a longer warmup or another batch-size",
        shortened(&wrong)
    );
    Ok(())
}

/// Fills tensors from a file. Every one must be there, in its type and shape; and all that is in
/// the file must be wanted, or `ignored` by its name.
///
/// # Errors
/// With the names of the layers that are missing or too many, or of another shape. Nothing is
/// changed then.
pub fn read_into<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = &'a NetworkTensor>,
    ignored: fn(&str) -> bool,
) -> anyhow::Result<()> {
    let file = TensorFile::open(path)?;
    let wanted: Vec<(&str, &Tensor)> =
        tensors.into_iter().map(|named| (named.name.as_str(), &named.tensor)).collect();
    fill(&file.tensors()?, &wanted, ignored).with_context(|| path.display().to_string())
}

/// As [`read_into`], from tensors in memory.
///
/// # Errors
/// As [`read_into`].
pub fn fill(
    found: &SafeTensors<'_>,
    wanted: &[(&str, &Tensor)],
    ignored: fn(&str) -> bool,
) -> anyhow::Result<()> {
    let names: BTreeSet<&str> = wanted.iter().map(|(name, _)| *name).collect();
    let mut views = Vec::new();
    let mut missing = Vec::new();
    for (name, tensor) in wanted {
        match found.tensor(name) {
            Ok(view) => views.push((checked(name, view, tensor)?, *tensor)),
            Err(_) => missing.push(*name),
        }
    }
    let extra: Vec<&str> =
        found.names().into_iter().filter(|name| !names.contains(name) && !ignored(name)).collect();
    ensure!(missing.is_empty(), "does not have {}", shortened(&missing));
    ensure!(extra.is_empty(), "has {}, which the network does not have", shortened(&extra));
    let _no_gradients = tch::no_grad_guard();
    for (view, tensor) in views {
        let shape = tensor.size();
        let values = Tensor::f_from_data_size(view.data(), &shape, kind_of(view.dtype())?)?;
        tensor.shallow_clone().f_copy_(&values)?;
    }
    Ok(())
}

/// The type of a tensor on disk.
///
/// # Errors
/// When safetensors has none for it.
pub fn dtype_of(tensor: &Tensor) -> anyhow::Result<Dtype> {
    match tensor.f_kind()? {
        Kind::Float => Ok(Dtype::F32),
        Kind::Double => Ok(Dtype::F64),
        Kind::Int64 => Ok(Dtype::I64),
        other => bail!("tensors of the type {other:?} are not written"),
    }
}

/// The shape of a tensor on disk.
pub fn shape_of(tensor: &Tensor) -> Vec<usize> {
    tensor.size().into_iter().map(|size| size as usize).collect()
}

fn kind_of(dtype: Dtype) -> anyhow::Result<Kind> {
    match dtype {
        Dtype::F32 => Ok(Kind::Float),
        Dtype::F64 => Ok(Kind::Double),
        Dtype::I64 => Ok(Kind::Int64),
        other => bail!("tensors of the type {other} are not read"),
    }
}

fn checked<'a>(
    name: &str,
    view: TensorView<'a>,
    tensor: &Tensor,
) -> anyhow::Result<TensorView<'a>> {
    let (dtype, shape) = (dtype_of(tensor)?, shape_of(tensor));
    ensure!(
        view.dtype() == dtype && view.shape() == shape,
        "'{name}' is {} with the shape {:?}, but the network needs {dtype} with {shape:?}",
        view.dtype(),
        view.shape(),
    );
    Ok(view)
}

/// The first few of a list of names, quoted.
fn shortened(names: &[&str]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("'{name}'")).collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
