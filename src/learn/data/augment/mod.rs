//! What is done to an image before a network sees it: bytes in, floats out.
//!
//! Every draw comes from the image's own stream, so the thread that does the work does not matter. The same
//! draws serve two ways of doing it: one image at a time by the CPU's threads, without any tensor ([`View::render`],
//! [`FlipCrop::apply`]), and a batch at a time on a GPU ([`batched`]).

pub mod batched;
mod colour;
mod kernel;
mod large;
mod reflection;
mod resample;
mod simple;
mod view;

pub use colour::Jitter;
pub use large::{GaussianBlur, ResizeCrop, ResizedView};
pub use resample::{ResampleWeights, Resizing};
pub use simple::{FlipCrop, Normalisation};
pub use view::{Crop, View, ViewSettings};
