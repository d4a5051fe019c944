//! Images: where they are, which ones a step uses, and how they become the inputs of a network.

pub mod augment;
pub mod batches;
pub mod decode;
pub mod image_store;
pub mod mixing;
pub mod preprocess;
