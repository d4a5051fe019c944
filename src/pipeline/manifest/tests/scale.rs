//! Many mistakes: as many are counted, a hundred are shown, and none takes longer because of the others.

use std::fmt::Write as _;
use std::path::Path;

use super::super::parse;
use super::{HEAD, overrides};
use crate::diagnostic::Colour;

const MANY: usize = 3_000;

/// [`HEAD`], then a text made of a line for each number, with its number in place of every `#`.
fn many(before: &str, line: &str, after: &str) -> String {
    let mut text = format!("{HEAD}{before}");
    for number in 0..MANY {
        writeln!(text, "{}", line.replace('#', &number.to_string())).expect("text grows");
    }
    text + after
}

/// How many mistakes there are, and the last line of what is shown.
fn counted(text: &str, set: &[String]) -> (usize, String) {
    let set: Vec<&str> = set.iter().map(String::as_str).collect();
    let mistakes = parse(Path::new("x.toml"), text, &overrides(&set)).expect_err("mistakes");
    let shown = mistakes.render(Colour::Never);
    assert!(shown.matches("error: ").count() <= 101, "{shown}");
    (mistakes.list().len(), shown.lines().last().unwrap_or_default().to_owned())
}

#[test]
fn many_mistakes_are_counted_and_a_hundred_are_shown() {
    let get = "[stages.get]\nkind = \"download\"\nurl = \"file:a\"\nunverified = true\n";
    let command = "[stages.a]\nkind = \"command\"\n";
    let shell = "[stages.a]\nkind = \"command\"\nshell = \"true\"\n";
    for (what, text) in [
        ("unknown keys", many(shell, "key# = 1", "")),
        ("unknown tables", many(shell, "[other#]", "")),
        ("keys that occur twice", many(shell, "k = 1", "").replacen("k = 1", "timeout = 1", 1)),
        ("tables that occur twice", many(shell, "[stages.a]", "")),
        ("text without quotes", many(shell, "[stages.s#]\nkind = text", "")),
        ("stages that do not exist", many("", "[stages.s#]\nkind = \"split\"\ndata = \"t#\"", "")),
        ("stages that do not fit", many("", "[stages.s#]\nkind = \"split\"\ndata = \"s0\"", "")),
        ("missing ports", many("", "[stages.s#]\nkind = \"split\"", "")),
        (
            "items twice",
            many(
                &format!("{get}[stages.a]\nkind = \"dataset\"\nformat = \"idx\"\nsource = [\n"),
                "\"get\",",
                "]",
            ),
        ),
        (
            "classes twice",
            many(
                "[stages.a]\nkind = \"dataset\"\nformat = \"idx\"\npath = \"a\"\nclasses = [\n\"a0\",",
                "\"a#\", \"a#\",",
                "]",
            ),
        ),
        ("placeholders", many(&format!("{command}run = [\"a\",\n"), "\"{x#}\",", "]")),
        (
            "placeholders on one line",
            many(&format!("{command}run = [\"a\",\n\""), "{x#}", "\"]").replace("}\n", "}"),
        ),
        (
            "variables",
            many(&format!("{shell}[stages.a.inputs]\n"), "a_# = \"data\"\na-# = \"data\"", ""),
        ),
        (
            "keys that occur twice, on one line",
            many("", "k = 1,", "").replace(",\n", ", ").replacen("k =", "x = { k =", 1) + "}\n",
        ),
    ] {
        let (count, last) = counted(&text, &[]);
        assert!((MANY - 1..=MANY + 1).contains(&count), "{what}: {last}");
        let expected =
            format!("error: {count} mistakes in x.toml; the first 100 are shown; nothing was run");
        assert_eq!(last, expected, "{what}");
    }
    let set: Vec<_> = (0..MANY).map(|number| format!("stages.s{number}.epochs=3")).collect();
    let (count, last) = counted(&format!("{HEAD}{shell}"), &set);
    assert_eq!(count, MANY, "{last}");
}

#[test]
fn a_long_cycle_is_one_mistake() {
    let stage = "kind = \"command\"\nshell = \"true\"\n";
    let mut text = HEAD.to_owned();
    for number in 0..MANY {
        let before = (number + MANY - 1) % MANY;
        writeln!(text, "[stages.s{number}]\n{stage}inputs = {{ a = \"s{before}\" }}")
            .expect("text grows");
    }
    let mistakes = parse(Path::new("x.toml"), &text, &[]).expect_err("a cycle");
    let [cycle] = mistakes.list() else { panic!("{mistakes}") };
    let title = "cycle: s0 -> s1 -> s2 -> s3 -> s4 -> (2993 others) -> s2998 -> s2999 -> s0";
    assert_eq!(cycle.title(), title);
    assert!(mistakes.to_string().lines().count() < 40, "{mistakes}");
}
