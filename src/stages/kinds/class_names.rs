//! The parameter `classes`, which several kinds have: names of classes.

use crate::kind::Problem;
use crate::text::indistinct_classes;

/// What is wrong with a list of names: it is empty, a name is, or two are the same.
pub(super) fn problems(classes: Option<&[String]>) -> Vec<Problem> {
    let Some(classes) = classes else { return Vec::new() };
    let mut problems = Vec::new();
    if classes.is_empty() {
        problems.push(Problem::new("classes", "'classes' is empty: name the classes, or drop it"));
    }
    let indistinct = indistinct_classes(classes).into_iter();
    problems.extend(indistinct.map(|problem| Problem::new("classes", problem)));
    problems
}
