//! What is done to an image before a network sees it: bytes in, floats out, no tensor on the way.
//!
//! Every draw comes from the image's own stream, so the thread that does the work does not matter.

mod colour;
mod large;
mod resize;
mod simple;
mod view;

pub use large::{Frame, GaussianBlur, SizedView};
pub use resize::Resampler;
pub use simple::{Normalisation, augmented};
pub use view::{View, ViewSettings};
