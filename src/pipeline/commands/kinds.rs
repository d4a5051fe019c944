//! `pipeline kinds`: every kind of stage, made from the contract.

#[cfg(test)]
mod values;

use std::process::ExitCode;

use anyhow::anyhow;
use pipeline_stages::parameter::{Choice, Condition, Field, Role};
use pipeline_stages::{ArtifactType, KINDS, KindInfo, Port, PortShape, kind_info};
use serde_json::{Value, json};

use super::hint::did_you_mean;
use super::output::{print, print_json};
use crate::cli::KindsArguments;
use crate::manifest;
use crate::screen;

/// How wide explanations are wrapped, where a terminal is not narrower.
const WIDTH: usize = 92;
/// They are not wrapped to less than this.
const LEAST: usize = 40;
/// What begins the part of an explanation that is about the output: it is shown below the parameters.
const OUTPUT_TITLE: &str = "# Output\n";

pub(crate) fn run(arguments: &KindsArguments) -> anyhow::Result<ExitCode> {
    let kind = arguments.kind.as_deref().map(find).transpose()?;
    let terminal = screen::of_output().map(|size| size.width);
    let width = terminal.map_or(WIDTH, |width| width.clamp(LEAST, WIDTH));
    match (kind, &arguments.parameter) {
        (None, _) if arguments.json => {
            print_json(&KINDS.iter().map(to_json).collect())?;
        }
        (None, _) => print(&list(terminal))?,
        (Some(kind), _) if arguments.json => print_json(&to_json(kind))?,
        (Some(kind), None) => print(&explain(kind, width))?,
        (Some(kind), Some(name)) => print(&explain_one(kind, name, width)?)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn find(name: &str) -> anyhow::Result<&'static KindInfo> {
    let unknown = || {
        let names = KINDS.iter().map(|kind| kind.name);
        anyhow!("there is no kind '{name}'; {}", did_you_mean(name, names))
    };
    kind_info(name).ok_or_else(unknown)
}

/// Everything about a kind that has this name: an input or a parameter, and values of parameters.
fn explain_one(kind: &KindInfo, name: &str, width: usize) -> anyhow::Result<String> {
    let (ports, fields) = ((kind.ports)(), (kind.fields)());
    let mut found = Vec::new();
    if let Some(port) = ports.iter().find(|port| port.name() == name) {
        found.push(format!("inputs\n{}", explain_port(port, width)));
    }
    if let Some(field) = fields.iter().find(|field| field.name == name) {
        found.push(format!("{}\n{}", group_title(field), explain_field(field, width, |_| true)));
    }
    let takes = |field: &&Field| field.value_type.choices().iter().any(|one| one.name == name);
    found.extend(fields.iter().filter(takes).map(|field| explain_value(kind, field, name, width)));
    if !found.is_empty() {
        return Ok(found.join("\n"));
    }
    let mut names: Vec<String> = ports.iter().map(Port::name).collect();
    names.extend(fields.iter().map(|field| field.name.clone()));
    let values = fields.iter().flat_map(|field| field.value_type.choices());
    names.extend(values.map(|choice| choice.name.to_owned()));
    let hint = manifest::did_you_mean(name, names.iter().map(String::as_str));
    let hint = hint.unwrap_or_else(|| format!("`pipeline kinds {}` has them all", kind.name));
    Err(anyhow!("'{}' does not have '{name}'; {hint}", kind.name))
}

/// A value: its parameter with this value alone, and the parameters that have an effect only with it, but for one of its name.
fn explain_value(kind: &KindInfo, field: &Field, value: &str, width: usize) -> String {
    let own = explain_field(field, width, |choice| choice.name == value);
    let belongs = |other: &&Field| {
        let of_value = |one: &Condition| {
            one.parameter == field.name && one.values.contains(&Value::from(value))
        };
        other.name != value && other.only_if.iter().any(of_value)
    };
    let others = explain_fields((kind.fields)().iter().filter(belongs), width);
    format!("{}\n{own}{others}", group_title(field))
}

/// A kind for programs. What a value can be is in words here; `pipeline schema` has it in full.
fn to_json(kind: &KindInfo) -> Value {
    let ports = (kind.ports)();
    let inputs = ports.iter().map(|port| {
        let accepts: Vec<_> = port.accepts.iter().map(ArtifactType::to_string).collect();
        json!({
            "name": port.name(),
            "about": port.about,
            "optional": matches!(port.shape, PortShape::Optional | PortShape::OptionalMany),
            "accepts": accepts,
        })
    });
    let fields = (kind.fields)();
    let parameters = fields.iter().map(|field| {
        let choices = field.value_type.choices().iter();
        let choices = choices.map(|choice| json!({ "name": choice.name, "about": choice.about }));
        let mut parameter = json!({
            "name": field.name,
            "about": field.about,
            "type": field.value_type.to_string(),
            "required": field.default.is_none(),
            "default": field.default,
            "changes-result": field.role == Role::Result,
            "choices": choices.collect::<Vec<_>>(),
        });
        if let Some(range) = field.range {
            parameter["range"] = json!(range.to_string());
        }
        if !field.only_if.is_empty() {
            parameter["only-with"] = json!(Condition::all_in_words(&field.only_if));
        }
        parameter
    });
    let (about, of_output) = about(kind);
    json!({
        "name": kind.name,
        "about": about,
        "output": kind.output.to_string(),
        "about-output": of_output,
        "seeded": kind.seeded,
        "inputs": inputs.collect::<Vec<_>>(),
        "parameters": parameters.collect::<Vec<_>>(),
    })
}

/// A line for each kind, with the first one of its explanation, which is wrapped where a terminal is narrower.
fn list(terminal: Option<usize>) -> String {
    const GAP: usize = 2;
    let output = |kind: &KindInfo| format!("-> {}", kind.output);
    let names = KINDS.iter().map(|kind| kind.name.len()).max().unwrap_or(0);
    let outputs = KINDS.iter().map(|kind| output(kind).len()).max().unwrap_or(0);
    let margin = " ".repeat(names + GAP + outputs + GAP);
    let width = terminal.map_or(usize::MAX, |width| width.max(margin.len() + LEAST));
    let line = |kind: &KindInfo| {
        let words: Vec<_> =
            (kind.about)().lines().next().unwrap_or("").split_whitespace().collect();
        let about = wrap(&words, &margin, width);
        format!("{:names$}  {:outputs$}  {}\n", kind.name, output(kind), about.trim_start())
    };
    let lines: String = KINDS.iter().map(line).collect();
    format!(
        "{lines}\n`pipeline kinds KIND` explains one, `pipeline kinds KIND NAME` one part of it.\n"
    )
}

/// The explanation of a kind, and that of its output, which may be empty.
fn about(kind: &KindInfo) -> (&'static str, &'static str) {
    let about = (kind.about)();
    let (about, output) = about.split_once(OUTPUT_TITLE).unwrap_or((about, ""));
    (about.trim(), output.trim())
}

/// Everything about one kind. Also the source of the kinds' reference in the docs.
pub(crate) fn explain(kind: &KindInfo, width: usize) -> String {
    let (about, output) = about(kind);
    let mut text = format!("{} -> {}\n\n{}\n", kind.name, kind.output, paragraphs(about, 0, width));
    let ports = (kind.ports)();
    if !ports.is_empty() {
        text.push_str("\ninputs\n");
        ports.iter().for_each(|port| text.push_str(&explain_port(port, width)));
    }
    text.push_str(&explain_fields((kind.fields)().iter(), width));
    let seed = if kind.seeded {
        "\nIt draws random numbers: `seed` may be given, here or under [experiment].\n"
    } else {
        ""
    };
    text.push_str(seed);
    if !output.is_empty() {
        text.push_str(&format!("\noutput\n\n{}\n", paragraphs(output, 0, width)));
    }
    text
}

/// Parameters, with a title above each group of them.
fn explain_fields<'f>(fields: impl Iterator<Item = &'f Field>, width: usize) -> String {
    let (mut text, mut title) = (String::new(), String::new());
    for field in fields {
        let next = group_title(field);
        if next != title {
            text.push_str(&format!("\n{next}\n"));
            title = next;
        }
        text.push_str(&explain_field(field, width, |_| true));
    }
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

fn explain_port(port: &Port, width: usize) -> String {
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
    format!("  {} = {shape}\n{}\n", port.name(), paragraphs(port.about, 6, width))
}

/// A parameter, with these of its values.
fn explain_field(field: &Field, width: usize, shown: impl Fn(&Choice) -> bool) -> String {
    let mut head = format!("  {} = {}", field.name, field.value_type);
    if let Some(range) = field.range {
        head.push_str(&format!(", {range}"));
    }
    match &field.default {
        None => head.push_str(" (must be given)"),
        Some(serde_json::Value::Null) => {}
        Some(default) => head.push_str(&format!(" [default: {default}]")),
    }
    let mut text = format!("{head}\n{}\n", paragraphs(field.about, 6, width));
    let choices = field.value_type.choices().iter();
    let choices: Vec<_> = choices.filter(|choice| shown(choice)).collect();
    let names = choices.iter().map(|choice| choice.name.len()).max().unwrap_or(0);
    for choice in choices {
        let about = paragraphs(choice.about, 10 + names, width);
        text.push_str(&format!("        {:names$}  {}\n", choice.name, about.trim_start()));
    }
    text
}

/// Doc comments as text that is wrapped to this width. An empty line separates paragraphs, and `- ` begins an item of a list.
fn paragraphs(about: &str, indent: usize, width: usize) -> String {
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
    blocks.iter().map(|block| block.text(indent, width)).collect()
}

/// A paragraph, or an item of a list.
struct Block<'a> {
    /// The empty lines before it.
    gap: &'static str,
    item: bool,
    words: Vec<&'a str>,
}

impl Block<'_> {
    fn text(&self, indent: usize, width: usize) -> String {
        let margin = " ".repeat(indent);
        if !self.item {
            return self.gap.to_owned() + &wrap(&self.words, &margin, width);
        }
        let hanging = wrap(&self.words, &format!("{margin}  "), width);
        format!("{}{margin}- {}", self.gap, hanging.trim_start())
    }
}

fn wrap(words: &[&str], margin: &str, width: usize) -> String {
    let mut lines = vec![margin.to_owned()];
    for word in words {
        let current = lines.last().map_or(0, |line| line.chars().count());
        if current > margin.len() && current + 1 + word.chars().count() > width {
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
            `attempts`, `cpus`, `gpus`, `memory`, `resources` and `priority` (see [manifest.md](manifest.md#what-stages-take-of-the-machine)), none of which is part of its key.\n"
            .to_owned();
        for kind in KINDS {
            page.push_str(&format!("\n## {}\n\n```text\n{}```\n", kind.name, explain(kind, WIDTH)));
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
        assert_eq!(paragraphs(about, 2, WIDTH), expected);
        let long = format!("- {}", "word ".repeat(40));
        let text = paragraphs(&long, 4, WIDTH);
        let mut lines = text.lines();
        assert!(lines.next().is_some_and(|line| line.starts_with("    - word")));
        assert!(lines.all(|line| line.starts_with("      word") && line.len() <= WIDTH), "{text}");
    }

    #[test]
    fn a_list_is_as_wide_as_the_terminal() {
        assert_eq!(list(None).lines().count(), KINDS.len() + 2);
        let narrow = list(Some(90));
        let (lines, _) = narrow.split_once("\n\n").expect("two parts");
        assert!(lines.lines().all(|line| line.len() <= 90), "{lines}");
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(&narrow), words(&list(None)));
    }

    #[test]
    fn words_are_wrapped_within_the_margin() {
        let words: Vec<&str> = std::iter::repeat_n("word", 60).collect();
        let text = wrap(&words, "    ", WIDTH);
        assert!(text.lines().all(|line| line.starts_with("    ") && line.len() <= WIDTH), "{text}");
        assert_eq!(text.split_whitespace().count(), 60);
    }
}
