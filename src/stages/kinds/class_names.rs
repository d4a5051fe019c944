//! The parameter `classes`, which several kinds have: names of classes.

use std::collections::HashSet;

use crate::kind::Problem;

/// What is wrong with a list of names: it is empty, a name is, or two are the same.
pub(super) fn problems(classes: Option<&[String]>) -> Vec<Problem> {
    let Some(classes) = classes else { return Vec::new() };
    let mut problems = Vec::new();
    if classes.is_empty() {
        problems.push(Problem::new("classes", "'classes' is empty: name the classes, or drop it"));
    }
    let mut seen = HashSet::new();
    for class in classes {
        if class.is_empty() {
            problems.push(Problem::new("classes", "a class has no name"));
        } else if !seen.insert(class) {
            problems.push(Problem::new("classes", format!("'classes' has '{class}' twice")));
        }
    }
    problems
}
