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

/// The blocks of commands of docs/cluster.md, each of which a test runs as it is there.
pub struct ClusterCommands {
    /// Finds out whether two machines see the locks of each other.
    pub try_locks: String,
    /// Frees the key of a machine that is gone.
    pub free_key: String,
    pub first_user: String,
    pub other_user: String,
    pub there_and_here: String,
}

impl ClusterCommands {
    /// Those of such a document. Another block is a mistake here: whoever adds one runs it in a test.
    pub fn of(document: &str) -> Self {
        let blocks = all_blocks(document, "sh");
        let Ok([try_locks, free_key, first_user, other_user, container, there_and_here]) =
            <[String; 6]>::try_from(blocks.clone())
        else {
            panic!("six blocks of commands, each of which a test runs: {blocks:#?}")
        };
        // No test has Apptainer, which the document says.
        assert!(container.contains("apptainer build"), "{container}");
        Self { try_locks, free_key, first_user, other_user, there_and_here }
    }
}

/// All blocks of a language, also those within lists, which are indented.
fn all_blocks(document: &str, language: &str) -> Vec<String> {
    let (mut blocks, mut block) = (Vec::new(), None::<(bool, String)>);
    for line in document.lines().map(str::trim_start) {
        match (line.strip_prefix("```"), &mut block) {
            (Some(name), None) => block = Some((name == language, String::new())),
            (Some(_), Some((is_meant, text))) => {
                blocks.extend(is_meant.then(|| std::mem::take(text)));
                block = None;
            }
            (None, Some((_, text))) => text.push_str(&format!("{line}\n")),
            (None, None) => {}
        }
    }
    blocks
}
