//! Manifests, good and bad, and the mistakes that are shown.

use std::path::Path;

use super::{Manifest, Override, parse};
use crate::diagnostic::Colour;
use crate::graph::Graph;

mod all_instances;
mod causes;
mod clean_labels;
mod envelope;
mod good;
mod include;
mod known;
mod matrix;
mod overrides;
mod paper;
mod parameters;
mod ports;
mod properties;
mod resources;
mod scale;
mod stages;
mod syntax;

/// A manifest in which every kind has a stage, and which is right.
pub(super) const GOOD: &str = include_str!("tests/good.toml");

/// The start of a manifest that is right: line 8 is the first of what follows.
pub(super) const HEAD: &str = "\
[experiment]
name = \"x\"

[stages.data]
kind = \"dataset\"
format = \"idx\"
path = \"d\"
";

fn overrides(texts: &[&str]) -> Vec<Override> {
    texts.iter().map(|text| text.parse().expect("a path and a value")).collect()
}

/// The manifest in `text`.
fn right(text: &str, set: &[&str]) -> (Manifest, Graph) {
    let read = parse(Path::new("pipelines/x.toml"), text, &overrides(set))
        .unwrap_or_else(|mistakes| panic!("{mistakes}"));
    // Editors must not find a mistake in it.
    if set.is_empty() {
        assert_eq!(super::schema::refused(text), None, "{text}");
    }
    read
}

/// The mistakes of a manifest that is wrong, as they are shown.
fn shown(text: &str) -> String {
    shown_with(text, &[])
}

fn shown_with(text: &str, set: &[&str]) -> String {
    match parse(Path::new("x.toml"), text, &overrides(set)) {
        Ok((manifest, _)) => panic!("nothing is wrong with {manifest:?}"),
        Err(mistakes) => mistakes.render(Colour::Never),
    }
}

/// The mistakes of these lines after [`HEAD`].
fn shown_after_head(lines: &str) -> String {
    shown(&format!("{HEAD}{lines}"))
}

/// The mistakes of these lines in a stage of the kind `train` that is right without them.
fn shown_of_train(lines: &str) -> String {
    shown_after_head(&format!("[stages.train]\nkind = \"train\"\ndata = \"data\"\n{lines}"))
}

/// The mistakes of these overrides of a manifest that is right without them.
fn shown_of_set(set: &[&str]) -> String {
    let train = "[stages.train]\nkind = \"train\"\ndata = \"data\"\n";
    let make = "[stages.make]\nkind = \"command\"\nrun = [\"make\"]\noutput = \"weights\"\n";
    shown_with(&format!("{HEAD}{train}{make}"), set)
}
