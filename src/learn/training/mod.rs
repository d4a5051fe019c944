//! Training: the loop of every training and what it is made of; the trainer of classifiers; what a method is.
//!
//! [`training_loop`] has epochs, steps and [`checkpoint`]s. A [`recipe`] says how a classifier is trained, [`training_data`] what
//! on; a [`method`] says what is learned and what happens in one step; [`supervised_trainer`] runs it.

pub mod batch;
pub mod captured_step;
pub mod checkpoint;
pub mod curve;
pub mod decay;
mod draws;
pub mod epoch_log;
pub mod epoch_sums;
pub mod loss;
pub mod loss_curve;
pub mod method;
pub mod optimizer;
pub mod prefetch;
pub mod recipe;
pub mod recorder;
pub mod schedule;
pub mod state_tensors;
pub mod supervised_trainer;
pub mod training_data;
pub mod training_loop;
mod weight_storage;
