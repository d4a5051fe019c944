//! The page of `pipeline report`: what is known of an experiment, as data ([`Report`]) and as one HTML file ([`page`]).
//!
//! [`stage`] has what records know of a stage, [`contents`] what is read from its artifact and its log. Nothing is run or written.

mod contents;
mod csv;
mod data;
mod page;
mod pictures;
mod runs;
mod stage;
mod subject;

pub(crate) use data::Report;
pub(crate) use page::page;
pub(crate) use subject::{MOST_STAGES, ReportScope, Subject};
