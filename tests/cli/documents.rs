//! What documents tell their readers to write and to type.

use std::fs;
use std::path::Path;

/// A document of the folder `docs`.
pub fn document(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    fs::read_to_string(path).expect("it exists")
}

/// The blocks of a language between a heading and the next one.
pub fn blocks(document: &str, heading: &str, language: &str) -> Vec<String> {
    let document = format!("\n{document}");
    let (_, after) = document.split_once(&format!("\n{heading}\n")).expect("it is in the document");
    let section = after.split("\n#").next().unwrap_or_default();
    let blocks = section.split("\n```").skip(1).step_by(2);
    let blocks = blocks.filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n'));
    blocks.map(|block| format!("{block}\n")).collect()
}
