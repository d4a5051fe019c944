//! What is said of a name that does not exist.

use crate::manifest;

/// Most names in the list of what there is.
pub(super) const MOST_LISTED: usize = 40;

/// `did you mean 'train'?`, or the list of all.
pub(crate) fn did_you_mean<'a>(name: &str, all: impl Iterator<Item = &'a str>) -> String {
    let all: Vec<&str> = all.collect();
    let nearest = manifest::did_you_mean(name, all.iter().copied());
    nearest.unwrap_or_else(|| format!("there are: {}", all.join(", ")))
}
