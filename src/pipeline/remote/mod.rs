//! A cache that others share: results under their keys in a place that several machines can read.
//!
//! ```text
//! REMOTE/
//!   VERSION                          the version of this layout
//!   records/ab/<key>.json            a record, as in a cache; put last
//!   signatures/ab/<statement>-<who>  that somebody answers for a record with these bytes
//!   artifacts/ab/<digest>.json.zst   the files of an artifact, each with its digest, and how they are kept
//!   packs/ab/<digest>.zst            the small files of an artifact, one after the other
//!   blobs/ab/<digest>[.zst]          a large file, under the digest of its bytes
//! ```
//!
//! Nothing there is ever changed or removed, and everything is checked when it is read. What is there for which kind of
//! address is behind [`Remote`](transport::Remote): one file each, and one line in [`connect`]. Does not depend on how a stage is run.

mod blobs;
mod connect;
mod contents;
mod folder;
mod http;
mod index;
mod live;
mod name;
mod outage;
mod progress;
mod pull;
mod push;
mod s3;
mod shared;
mod source;
mod spoiled;
mod ssh;
#[cfg(test)]
mod tests;
mod transport;
mod web;

pub(crate) use contents::RemoteState;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use http::is_header;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use index::is_index;
pub(crate) use live::LivePush;
pub(crate) use pull::NotPulled;
pub(crate) use push::{Pushed, What};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use s3::{is_answer, is_for_s3};
pub(crate) use shared::SharedCache;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use ssh::fuzz::are_replies;
