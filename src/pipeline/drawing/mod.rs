//! The stages as pictures have them: many instances of one stage are one node.
//!
//! [`Drawing`] has what is shown, [`layout`] where it is, [`svg`] writes it. All are pure functions of a manifest and its plan.

mod layout;
mod nodes;
mod svg;

pub(crate) use nodes::{Drawing, Node};
pub(crate) use svg::{Links, svg};
