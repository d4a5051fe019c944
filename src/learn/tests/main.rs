//! Tests of the bodies in one program: each that links libtorch takes its time to build.

mod averaging;
mod decoding;
mod features;
mod fixture;
#[path = "golden/formula.rs"]
mod formula;
mod large_images;
mod meta_weight_net;
mod methods;
mod per_sample;
mod purify_labels;
mod refusals;

// The sample of docs/adding-a-method.md is written as a file of `src/learn/methods` is: it finds these in its own crate.
use pipeline_learn::training;
