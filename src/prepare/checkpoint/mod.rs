//! Checkpoint files: what PyTorch saves (its zip format and the one before), plain pickles,
//! and safetensors. The format is detected from the content, never from the name.
//!
//! A [`CheckpointFile`] is an opened file; its [`Contents`] are names with tensors or other values.
//! Tensors are read only when they are requested: others may be damaged.
//!
//! Nothing in a file is run, and no size in it is trusted: see [`CheckpointLimits`] and [`crate::pickle`]. Opening a file takes
//! at most 250 times its size of memory, and 64 MiB; so much only for a malicious file. A file of `torch.save` takes
//! a few times the size of its pickle, since its numbers are read in place. The time is proportional.
//! Does not depend on an architecture.

mod archive;
#[cfg(test)]
mod bombs;
mod contents;
mod element;
mod file;
mod legacy;
mod tensor;
#[cfg(test)]
mod tests;

pub(crate) use contents::{Contents, Entry, Leaf};
#[cfg(test)]
pub(crate) use element::Element;
pub(crate) use element::Values;
pub(crate) use file::{CheckpointFile, CheckpointFormat, CheckpointLimits, map};
pub(crate) use tensor::Tensor;
