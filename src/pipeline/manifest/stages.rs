//! The stages of a manifest, in the file's order, and found by their names.
//!
//! Uses only the names of stages.

use std::ops::Deref;

use foldhash::HashMap;

use super::declaration::Stage;
use crate::stage_name::StageName;

/// The stages of a manifest, in the file's order. They do not change, so the places of names stay valid.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stages {
    all: Vec<Stage>,
    places: HashMap<StageName, usize>,
}

impl Stages {
    pub(super) fn new(all: Vec<Stage>) -> Self {
        let names = all.iter().map(|stage| stage.name.clone());
        let places = names.enumerate().map(|(place, name)| (name, place)).collect();
        Self { all, places }
    }

    /// The place of a stage in the file's order, from 0.
    pub(crate) fn position(&self, name: &StageName) -> Option<usize> {
        self.places.get(name).copied()
    }
}

impl Deref for Stages {
    type Target = [Stage];

    fn deref(&self) -> &[Stage] {
        &self.all
    }
}

impl<'a> IntoIterator for &'a Stages {
    type Item = &'a Stage;
    type IntoIter = std::slice::Iter<'a, Stage>;

    fn into_iter(self) -> Self::IntoIter {
        self.all.iter()
    }
}
