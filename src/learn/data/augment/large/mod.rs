//! Images of any size to inputs of one size: for photographs, where [`super::simple`] and
//! [`super::view`] are for small images that keep their size.
//!
//! Bytes in, floats in \[0, 1\] out, as torchvision computes on float tensors. (On Pillow images it rounds to
//! bytes in between: at most a 255th or two from these.)

mod blur;
mod resize_crop;
mod resized_view;

pub use blur::GaussianBlur;
pub use resize_crop::ResizeCrop;
pub use resized_view::ResizedView;
