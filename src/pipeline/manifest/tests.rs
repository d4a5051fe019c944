//! Manifests, good and bad, and what is said about them.

use std::path::Path;

use super::{Manifest, Override, parse};
use crate::diagnostic::Colour;
use crate::graph::Graph;

mod envelope;
mod good;
mod known;
mod overrides;
mod parameters;
mod ports;
mod properties;
mod scale;
mod stages;
mod syntax;

/// A manifest in which every kind has a stage, and which is right.
const GOOD: &str = include_str!("tests/good.toml");

/// The start of a manifest that is right: line 8 is the first of what follows.
const HEAD: &str = "\
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

/// The manifest that stands in `text`.
fn right(text: &str, set: &[&str]) -> (Manifest, Graph) {
    parse(Path::new("pipelines/x.toml"), text, &overrides(set))
        .unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

/// What is said about a manifest that is wrong.
fn said(text: &str) -> String {
    said_with(text, &[])
}

fn said_with(text: &str, set: &[&str]) -> String {
    match parse(Path::new("x.toml"), text, &overrides(set)) {
        Ok((manifest, _)) => panic!("nothing is wrong with {manifest:?}"),
        Err(mistakes) => mistakes.render(Colour::Never),
    }
}

/// What is said about these lines after [`HEAD`].
fn said_after_head(lines: &str) -> String {
    said(&format!("{HEAD}{lines}"))
}

/// What is said about these lines in a stage of the kind `train` that is right without them.
fn said_of_train(lines: &str) -> String {
    said_after_head(&format!("[stages.train]\nkind = \"train\"\ndata = \"data\"\n{lines}"))
}

/// What is said about these overrides of a manifest that is right without them.
fn said_of_set(set: &[&str]) -> String {
    let train = "[stages.train]\nkind = \"train\"\ndata = \"data\"\n";
    let make = "[stages.make]\nkind = \"command\"\nrun = [\"make\"]\noutput = \"weights\"\n";
    said_with(&format!("{HEAD}{train}{make}"), set)
}
