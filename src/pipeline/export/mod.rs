//! An experiment as a folder for others: what was run, with what, and what it produced; or the artifact of one stage.
//!
//! [`ro_crate`] describes it, [`folder`] writes it. Reads records and artifacts; does not depend on how stages are run.

mod folder;
mod ro_crate;

pub(crate) use folder::{Weights, write, write_artifact};
pub(crate) use ro_crate::{Crate, Exported};
