//! What is shown about the values of parameters.

use std::path::Path;

use insta::assert_snapshot;

use super::super::parse;
use super::{HEAD, shown_after_head, shown_of_set, shown_of_train};

#[test]
fn misspelt_choices() {
    assert_snapshot!(shown_of_train(r##"loss = "maee"
architecture = "resnet23"
method = "xyzzy"
"##), @r#"
error: 'maee' is not a value of 'loss', did you mean 'mae'?
  --> x.toml:11:8
   |
11 | loss = "maee"
   |        ^^^^^^
   |
   = help: mae: The mean absolute error to the one-hot label: 2 (1 - p_y).
   = help: 'loss' is one of cross-entropy, generalized-cross-entropy, mae, symmetric-cross-entropy, nce-rce, label-smoothing, soft-bootstrapping, hard-bootstrapping and jensen-shannon

error: 'resnet23' is not a value of 'architecture', did you mean 'resnet32'?
  --> x.toml:12:16
   |
12 | architecture = "resnet23"
   |                ^^^^^^^^^^
   |
   = help: resnet32: The CIFAR ResNet of depth 6n+2 with n = 5 (16-32-64 channels, option-A shortcuts), 64 features.
   = help: 'architecture' is one of resnet8-fast, resnet8, resnet18, preact-resnet18, resnet32, resnet34, resnet50, resnet18-224 and resnet50-224

error: 'xyzzy' is not a value of 'method'
  --> x.toml:13:10
   |
13 | method = "xyzzy"
   |          ^^^^^^^
   |
   = help: 'method' is one of finetune, meta-weight-net, forward-correction, elr, sop, co-teaching, truncated-loss, dividemix and elr-plus

error: 3 mistakes in x.toml; nothing was run
"#);
}

#[test]
fn what_another_kind_takes_is_explained() {
    assert_snapshot!(shown_of_train(r##"method = "meta-weight-net"
meta-samples = "training"
meta-loss = "mae"
architecture = "vit_small_patch16_224"
"##), @r#"
error: 'vit_small_patch16_224' is not a value of 'architecture'
  --> x.toml:14:16
   |
14 | architecture = "vit_small_patch16_224"
   |                ^^^^^^^^^^^^^^^^^^^^^^^
   |
   = help: 'architecture' is one of resnet8-fast, resnet8, resnet18, preact-resnet18, resnet32, resnet34, resnet50, resnet18-224 and resnet50-224
   = help: 'import-weights' takes it: ViT-S/16, not trained here: patches of 16 pixels in images of 224. 384 features.

error: 1 mistake in x.toml; nothing was run
"#);
}

#[test]
fn text_for_numbers() {
    assert_snapshot!(shown_of_train(r##"epochs = "3"
learning-rate = "fast"
warmup = "0.1"
"##), @r#"
error: 'epochs' must be a whole number, but is text
  --> x.toml:11:10
   |
11 | epochs = "3"
   |          ^^^
   |
   = help: without quotes: epochs = 3
   = help: epochs: Passes over the training samples. By default 120.

error: 'learning-rate' must be a number, but is text
  --> x.toml:12:17
   |
12 | learning-rate = "fast"
   |                 ^^^^^^
   |
   = help: learning-rate: The peak learning rate. By default 0.01.

error: 'warmup' must be a number, but is text
  --> x.toml:13:10
   |
13 | warmup = "0.1"
   |          ^^^^^
   |
   = help: without quotes: warmup = 0.1
   = help: warmup: The share of the steps in which the learning rate rises linearly. By default 0.01.

error: 3 mistakes in x.toml; nothing was run
"#);
}

#[test]
fn fractions_for_whole_numbers() {
    assert_snapshot!(shown_of_train("epochs = 3.0\nbatch-size = 3.5\n"), @r##"
    error: 'epochs' must be a whole number, but is a number with a fraction
      --> x.toml:11:10
       |
    11 | epochs = 3.0
       |          ^^^
       |
       = help: without the fraction: epochs = 3
       = help: epochs: Passes over the training samples. By default 120.

    error: 'batch-size' must be a whole number, but is a number with a fraction
      --> x.toml:12:14
       |
    12 | batch-size = 3.5
       |              ^^^
       |
       = help: batch-size: Samples per step. By default 100.

    error: 2 mistakes in x.toml; nothing was run
    "##);
}

#[test]
fn numbers_out_of_range() {
    assert_snapshot!(shown_of_train("epochs = 0\nlearning-rate = 0\nweight-decay = -1e-4\nwarmup = 1.5\nq = nan\n"), @r#"
    error: 'epochs' must be at least 1, but is 0
      --> x.toml:11:10
       |
    11 | epochs = 0
       |          ^
       |
       = help: epochs: Passes over the training samples. By default 120.

    error: 'learning-rate' must be above 0, but is 0
      --> x.toml:12:17
       |
    12 | learning-rate = 0
       |                 ^
       |
       = help: learning-rate: The peak learning rate. By default 0.01.

    error: 'weight-decay' must be at least 0, but is -0.0001
      --> x.toml:13:16
       |
    13 | weight-decay = -1e-4
       |                ^^^^^
       |
       = help: weight-decay: Weight decay; not on parameters with `bn` in their name. By default 0.0001.

    error: 'warmup' must be at least 0 and below 1, but is 1.5
      --> x.toml:14:10
       |
    14 | warmup = 1.5
       |          ^^^
       |
       = help: warmup: The share of the steps in which the learning rate rises linearly. By default 0.01.

    error: 'q' must be a finite number above 0 and at most 1, but is NaN
      --> x.toml:15:5
       |
    15 | q = nan
       |     ^^^
       |
       = help: q: The q of the generalized cross-entropy; towards 0 it becomes cross-entropy, at 1 half the mean absolute error. By default 0.5.

    error: 5 mistakes in x.toml; nothing was run
    "#);
}

#[test]
fn negative_whole_numbers() {
    assert_snapshot!(shown_of_train("epochs = -1\nbatch-size = -100\n"), @r##"
    error: 'epochs' must be a whole number from 1, but is -1
      --> x.toml:11:10
       |
    11 | epochs = -1
       |          ^^
       |
       = help: epochs: Passes over the training samples. By default 120.

    error: 'batch-size' must be a whole number from 1, but is -100
      --> x.toml:12:14
       |
    12 | batch-size = -100
       |              ^^^^
       |
       = help: batch-size: Samples per step. By default 100.

    error: 2 mistakes in x.toml; nothing was run
    "##);
}

#[test]
fn numbers_that_are_too_large() {
    assert_snapshot!(shown_of_train("epochs = 99999999999999999999\nbatch-size = 999999999999999999999999999999999999999999999\nlearning-rate = 1e999\nwarmup = 999999999999999999999999999999\n"), @r#"
    error: 'epochs' must be at most 4294967295, but is 99999999999999999999
      --> x.toml:11:10
       |
    11 | epochs = 99999999999999999999
       |          ^^^^^^^^^^^^^^^^^^^^
       |
       = help: epochs: Passes over the training samples. By default 120.

    error: 'batch-size' must be at most 18446744073709551615, but is 999999999999999999999999999999999999999999999
      --> x.toml:12:14
       |
    12 | batch-size = 999999999999999999999999999999999999999999999
       |              ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
       |
       = help: batch-size: Samples per step. By default 100.

    error: 'learning-rate' is outside the range of 64-bit numbers
      --> x.toml:13:17
       |
    13 | learning-rate = 1e999
       |                 ^^^^^
       |
       = help: learning-rate: The peak learning rate. By default 0.01.

    error: 'warmup' is outside the range of 64-bit numbers
      --> x.toml:14:10
       |
    14 | warmup = 999999999999999999999999999999
       |          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
       |
       = help: warmup: The share of the steps in which the learning rate rises linearly. By default 0.01.

    error: 4 mistakes in x.toml; nothing was run
    "#);
}

#[test]
fn other_types_for_numbers() {
    assert_snapshot!(shown_of_train("epochs = true\nlearning-rate = [1]\nwarmup = { a = 1 }\nq = 2020-01-01\n"), @r#"
    error: 'epochs' must be a whole number, but is true
      --> x.toml:11:10
       |
    11 | epochs = true
       |          ^^^^
       |
       = help: epochs: Passes over the training samples. By default 120.

    error: 'learning-rate' must be a number, but is a list
      --> x.toml:12:17
       |
    12 | learning-rate = [1]
       |                 ^^^
       |
       = help: learning-rate: The peak learning rate. By default 0.01.

    error: 'warmup' must be a number, but is a table
      --> x.toml:13:10
       |
    13 | warmup = { a = 1 }
       |          ^^^^^^^^^
       |
       = help: warmup: The share of the steps in which the learning rate rises linearly. By default 0.01.

    error: 'q' must be a number, but is a date or time
      --> x.toml:14:5
       |
    14 | q = 2020-01-01
       |     ^^^^^^^^^^
       |
       = help: q: The q of the generalized cross-entropy; towards 0 it becomes cross-entropy, at 1 half the mean absolute error. By default 0.5.

    error: 4 mistakes in x.toml; nothing was run
    "#);
}

#[test]
fn numbers_for_text() {
    assert_snapshot!(shown_after_head(r##"[stages.a]
kind = "download"
url = 3
name = 1.5
md5 = 2020-01-01
unverified = "true"
"##), @r#"
error: 'url' must be text or a list of text, but is a whole number
  --> x.toml:10:7
   |
10 | url = 3
   |       ^
   |
   = help: in quotes: url = "3"
   = help: url: Where to get it: one URL, or several that are tried in order.

error: 'name' must be text, but is a number with a fraction
  --> x.toml:11:8
   |
11 | name = 1.5
   |        ^^^
   |
   = help: in quotes: name = "1.5"
   = help: name: The file's name in the artifact. By default the last part of the first URL.

error: 'md5' must be text, but is a date or time
  --> x.toml:12:7
   |
12 | md5 = 2020-01-01
   |       ^^^^^^^^^^
   |
   = help: in quotes: md5 = "2020-01-01"
   = help: md5: The MD5 checksum, in hexadecimal. Guards against accidents only.

error: 'unverified' must be true or false, but is text
  --> x.toml:13:14
   |
13 | unverified = "true"
   |              ^^^^^^
   |
   = help: without quotes: unverified = true
   = help: unverified: Accept any content, without a checksum. The stage runs again when a `file:` mirror appears, disappears or changes its content; a file from the web is not downloaded again. By default false.

error: 4 mistakes in x.toml; nothing was run
"#);
}

#[test]
fn wrong_items_in_lists_and_tables() {
    assert_snapshot!(shown_after_head(r##"[stages.a]
kind = "command"
run = ["a", 3]
files = "b"
environment = { THREADS = 3 }
outputs = 1
"##), @r#"
error: 'run' must be a list of text, but this item is a whole number
  --> x.toml:10:13
   |
10 | run = ["a", 3]
   |             ^
   |
   = help: in quotes: "3"
   = help: run: The program and its arguments. No shell takes part. A program with a `/` in its name is one of its `files`.

error: 'files' must be a list of text, but is text
  --> x.toml:11:9
   |
11 | files = "b"
   |         ^^^
   |
   = help: in brackets: files = ["b"]
   = help: files: The files and folders of yours that it reads (its script, its configuration), relative to the manifest.

error: 'environment' must be a table of text, but this item is a whole number
  --> x.toml:12:27
   |
12 | environment = { THREADS = 3 }
   |                           ^
   |
   = help: in quotes: "3"
   = help: environment: Environment variables to set.

error: 'outputs' must be a list of text, but is a whole number
  --> x.toml:13:11
   |
13 | outputs = 1
   |           ^
   |
   = help: outputs: What the program must write, as paths in the output folder.

error: 4 mistakes in x.toml; nothing was run
"#);
}

#[test]
fn parameters_without_effect() {
    assert_snapshot!(shown_after_head(r##"[stages.train]
kind = "train"
data = "data"
q = 0.7
meta-hidden = 10
optimizer = "adam"
momentum = 0.5
inner-learning-rate = 0.1
[stages.noisy]
kind = "corrupt-labels"
data = "data"
noise = "human"
human-labels = "worse"
human = "human"
rate = 0.5
[stages.human]
kind = "download"
url = "file:a"
unverified = true
"##), @r##"
error: 'q' has no effect with loss = "cross-entropy" (the default)
  --> x.toml:11:1
   |
11 | q = 0.7
   | ^
   |
   = help: drop it, or set loss = "generalized-cross-entropy"

error: 'meta-hidden' has no effect with method = "finetune" (the default)
  --> x.toml:12:1
   |
12 | meta-hidden = 10
   | ^^^^^^^^^^^
   |
   = help: drop it, or set method = "meta-weight-net"

error: 'momentum' has no effect with optimizer = "adam"
  --> x.toml:14:1
   |
14 | momentum = 0.5
   | ^^^^^^^^
   |
   = help: drop it, or set optimizer = "sgd"

error: 'inner-learning-rate' has no effect with method = "finetune" (the default)
  --> x.toml:15:1
   |
15 | inner-learning-rate = 0.1
   | ^^^^^^^^^^^^^^^^^^^
   |
   = help: drop it, or set method = "meta-weight-net"

error: 'rate' has no effect with noise = "human"
  --> x.toml:22:1
   |
22 | rate = 0.5
   | ^^^^
   |
   = help: drop it, or set noise = "symmetric", "flip", "flip2", "pairflip", "asymmetric" or "instance"

error: 5 mistakes in x.toml; nothing was run
"##);
}

#[test]
fn parameters_without_effect_for_other_reasons() {
    const NOISY: &str = "kind = \"corrupt-labels\"\ndata = \"data\"\nnoise = \"human\"\n\
                         human-labels = \"worse\"\nhuman = \"file\"\n";
    const SPLIT: &str = "kind = \"split\"\ndata = \"data\"\nseed = 1\n";
    const GET: &str = "kind = \"download\"\nunverified = true\nretries = 1\n";
    const UNPACK: &str = "kind = \"unpack\"\narchive = \"file\"\nstrip = 1\ninclude = [\"a\"]\n";
    const TRAIN: &str =
        "kind = \"pretrain-supervised\"\ndata = \"data\"\nnormalise = \"none\"\nstop-after = 7\n";
    let file = "[stages.file]\nkind = \"download\"\nunverified = true\nurl = \"file:a\"\n";
    for (stage, line, titles) in [
        (NOISY, "seed = 1", &["'seed' has no effect with noise = \"human\""][..]),
        (SPLIT, "by = \"dataset\"", &["'seed' has no effect with by = \"dataset\""]),
        (SPLIT, "from = \"val-folder\"", &["'seed' has no effect with from = \"val-folder\""]),
        (SPLIT, "by = \"random\"", &[]),
        (GET, "url = \"file:a\"", &["'retries' has no effect with file: URLs alone"]),
        (
            GET,
            "url = [\"file:a\", \"file:b\"]\nspeed-limit = 2",
            &[
                "'retries' has no effect with file: URLs alone",
                "'speed-limit' has no effect with file: URLs alone",
            ],
        ),
        (GET, "url = [\"file:a\", \"https://example.org/a\"]", &[]),
        (
            UNPACK,
            "format = \"gz\"",
            &["'strip' has no effect with format = \"gz\"", "'include' has no effect with format"],
        ),
        (UNPACK, "format = \"tar-gz\"", &[]),
        (TRAIN, "stop-drop = 1", &["'stop-after' has no effect with a 'stop-drop' of 1 or more"]),
        (TRAIN, "stop-drop = 0.5", &[]),
    ] {
        let text = format!("{HEAD}{file}[stages.a]\n{stage}{line}\n");
        let found = match parse(Path::new("x.toml"), &text, &[]) {
            Ok(_) => Vec::new(),
            Err(mistakes) => mistakes.list().iter().map(|one| one.title().to_owned()).collect(),
        };
        assert_eq!(found.len(), titles.len(), "{line}: {found:?}");
        for (found, title) in found.iter().zip(titles) {
            assert!(found.starts_with(title), "{line}: {found}");
        }
    }
}

#[test]
fn an_item_of_the_wrong_type_is_shown() {
    let shown = shown_after_head(
        "[stages.a]\nkind = \"download\"\nunverified = true\nurl = [\"file:a\", 3]\n",
    );
    let title = "error: 'url' must be text or a list of text, but this item is a whole number\n";
    assert!(shown.starts_with(title) && shown.contains("--> x.toml:11:18"), "{shown}");
    assert!(shown.contains("help: in quotes: \"3\""), "{shown}");
}

#[test]
fn a_password_is_not_shown_however_it_is_written() {
    for url in [
        r"https:\u002f\u002fann:s3cret@h/a",
        r"https://\u0061nn:s3cret\u0040h/a",
        r#"https://ann:s3\"cret@h/a"#,
    ] {
        for line in [
            format!("url = \"{url}\""),
            format!("url = [\n  \"{url}\",\n]"),
            format!("url = \"{url}\" retries = 1"),
            format!("url = \"\"\"{url}\"\"\""),
        ] {
            let stage = "[stages.a]\nkind = \"download\"\nunverified = true\nname = \"a\"\n";
            let shown = shown_after_head(&format!("{stage}{line}\n"));
            assert!(!shown.contains("s3") && !shown.contains("cret"), "{shown}");
        }
        let shown = shown_of_set(&[&format!("stages.train.epochs=\"{url}\"")]);
        assert!(!shown.contains("s3") && !shown.contains("cret"), "{shown}");
    }
}

#[test]
fn a_password_in_a_url_of_a_download_is_one_mistake() {
    for line in ["url = \"http://ann:s3cret@h/a\"", "url = [\"file:a\", \"http://ann:s3cret@h/a\"]"]
    {
        let stage = "[stages.a]\nkind = \"download\"\nunverified = true\n";
        let shown = shown_after_head(&format!("{stage}{line}\n"));
        assert!(shown.contains("put them into ~/.netrc (machine h login"), "{shown}");
        assert!(shown.contains("error: 1 mistake in x.toml"), "{shown}");
    }
    // A name is not checked by the kind.
    let shown = shown_after_head(
        "[stages.a]\nkind = \"download\"\nurl = \"file:a\"\nunverified = true\ninstructions = \"http://ann:s3cret@h/a\"\n",
    );
    assert!(shown.contains("error: a URL with a password would be kept"), "{shown}");
}

#[test]
fn a_command_as_one_line() {
    assert_snapshot!(shown_after_head(r##"[stages.a]
kind = "command"
run = "echo hi"
"##), @r##"
error: 'run' must be a list of text, but is text
  --> x.toml:10:7
   |
10 | run = "echo hi"
   |       ^^^^^^^^^
   |
   = help: without a shell: run = ["echo", "hi"]
   = help: with a shell: shell = "echo hi"

error: 1 mistake in x.toml; nothing was run
"##);
}

#[test]
fn nul_in_any_text() {
    assert_snapshot!(shown_after_head(r##"[stages.a]
kind = "command"
run = ["echo",
  "a\u0000"]
environment = { A = "\u0000", B = "" }
files = ["a\u0000b"]
[stages.b]
kind = "command"
shell = "\u0000"
[stages.c]
kind = "download"
url = "file:\u0000"
unverified = true
[stages.d]
kind = "dataset"
format = "idx"
path = "\u0000"
"##), @r##"
error: 'run' has a NUL character
  --> x.toml:11:3
   |
11 |   "a\u0000"]
   |   ^^^^^^^^^
   |
   = help: no program, path or URL can have one: remove it, or read the value from a file

error: 'environment' has a NUL character
  --> x.toml:12:21
   |
12 | environment = { A = "\u0000", B = "" }
   |                     ^^^^^^^^
   |
   = help: no program, path or URL can have one: remove it, or read the value from a file

error: 'files' has a NUL character
  --> x.toml:13:10
   |
13 | files = ["a\u0000b"]
   |          ^^^^^^^^^^
   |
   = help: no program, path or URL can have one: remove it, or read the value from a file

error: 'shell' has a NUL character
  --> x.toml:16:9
   |
16 | shell = "\u0000"
   |         ^^^^^^^^
   |
   = help: no program, path or URL can have one: remove it, or read the value from a file

error: 'url' has a NUL character
  --> x.toml:19:7
   |
19 | url = "file:\u0000"
   |       ^^^^^^^^^^^^^
   |
   = help: no program, path or URL can have one: remove it, or read the value from a file

error: 'path' has a NUL character
  --> x.toml:24:8
   |
24 | path = "\u0000"
   |        ^^^^^^^^
   |
   = help: no program, path or URL can have one: remove it, or read the value from a file

error: 6 mistakes in x.toml; nothing was run
"##);
}

#[test]
fn wrong_placeholders_are_reported_together() {
    assert_snapshot!(shown_after_head(r##"[stages.a]
kind = "command"
run = [
  "echo", "{outptu} {inputs.dat}",
  "{inputs.data} {x",
]
inputs = { data = "data" }
"##), @r##"
error: the argument '{outptu} {inputs.dat}' of 'run' has {outptu}: the placeholders are {output}, and {inputs.NAME} for each input; write '{{' for a brace
  --> x.toml:11:11
   |
11 |   "echo", "{outptu} {inputs.dat}",
   |           ^^^^^^^^^^^^^^^^^^^^^^^
   |
   = help: run: The program and its arguments. No shell takes part. A program with a `/` in its name is one of its `files`.

error: 'run' has {inputs.dat}, but the inputs of the stage are: data
  --> x.toml:11:11
   |
11 |   "echo", "{outptu} {inputs.dat}",
   |           ^^^^^^^^^^^^^^^^^^^^^^^
   |
   = help: run: The program and its arguments. No shell takes part. A program with a `/` in its name is one of its `files`.

error: the argument '{inputs.data} {x' of 'run' has a single brace: write '{{' or '}}' for a brace
  --> x.toml:12:3
   |
12 |   "{inputs.data} {x",
   |   ^^^^^^^^^^^^^^^^^^
   |
   = help: run: The program and its arguments. No shell takes part. A program with a `/` in its name is one of its `files`.

error: 3 mistakes in x.toml; nothing was run
"##);
}

#[test]
fn inputs_of_one_variable() {
    assert_snapshot!(shown_after_head(r##"[stages.a]
kind = "command"
shell = "true"
inputs = { a-b = "data", a_b = "data" }
"##), @r##"
error: the inputs 'a-b' and 'a_b' are both PIPELINE_INPUT_A_B in the environment: rename one of them
  --> x.toml:11:10
   |
11 | inputs = { a-b = "data", a_b = "data" }
   |          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^

error: 1 mistake in x.toml; nothing was run
"##);
}

#[test]
fn a_value_of_the_matrix_in_another_language() {
    for text in ["$rate", "{rate}", "{{ rate }}"] {
        let shown = shown_of_train(&format!("warmup = \"{text}\"\n"));
        assert!(
            shown.contains("= help: a value of the matrix is written \"${rate}\"\n"),
            "{shown}"
        );
    }
    for text in ["rate", "$", "$1", "{}", "{a b}"] {
        let shown = shown_of_train(&format!("warmup = \"{text}\"\n"));
        assert!(!shown.contains("value of the matrix"), "{shown}");
    }
}

#[test]
fn a_list_in_the_place_of_a_table() {
    let noisy = "[stages.noisy]\nkind = \"corrupt-labels\"\ndata = \"data\"\nnoise = \"asymmetric\"\nrate = 0.1\n";
    for (pairs, help) in [
        ("[[\"cat\", \"dog\"], [\"a\", \"b\"]]", "pairs = { \"cat\" = \"dog\", \"a\" = \"b\" }"),
        ("[\"cat\", \"dog\"]", "pairs = { NAME = VALUE }"),
        ("[[1, 2]]", "pairs = { NAME = VALUE }"),
        ("[]", "pairs = { NAME = VALUE }"),
    ] {
        let shown = shown_after_head(&format!("{noisy}pairs = {pairs}\n"));
        assert!(shown.contains(&format!("= help: in braces: {help}\n")), "{pairs}: {shown}");
    }
}

#[test]
fn a_key_of_other_kinds_is_shown_as_theirs() {
    let shown = shown_of_train("rate = 0.4\n");
    assert!(shown.starts_with("error: unknown key 'rate'\n"), "{shown}");
    let kinds = "= help: 'rate' is a key of replace-images and corrupt-labels\n";
    assert!(shown.contains(kinds), "{shown}");
    // One letter away from a key of this kind, it is misspelt, although other kinds have it.
    let shown = shown_after_head("[stages.a]\nkind = 'command'\nrun = ['x']\nfile = ['a']\n");
    assert!(shown.starts_with("error: unknown key 'file', did you mean 'files'?\n"), "{shown}");
}

#[test]
fn a_wrong_item_of_a_list_is_shown_at_its_place() {
    const COMMAND: &str = "kind = 'command'\nrun = ['x']\n";
    for (stage, line, item) in [
        (COMMAND, "outputs = ['a', '../b']", "'../b'"),
        (COMMAND, "ignore = ['a', '../b']", "'../b'"),
        (COMMAND, "pass-environment = ['HOME', 'A=B']", "'A=B'"),
        (COMMAND, "pass-environment = ['HOME', 'PIPELINE_X']", "'PIPELINE_X'"),
        ("kind = 'unpack'\narchive = 'raw'\n", "include = ['a', '/b']", "'/b'"),
    ] {
        let raw = "[stages.raw]\nkind = 'download'\nurl = 'file:x'\nunverified = true\n";
        let shown = shown_after_head(&format!("[stages.a]\n{stage}{line}\n{raw}"));
        let column = line.find(item).expect("the item") + 1;
        assert!(shown.contains(&format!(" x.toml:11:{column}\n")), "{line}: {shown}");
    }
}
