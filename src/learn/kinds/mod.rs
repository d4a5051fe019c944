//! The bodies of the stage kinds, one file or folder each.

pub mod evaluate;
pub mod features;
pub mod pretrain_simclr;
pub mod pretrain_supervised;
pub mod probe;
pub mod purify_labels;
pub mod train;
