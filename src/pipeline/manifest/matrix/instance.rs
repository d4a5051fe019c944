//! What a manifest's stages are at the points of its matrix.
//!
//! Does not depend on how they are found.

use std::borrow::Cow;

use super::super::values::Value;
use crate::diagnostic::Span;

/// A stage at a point of the matrix, or one that does not depend on it.
pub(in crate::manifest) struct Instance<'t, 'i> {
    /// Its name: `train@method=ce,rate=0.9`.
    pub(in crate::manifest) name: Cow<'t, str>,
    /// The name of the stage in the manifest.
    pub(in crate::manifest) template: &'t str,
    /// Where that is.
    pub(in crate::manifest) span: Span,
    /// What it is at this point.
    pub(in crate::manifest) value: Cow<'t, Value<'i>>,
    /// The keys of it that are from `[defaults.KIND]`.
    pub(in crate::manifest) defaults: Vec<&'t str>,
    /// The places in it where all instances of a stage stand, in a list.
    pub(in crate::manifest) lists: Vec<Span>,
}
