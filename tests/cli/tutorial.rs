//! docs/tutorial.md: every command in it runs, and every change of the manifest can be made.

use std::fs;
use std::path::Path;

use crate::support::{MANIFEST, Sandbox};

/// What the tutorial tells its reader to do.
#[derive(Debug)]
enum Step {
    /// To type a command.
    Command(String),
    /// To replace a text of the manifest by another one.
    Replace(String, String),
    /// To add a text to the manifest.
    Append(String),
}

/// The steps of the tutorial: lines that begin with `$` in blocks for a console, and blocks of TOML after a comment
/// that says where they go.
fn steps() -> Vec<Step> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/tutorial.md");
    let text = fs::read_to_string(path).expect("it exists");
    let (mut steps, mut block, mut place) = (Vec::new(), None, String::new());
    for line in text.lines() {
        match (&mut block, line) {
            (None, line) if line.starts_with("```") => block = Some((line, String::new())),
            (None, line) if line.starts_with("<!-- ") => {
                place = line.replace("<!-- ", "").replace(" -->", "");
            }
            (None, _) => {}
            (Some((kind, text)), "```") => {
                match (*kind, place.split_once(": ")) {
                    ("```toml", Some(("replace", old))) => {
                        steps.push(Step::Replace(old.to_owned(), text.clone()));
                    }
                    ("```toml", _) if place == "append" => steps.push(Step::Append(text.clone())),
                    ("```console", _) => {
                        let lines = text.lines().filter_map(|line| line.strip_prefix("$ "));
                        steps.extend(lines.map(|line| Step::Command(line.to_owned())));
                    }
                    other => panic!("a block that nobody tries: {other:?}"),
                }
                (block, place) = (None, String::new());
            }
            (Some((_, text)), line) => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    steps
}

/// The words of a command line; those in single quotes are one.
fn words(line: &str) -> Vec<String> {
    let parts = line.split('\'').enumerate();
    let words = parts.flat_map(|(place, part)| match place % 2 {
        0 => part.split_whitespace().map(str::to_owned).collect(),
        _ => vec![part.to_owned()],
    });
    words.collect()
}

#[test]
fn every_command_of_the_tutorial_runs() {
    let project = Sandbox::new("").with_fake_learn("");
    fs::remove_file(project.path(MANIFEST)).expect("it exists");
    project.write_photos("photos", &["cat", "dog"], 12, 4);
    let steps = steps();
    assert!(steps.len() > 15, "{steps:?}");
    for step in steps {
        let manifest = project.read("pipeline.toml");
        match step {
            Step::Command(line) => {
                let line = line.strip_prefix("pipeline ").expect("a command of this program");
                let mut command = project.command("");
                command.args(words(line));
                let ended = project.start_command(command).wait();
                assert_eq!(
                    ended.code(),
                    Some(0),
                    "{line}: {ended}\n{}",
                    project.read("pipeline.toml")
                );
            }
            Step::Replace(old, new) => {
                assert_eq!(
                    manifest.matches(&format!("\n{old}\n")).count(),
                    1,
                    "{old} in\n{manifest}"
                );
                project.write(
                    "pipeline.toml",
                    manifest.replace(&format!("\n{old}\n"), &format!("\n{new}")),
                );
            }
            Step::Append(new) => project.write("pipeline.toml", manifest + "\n" + &new),
        }
    }
    let table = project.cache("latest/photos/accuracy/table.md");
    let table = fs::read_to_string(table).expect("a table");
    assert!(table.contains("| simclr") && table.contains("rate = 0.5"), "{table}");
    // Four seeds, two rates, two starts.
    let plan = project.pipeline("plan pipeline.toml --set matrix.seed=[1,2,3,4] train").printed();
    assert!(plan.contains("16: 16 fresh"), "{plan}");
}
