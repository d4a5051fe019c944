//! The code in docs/adding-a-kind.md and docs/adding-a-method.md is that of files which the tests of their crates compile and run.

use std::collections::BTreeMap;
use std::path::Path;

/// What a document leaves out between two quotations in one block.
const LEFT_OUT: &str = "\n// ...\n";

/// The blocks of Rust in a document, without the indentation of the lists that they are in, by the file that each is from: the
/// last one below `src/` that the text before it names. Line breaks are before and after each.
fn quoted(document: &str) -> BTreeMap<&str, Vec<String>> {
    let mut blocks = BTreeMap::<&str, Vec<String>>::new();
    let mut file = None;
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        let text = line.trim_start();
        let indentation = &line[..line.len() - text.len()];
        let is_file = |name: &&str| name.starts_with("src/") && name.ends_with(".rs");
        file = text.split('`').rfind(is_file).or(file);
        if text == "```rust" {
            let within = lines.by_ref().take_while(|line| line.trim_start() != "```");
            let within = within.map(|line| line.strip_prefix(indentation).unwrap_or(line));
            let block = format!("\n{}\n", within.collect::<Vec<_>>().join("\n"));
            blocks.entry(file.expect("no file is named")).or_default().push(block);
        }
    }
    blocks
}

/// The code of a document by its files, as [`quoted`], each part of which is in its file.
fn compared<'d>(name: &str, document: &'d str) -> BTreeMap<&'d str, Vec<String>> {
    let quoted = quoted(document);
    for (path, blocks) in &quoted {
        let file = format!("\n{}", read(path));
        for part in blocks.iter().flat_map(|block| block.split(LEFT_OUT)) {
            let part = format!("\n{}\n", part.trim_matches('\n'));
            assert!(file.contains(&part), "{name}: not in {path}:\n{part}");
        }
    }
    quoted
}

/// A file of the project.
fn read(path: &str) -> String {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::fs::read_to_string(top.join(path)).unwrap()
}

#[test]
fn the_code_of_a_method_is_that_of_its_files() {
    let name = "docs/adding-a-method.md";
    let document = read(name);
    let quoted = compared(name, &document);
    // The sample is whole.
    let sample = "src/learn/tests/averaging.rs";
    assert_eq!(quoted[sample].concat(), format!("\n{}", read(sample)));
    assert_eq!(quoted.len(), 5, "{:?}", quoted.keys());
}

#[test]
fn the_code_of_a_kind_is_that_of_its_files() {
    let name = "docs/adding-a-kind.md";
    let document = read(name);
    let quoted = compared(name, &document);
    let files = ["src/prepare/split.rs", "src/stages/kinds/mod.rs", "src/stages/kinds/split.rs"];
    assert_eq!(quoted.into_keys().collect::<Vec<_>>(), files);
}
