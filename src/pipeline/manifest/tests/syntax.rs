//! Text that is no TOML, and text in odd encodings.

use insta::assert_snapshot;

use super::{right, shown, shown_after_head, shown_of_train};
use crate::manifest::Manifest;

#[test]
fn lines_of_a_text_end_as_in_a_file_without_carriage_returns() {
    let lines = [
        "[experiment]",
        "name = \"x\"",
        "[stages.a]",
        "kind = \"command\"",
        "shell = \"\"\"",
        "echo é > \"$PIPELINE_OUTPUT/x\"",
        "printf 'a\\r\\n' \\",
        "  > $PIPELINE_OUTPUT/y",
        "\"\"\"",
        "[stages.b]",
        "kind = \"command\"",
        "run = ['''",
        "sh''', \"a\\r\\nb\"]",
        "environment = { A = '''a",
        "b''' }",
        "[stages.c]",
        "kind = \"command\"",
        "shell = '''",
        "one line'''",
        "",
    ];
    let [unix, windows] = ["\n", "\r\n"].map(|end| right(&lines.join(end), &[]).0);
    let of = |manifest: &Manifest| format!("{:#?}", manifest.stages);
    assert_eq!(unix.stages.to_vec(), windows.stages.to_vec());
    // An escape stands for itself.
    assert!(of(&windows).contains("a\\r\\nb") && of(&windows).contains("printf 'a\\r\\n'"));
    // Places of mistakes are those in the file.
    let wrong = lines.join("\r\n").replace("one line'''", "one line'''\r\nshel = 1");
    assert!(shown(&wrong).contains("x.toml:20:1"), "{}", shown(&wrong));
}

#[test]
fn unquoted_text_hides_nothing_else() {
    assert_snapshot!(shown_after_head(r##"[stages.train]
kind = train
[stages.split]
kind = "split"
data = dta
hold-out = 3
"##), @r#"
error: text must be in quotes
 --> x.toml:9:8
  |
9 | kind = train
  |        ^^^^^
  |
  = help: write "train"

error: text must be in quotes
  --> x.toml:12:8
   |
12 | data = dta
   |        ^^^
   |
   = help: write "dta"

error: unknown key 'hold-out', did you mean 'holdout'?
  --> x.toml:13:1
   |
13 | hold-out = 3
   | ^^^^^^^^
   |
   = help: holdout: How many training samples are held out. By default 1000.

error: 3 mistakes in x.toml; nothing was run
"#);
}

#[test]
fn header_without_end() {
    assert_snapshot!(shown_after_head(r##"[stages.train
kind = "train"
"##), @r##"
    error: the table's header is not closed
     --> x.toml:8:14
      |
    8 | [stages.train
      |              ^
      |
      = help: it ends with ']': [stages.train]

    error: 1 mistake in x.toml; nothing was run
    "##);
}

#[test]
fn key_without_value() {
    assert_snapshot!(shown_after_head("[stages.train]\nkind =\ndata\n"), @r##"
    error: this key has no value
     --> x.toml:9:7
      |
    9 | kind =
      |       ^
      |
      = help: write key = 3, key = "text" or key = true

    error: this key has no value
      --> x.toml:10:5
       |
    10 | data
       |     ^
       |
       = help: write key = 3, key = "text" or key = true

    error: 2 mistakes in x.toml; nothing was run
    "##);
}

#[test]
fn text_without_end() {
    assert_snapshot!(shown_after_head(r##"[stages.train]
kind = "train
data = "data"
"##), @r##"
    error: this text is not closed, or has a character that is not allowed
     --> x.toml:9:14
      |
    9 | kind = "train
      |              ^
      |
      = help: text on one line is in one pair of quotes: "text"

    error: 1 mistake in x.toml; nothing was run
    "##);
}

#[test]
fn nul_in_text() {
    for text in ["\"a\0b\"", "'a\0'", "\"\"\"a\n\0\"\"\""] {
        let shown = shown_after_head(&format!("[stages.train]\nkind = {text}\n"));
        assert!(
            shown.starts_with("error: this text has a NUL character, which is not allowed\n"),
            "{shown}"
        );
    }
}

#[test]
fn list_without_end() {
    assert_snapshot!(shown_after_head(r##"[stages.train]
kind = "train"
data = ["data"
"##), @r##"
    error: the list is not closed
      --> x.toml:10:15
       |
    10 | data = ["data"
       |        -      ^
       |        |
       |        it starts here
       |
       = help: it ends with ']': ["a", "b"]

    error: 1 mistake in x.toml; nothing was run
    "##);
}

#[test]
fn number_that_is_not_one() {
    assert_snapshot!(shown_of_train("learning-rate = 1.2.3\n"), @r##"
    error: this is not a number, and text must be in quotes
      --> x.toml:11:20
       |
    11 | learning-rate = 1.2.3
       |                    ^^
       |
       = help: numbers look like 3, 0.1 or 1e-4

    error: 1 mistake in x.toml; nothing was run
    "##);
}

#[test]
fn backslash_in_text() {
    assert_snapshot!(shown_of_train(r##"loss = "C:\data"
"##), @r##"
    error: a '\' in text starts an escape sequence
      --> x.toml:11:12
       |
    11 | loss = "C:\data"
       |            ^
       |
       = help: write '\\', or put the text in single quotes

    error: 1 mistake in x.toml; nothing was run
    "##);
}

#[test]
fn key_twice_hides_nothing_else() {
    assert_snapshot!(shown_of_train(r##"epochs = 3
epochs = 4
loss = "maee"
"##), @r##"
    error: 'epochs' is defined twice
      --> x.toml:12:1
       |
    12 | epochs = 4
       | ^^^^^^
       |
       = help: remove one of them, or rename it

    error: 'maee' is not a value of 'loss', did you mean 'mae'?
      --> x.toml:13:8
       |
    13 | loss = "maee"
       |        ^^^^^^
       |
       = help: mae: The mean absolute error to the one-hot label: 2 (1 - p_y).
       = help: 'loss' is one of cross-entropy, generalized-cross-entropy, mae, symmetric-cross-entropy, nce-rce, label-smoothing, soft-bootstrapping, hard-bootstrapping and jensen-shannon

    error: 2 mistakes in x.toml; nothing was run
    "##);
}

#[test]
fn stage_twice() {
    assert_snapshot!(shown_after_head(r##"[stages.data]
kind = "split"
"##), @r##"
    error: 'data' is defined twice
     --> x.toml:8:9
      |
    8 | [stages.data]
      |         ^^^^
      |
      = help: remove one of them, or rename it

    error: 1 mistake in x.toml; nothing was run
    "##);
}

#[test]
fn tree_too_deep() {
    assert_snapshot!(shown_of_train("x = [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]\n"), @r##"
    error: this is nested too deeply
      --> x.toml:11:85
       |
    11 | x = [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]...
       |                                                                                     ^
       |
       = help: no value of a manifest needs more than a few levels

    error: 1 mistake in x.toml; nothing was run
    "##);
}

#[test]
fn windows_line_ends() {
    assert_snapshot!(shown("[experiment]\r\nname = \"x\"\r\n\r\n[stages.a]\r\nkind = \"splt\"\r\nholdout = 1\r\n"), @r##"
    error: unknown kind 'splt', did you mean 'split'?
     --> x.toml:5:8
      |
    5 | kind = "splt"
      |        ^^^^^^
      |
      = help: `pipeline kinds` describes them all

    error: 1 mistake in x.toml; nothing was run
    "##);
}

#[test]
fn tabs_before_the_place() {
    assert_snapshot!(shown_after_head("[stages.a]\n\t\tkind\t=\t\"splt\"\t# why\n"), @r##"
    error: unknown kind 'splt', did you mean 'split'?
     --> x.toml:9:10
      |
    9 |         kind    =    "splt"    # why
      |                      ^^^^^^
      |
      = help: `pipeline kinds` describes them all

    error: 1 mistake in x.toml; nothing was run
    "##);
}

#[test]
fn letters_of_many_bytes_before_the_place() {
    assert_snapshot!(shown_after_head(r##"[stages.a]
kind = "split"
data = "data"
"größe" = 1
execution = { "数据" = 2, devise = "cpu" }
"##), @r#"
error: unknown key 'größe'
  --> x.toml:11:1
   |
11 | "größe" = 1
   | ^^^^^^^
   |
   = help: 'split' has the port data, and the parameters from, by, holdout

error: unknown key '数据' in 'execution'
  --> x.toml:12:15
   |
12 | execution = { "数据" = 2, devise = "cpu" }
   |               ^^^^^^
   |
   = help: 'execution' has device, threads, checkpoint-seconds, timeout-seconds, time, attempts, cpus, gpus, memory, resources, priority and executor

error: unknown key 'devise' in 'execution', did you mean 'device'?
  --> x.toml:12:25
   |
12 | execution = { "数据" = 2, devise = "cpu" }
   |                           ^^^^^^

error: 3 mistakes in x.toml; nothing was run
"#);
}

#[test]
fn byte_order_mark() {
    assert_snapshot!(shown("\u{feff}[experimant]\nname = \"x\"\n[stages.a]\nkind = \"download\"\nurl = \"file:a\"\nunverified = true\n"), @r##"
    error: unknown table 'experimant', did you mean 'experiment'?
     --> x.toml:1:2
      |
    1 | [experimant]
      |  ^^^^^^^^^^

    error: 1 mistake in x.toml; nothing was run
    "##);
}

#[test]
fn control_characters_are_shown_not_sent() {
    assert_snapshot!(shown_after_head(r##"[stages.a]
kind = "split\u001b[31m"
data = "data"
"##), @r##"
    error: unknown kind 'split␛[31m', did you mean 'split'?
     --> x.toml:9:8
      |
    9 | kind = "split\u001b[31m"
      |        ^^^^^^^^^^^^^^^^^
      |
      = help: `pipeline kinds` describes them all

    error: 1 mistake in x.toml; nothing was run
    "##);
}

#[test]
fn list_without_end_hides_what_only_follows() {
    assert_snapshot!(shown_after_head(r##"[stages.train]
kind = "train"
data = ["data"
labels = "noisy"
epochs = "3"

[stages.b]
kind = "command"
run = ["a", "b"]
"##), @r##"
error: the list is not closed
  --> x.toml:10:15
   |
10 | data = ["data"
   |        -      ^
   |        |
   |        it starts here
   |
   = help: it ends with ']': ["a", "b"]

error: 1 mistake in x.toml; nothing was run
"##);
}

#[test]
fn list_of_several_lines_without_end() {
    assert_snapshot!(shown_after_head(r##"[stages.b]
kind = comand
run = [
  "a", ["c"],
  "b", # the last

[stages.c]
kind = "command"
shell = "true"
"##), @r##"
error: text must be in quotes
 --> x.toml:9:8
  |
9 | kind = comand
  |        ^^^^^^
  |
  = help: write "comand"

error: the list is not closed
  --> x.toml:12:7
   |
10 | run = [
   |       - it starts here
11 |   "a", ["c"],
12 |   "b", # the last
   |       ^
   |
   = help: it ends with ']': ["a", "b"]

error: 2 mistakes in x.toml; nothing was run
"##);
}

#[test]
fn table_without_end_hides_what_only_follows() {
    assert_snapshot!(shown_after_head(r##"[stages.b]
kind = "command"
run = ["a"]
inputs = { a = "c", 
files = ["a"]

[stages.c]
kind = "command"
"##), @r##"
error: the table is not closed
  --> x.toml:11:10
   |
11 | inputs = { a = "c",
   |          ^
   |
   = help: it ends with '}': { a = 1 }

error: 1 mistake in x.toml; nothing was run
"##);
}

#[test]
fn text_in_a_list_without_end() {
    assert_snapshot!(shown_after_head(r##"[stages.b]
kind = "command"
run = ["a", "b]
files = ["a"]

[stages.c]
kind = "command"
"##), @r##"
error: this text is not closed, or has a character that is not allowed
  --> x.toml:10:16
   |
10 | run = ["a", "b]
   |                ^
   |
   = help: text on one line is in one pair of quotes: "text"

error: 1 mistake in x.toml; nothing was run
"##);
}

#[test]
fn text_of_several_lines_without_end() {
    assert_snapshot!(shown_after_head(r##"[stages.b]
kind = "command"
shell = """
echo

[stages.c]
kind = "command"
shell = "true"
"##), @r##"
error: this text is not closed
  --> x.toml:10:9
   |
10 | shell = """
   |         ^^^
   |
   = help: it ends with the three quotes that it starts with

error: 1 mistake in x.toml; nothing was run
"##);
}

#[test]
fn lists_in_lists_are_not_headers() {
    assert_snapshot!(shown_of_train("x = [\n  [1, 2],\n  [3],\n  [\"a\"]\n]\n"), @r##"
error: unknown key 'x'
  --> x.toml:11:1
   |
11 | x = [
   | ^
   |
   = help: 'train' has the ports data, labels, split, init, and the parameters method, architecture, loss, epochs, batch-size, sampling, samples-per-epoch, optimizer, learning-rate, weight-decay, schedule, augmentation, mixup, image-size, normalise, precision, evaluate-every, validation-transform, validation-labels, select-best, track-test, sample-losses, average-epochs, q, forward-weight, reverse-weight, active-weight, passive-weight, smoothing, given-share, label-share, momentum, warmup, step-every, step-factor, meta-batch-size, meta-samples, meta-loss, meta-optimizer, meta-learning-rate, meta-weight-decay, meta-hidden, inner-rate, normalise-weights, inner-learning-rate, views, transition, estimation-epochs, matrix, target-momentum, regularization, regularization-ramp-up, average-momentum, average-ramp-up, learning-rate-u, learning-rate-v, consistency, balance, forget-rate, forget-epochs, prune-below, prune-after, prune-every, warmup-epochs, confidence-penalty, clean-above, loss-epochs, sharpening-temperature, unlabelled-weight, ramp-up-epochs, class-balance

error: 1 mistake in x.toml; nothing was run
"##);
}

#[test]
fn another_language_is_one_mistake() {
    assert_snapshot!(shown("experiment:\n  name: a\nstages:\n  data:\n    kind: dataset\n    classes:\n      - cat\n      - dog\n"), @r#"
error: a manifest is TOML, and this looks like YAML
 --> x.toml:1:12
  |
1 | experiment:
  |            ^
  |
  = help: it has tables, [stages.train], and lines like epochs = 3; `pipeline init` writes one to start from

error: 1 mistake in x.toml; nothing was run
"#);
    assert_snapshot!(shown("{\n  \"experiment\": {\"name\": \"a\"},\n  \"stages\": {}\n}\n"), @r#"
error: a manifest is TOML, and this looks like JSON
 --> x.toml:1:1
  |
1 | {
  | ^
  |
  = help: it has tables, [stages.train], and lines like epochs = 3; `pipeline init` writes one to start from

error: 1 mistake in x.toml; nothing was run
"#);
}

#[test]
fn lines_that_end_in_a_carriage_return_are_one_mistake() {
    assert_snapshot!(shown("[experiment]\rname = \"a\"\r[stages.data]\rkind = \"dataset\"\r"), @r#"
error: a carriage return without a newline
 --> x.toml:1:14
  |
1 | [experiment]␍name = "a"␍[stages.data]␍kind = "dataset"␍
  |              ^
  |
  = help: save the file with line ends of one kind

error: 1 mistake in x.toml; nothing was run
"#);
}

#[test]
fn a_part_of_other_manifests_says_so() {
    assert_snapshot!(shown("[stages.noisy]\nkind = \"corrupt-labels\"\ndata = \"data\"\nnoise = \"symmetric\"\nrat = 0.5\n"), @r#"
error: the manifest does not have [experiment]
 --> x.toml:1:1
  |
1 | [stages.noisy]
  | ^
  |
  = help: start it with: [experiment] and, below it, name = "..."
  = help: if other manifests include this file, name one of them; more mistakes of it are shown when it has [experiment]

error: 1 mistake in x.toml; nothing was run
"#);
}

#[test]
fn a_long_value_is_not_repeated_in_full() {
    let text = shown_after_head(&format!(
        "[stages.noisy]\nkind = \"corrupt-labels\"\ndata = \"{}\"\nnoise = \"symmetric\"\nrate = 0.5\n",
        "x".repeat(3000)
    ));
    let title = text.lines().next().unwrap_or_default();
    assert!(title.chars().count() < 700 && title.contains(" … "), "{title}");
}

#[test]
fn a_value_of_the_matrix_without_quotes_is_one_mistake() {
    assert_snapshot!(shown_of_train("warmup = ${rate}\n"), @r#"
    error: text must be in quotes
      --> x.toml:11:10
       |
    11 | warmup = ${rate}
       |          ^^^^^^^
       |
       = help: write "${rate}": it keeps the type of its value

    error: 1 mistake in x.toml; nothing was run
    "#);
    let shown = shown_of_train("warmup = $\n");
    assert!(shown.contains("= help: write \"$\"\n"), "{shown}");
}

#[test]
fn values_of_other_languages_are_understood() {
    const COLON: (&str, &str) = (
        "'=' is missing between a key and its value",
        "write key = 3, key = \"text\" or key = true",
    );
    const END: &str = "the line should end here";
    const TRUTH: &str = "TOML has 'true' and 'false', in small letters";
    const SPACE: &str = "a number does not have a space in it";
    for (line, (title, help)) in [
        ("sample-losses = True", (TRUTH, "write true, or \"True\" if it is text")),
        ("shuffle = off", (TRUTH, "write false, or \"off\" if it is text")),
        (
            "init = None",
            ("TOML does not have 'None'", "leave the key out, or \"None\" if it is text"),
        ),
        (
            "init = null",
            ("TOML does not have 'null'", "leave the key out, or \"null\" if it is text"),
        ),
        ("rate = 0.5 // half", ("a comment begins with '#'", "write 0.5 # and the comment")),
        (
            "rate = 1e-3;",
            ("a line does not end in ';'", "write 1e-3, and each key on a line of its own"),
        ),
        ("rate = 20%", ("a number does not have a '%'", "write 0.2, or \"20%\" if it is text")),
        (
            "rate = [0.5, 0.7%]",
            ("a number does not have a '%'", "write 0.007, or \"0.7%\" if it is text"),
        ),
        (
            "seed = [1, 2 3]",
            (SPACE, "commas are between the items of a list, 2, 3; one number is 23"),
        ),
        (
            "limit = 12 000",
            (SPACE, "commas are between the items of a list, 12, 000; one number is 12000"),
        ),
        ("kind: \"split\"", COLON),
        ("a = { \"b\": None }", COLON),
        ("epochs = 10,", (END, "remove the comma")),
        ("kind = \"train\", # as before", (END, "remove the comma")),
        ("rate = 0,2", (END, "a list is in brackets, [1, 2], and a number has a point, 0.2")),
        ("path = C:\\data", ("text must be in quotes", "write 'C:\\data'")),
        ("url = http://a", ("text must be in quotes", "write \"http://a\"")),
        (
            "rate = .5",
            (
                "this is not a number, and text must be in quotes",
                "numbers look like 3, 0.1 or 1e-4",
            ),
        ),
    ] {
        let shown = shown_after_head(&format!("[stages.a]\n{line}\n"));
        assert!(shown.contains(&format!("error: {title}\n")), "{line}: {shown}");
        assert!(shown.contains(&format!("= help: {help}\n")), "{line}: {shown}");
    }
}
