//! `pipeline kinds`: every kind of stage, made from the contract.

use std::process::ExitCode;

use anyhow::bail;
use pipeline_stages::parameter::{Condition, Field, Role};
use pipeline_stages::{ArtifactType, KINDS, KindInfo, Port, PortShape, kind_info};

use super::{did_you_mean, print};
use crate::cli::KindsArguments;
use crate::table;

/// How wide explanations are wrapped.
const WIDTH: usize = 92;

pub(crate) fn run(arguments: &KindsArguments) -> anyhow::Result<ExitCode> {
    match &arguments.kind {
        None => print(&list())?,
        Some(name) => match kind_info(name) {
            Some(kind) => print(&explain(kind))?,
            None => {
                let names = KINDS.iter().map(|kind| kind.name);
                bail!("there is no kind '{name}'; {}", did_you_mean(name, names))
            }
        },
    }
    Ok(ExitCode::SUCCESS)
}

fn list() -> String {
    let mut rows = Vec::new();
    for kind in KINDS {
        let first = (kind.about)().lines().next().unwrap_or("").trim().to_owned();
        rows.push(vec![kind.name.to_owned(), format!("-> {}", kind.output), first]);
    }
    format!("{}\n`pipeline kinds KIND` explains one.\n", table::plain(&rows))
}

/// Everything about one kind. Also the source of the kinds' reference in the docs.
pub(crate) fn explain(kind: &KindInfo) -> String {
    let mut text =
        format!("{} -> {}\n\n{}\n", kind.name, kind.output, paragraphs((kind.about)(), 0));
    let ports = (kind.ports)();
    if !ports.is_empty() {
        text.push_str("\ninputs\n");
        ports.iter().for_each(|port| text.push_str(&explain_port(port)));
    }
    let mut title = String::new();
    for field in (kind.fields)() {
        let next = group_title(field);
        if next != title {
            text.push_str(&format!("\n{next}\n"));
            title = next;
        }
        text.push_str(&explain_field(field));
    }
    let seed = if kind.seeded {
        "\nIt draws random numbers: `seed` may be given, here or under [experiment].\n"
    } else {
        ""
    };
    text.push_str(seed);
    text
}

/// The line above the parameters of one group.
fn group_title(field: &Field) -> String {
    match (field.role, field.only_if.as_slice()) {
        (Role::Execution, _) => "parameters that cannot change the result".to_owned(),
        (Role::Result, []) => "parameters".to_owned(),
        (Role::Result, only_if) => format!("parameters with {}", Condition::all_in_words(only_if)),
    }
}

fn explain_port(port: &Port) -> String {
    let accepts = match port.accepts {
        [] => "any artifact".to_owned(),
        types => types.iter().map(ArtifactType::to_string).collect::<Vec<_>>().join(" or "),
    };
    let shape = match port.shape {
        PortShape::One => accepts,
        PortShape::Optional => format!("{accepts}, optional"),
        PortShape::Many => format!("{accepts}, one or several"),
        PortShape::OptionalMany => format!("{accepts}, none or several"),
        PortShape::Named => format!("table of names to stages ({accepts})"),
        PortShape::Instances => format!("{accepts}, all instances of a stage"),
    };
    format!("  {} = {shape}\n{}\n", port.name(), paragraphs(port.about, 6))
}

fn explain_field(field: &Field) -> String {
    let mut head = format!("  {} = {}", field.name, field.value_type);
    if let Some(range) = field.range {
        head.push_str(&format!(", {range}"));
    }
    match &field.default {
        None => head.push_str(" (must be given)"),
        Some(serde_json::Value::Null) => {}
        Some(default) => head.push_str(&format!(" [default: {default}]")),
    }
    let mut text = format!("{head}\n{}\n", paragraphs(field.about, 6));
    let choices = field.value_type.choices();
    let width = choices.iter().map(|choice| choice.name.len()).max().unwrap_or(0);
    for choice in choices {
        let about = paragraphs(choice.about, 10 + width);
        text.push_str(&format!("        {:width$}  {}\n", choice.name, about.trim_start()));
    }
    text
}

/// Doc comments as wrapped text. An empty line separates paragraphs, and `- ` begins an item of a list.
fn paragraphs(about: &str, indent: usize) -> String {
    let mut blocks: Vec<Block<'_>> = Vec::new();
    let mut gap = "";
    for line in about.lines().map(str::trim) {
        let item = line.strip_prefix("- ");
        if line.is_empty() {
            gap = "\n\n";
        } else if let (None, "", Some(block)) = (item, gap, blocks.last_mut()) {
            block.words.extend(line.split_whitespace());
        } else {
            let gap = if gap.is_empty() && !blocks.is_empty() { "\n" } else { gap };
            let words = item.unwrap_or(line).split_whitespace().collect();
            blocks.push(Block { gap, item: item.is_some(), words });
        }
        if !line.is_empty() {
            gap = "";
        }
    }
    blocks.iter().map(|block| block.text(indent)).collect()
}

/// A paragraph, or an item of a list.
struct Block<'a> {
    /// The empty lines before it.
    gap: &'static str,
    item: bool,
    words: Vec<&'a str>,
}

impl Block<'_> {
    fn text(&self, indent: usize) -> String {
        let margin = " ".repeat(indent);
        if !self.item {
            return self.gap.to_owned() + &wrap(&self.words, &margin);
        }
        let hanging = wrap(&self.words, &format!("{margin}  "));
        format!("{}{margin}- {}", self.gap, hanging.trim_start())
    }
}

fn wrap(words: &[&str], margin: &str) -> String {
    let mut lines = vec![margin.to_owned()];
    for word in words {
        let current = lines.last().map_or(0, |line| line.chars().count());
        if current > margin.len() && current + 1 + word.chars().count() > WIDTH {
            lines.push(margin.to_owned());
        }
        if let Some(line) = lines.last_mut() {
            if line.len() > margin.len() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `docs/kinds.md` must be.
    fn page() -> String {
        let mut page = "# Stage kinds\n\n\
            Made from the contract crate (`src/stages`) by a test of `pipeline kinds`, which also prints it:\n\
            `UPDATE_DOCS=1 cargo test --lib kinds` writes it again.\n\n\
            Every stage may also have `execution`, with `device`, `threads`, `checkpoint-seconds`, `timeout-seconds`, `time`,\n\
            `attempts`, `cpus`, `gpus`, `memory` and `priority` (see [manifest.md](manifest.md#what-stages-take-of-the-machine)), none of which is part of its key.\n"
            .to_owned();
        for kind in KINDS {
            page.push_str(&format!("\n## {}\n\n```text\n{}```\n", kind.name, explain(kind)));
        }
        page
    }

    #[test]
    fn the_reference_in_the_docs_is_what_the_kinds_say() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/kinds.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, page()).expect("the docs can be written");
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == page(),
            "docs/kinds.md is out of date: UPDATE_DOCS=1 cargo test --lib kinds"
        );
    }

    #[test]
    fn every_kind_port_and_parameter_explains_itself() {
        for kind in KINDS {
            assert!(!(kind.about)().is_empty(), "{}", kind.name);
            assert!((kind.ports)().iter().all(|port| !port.about.is_empty()), "{}", kind.name);
            assert!((kind.fields)().iter().all(|field| !field.about.is_empty()), "{}", kind.name);
        }
    }

    #[test]
    fn lists_keep_their_items() {
        let about = "One\n two.\n\n- first: a\n  b;\n- second.\n\nThe end.";
        let expected = "  One two.\n\n  - first: a b;\n  - second.\n\n  The end.";
        assert_eq!(paragraphs(about, 2), expected);
        let long = format!("- {}", "word ".repeat(40));
        let text = paragraphs(&long, 4);
        let mut lines = text.lines();
        assert!(lines.next().is_some_and(|line| line.starts_with("    - word")));
        assert!(lines.all(|line| line.starts_with("      word") && line.len() <= WIDTH), "{text}");
    }

    #[test]
    fn words_are_wrapped_within_the_margin() {
        let words: Vec<&str> = std::iter::repeat_n("word", 60).collect();
        let text = wrap(&words, "    ");
        assert!(text.lines().all(|line| line.starts_with("    ") && line.len() <= WIDTH), "{text}");
        assert_eq!(text.split_whitespace().count(), 60);
    }
}
