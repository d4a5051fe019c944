//! `pipeline report`: the page as a file, and in a real browser where one is installed.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use insta::assert_snapshot;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Sandbox, eventually, skipped};

/// How long a browser may take: far more than it does.
const LIMIT: Duration = Duration::from_secs(60);

/// A sweep whose programs write what trainings, evaluations and corrupted labels write; one of them with texts that are markup.
const SWEEP: &str = r#"
[experiment]
name = "sweep & more"
about = "</script><script>document.title = 'taken over'</script>"

[matrix]
rate = [0.2, 0.8]
seed = [1, 2]

[stages.noisy]
kind = "command"
environment = { RATE = "${rate}" }
shell = '''
cat > "$PIPELINE_OUTPUT/noise.json" <<END
{ "noise": "flip", "requested-rate": $RATE, "realised-rate": 0.25, "samples": 8, "corrupted": 2, "classes": ["cat", "<i>dog</i>"], "corrupted-classes": ["<i>dog</i>"],
  "requested-matrix": [[0.8, 0.2], [0.2, 0.8]], "realised-matrix": [[0.75, 0.25], [0.25, 0.75]] }
END
'''

[stages.train]
kind = "command"
inputs = { labels = "noisy" }
environment = { SEED = "${seed}" }
shell = '''
printf 'epoch,loss,train-accuracy\n1,2.5,0.3\n2,1.5,0.5\n3,%s,0.7\n' "1.$SEED" > "$PIPELINE_OUTPUT/curves.csv"
echo '</script><script>document.title = "taken over"</script>'
echo 'the last line'
'''

[stages.evaluate]
kind = "command"
inputs = { model = "train" }
environment = { SEED = "${seed}", RATE = "${rate}" }
output = "metrics"
shell = '''
printf '{ "test-accuracy": 0.%s, "loss": NaN }' "$SEED${RATE#0.}" > "$PIPELINE_OUTPUT/metrics.json"
printf 'true class,cat,dog\ncat,5,1\ndog,2,4\n' > "$PIPELINE_OUTPUT/confusion.csv"
printf 'bin,samples,confidence,accuracy\n1,0,NaN,NaN\n2,12,0.9,0.75\n' > "$PIPELINE_OUTPUT/reliability.csv"
'''

[stages.table]
kind = "summarize"
of = "evaluate"
metric = "test-accuracy"
over = ["seed"]
rows = ["rate"]
"#;

/// The sweep, after it has run.
fn swept() -> Sandbox {
    let project = Sandbox::new(SWEEP);
    project.pipeline("run experiment.toml").success();
    project
}

/// What a command prints.
fn printed(project: &Sandbox, arguments: &str) -> String {
    let ended = project.pipeline(arguments);
    assert!(ended.status.success(), "{ended}");
    ended.stdout
}

/// The data in a page.
fn data(page: &str) -> Value {
    let (_, after) = page.split_once("id=\"data\">").expect("a block of data");
    let (json, _) = after.split_once("</script>").expect("its end");
    serde_json::from_str(json).expect("JSON")
}

/// A stage in the data of a page.
fn stage<'d>(data: &'d Value, name: &str) -> &'d Value {
    let stages = data["stages"].as_array().expect("a list");
    stages.iter().find(|stage| stage["stage"] == name).unwrap_or_else(|| panic!("no stage {name}"))
}

/// Photographs with wrong labels, and a program that writes what SimCLR writes.
const PHOTOS: &str = r#"
[experiment]
name = "photos"

[stages.data]
kind = "dataset"
format = "image-folder"
path = "photos"
size = 32

[stages.noisy]
kind = "corrupt-labels"
data = "data"
noise = "flip"
rate = 0.5

[stages.views]
kind = "command"
files = ["photos"]
shell = "for photo in photos/train/cat/*; do cp $photo \"$PIPELINE_OUTPUT/views.png\"; done"
"#;

#[test]
fn wrong_labels_and_views_are_shown_as_images() {
    let project = Sandbox::new(PHOTOS);
    project.write_photos("photos", &["cat", "dog"], 40, 4);
    project.pipeline("run experiment.toml").success();
    let page = printed(&project, "report experiment.toml -o -");
    let data = data(&page);
    let wrong = stage(&data, "noisy")["wrong-labels"].as_array().expect("a list");
    assert_eq!(wrong.len(), 24, "of some 40");
    for label in wrong {
        let index = label["index"].as_u64().expect("a number");
        assert_eq!(label["clean"], if index < 40 { "cat" } else { "dog" });
        assert_ne!(label["clean"], label["given"]);
        assert!(label["image"].as_str().is_some_and(|url| url.starts_with("data:image/")));
    }
    let views = stage(&data, "views")["views"].as_str().expect("an image");
    assert!(views.starts_with("data:image/"), "{views}");
    fs::write(project.path("page.html"), page).expect("writable");
    let page = fs::canonicalize(project.path("page.html")).expect("a page");
    let Some((shown, said)) = in_browser(&page, "") else { return };
    assert!(!said.contains("CONSOLE"), "{said}");
    assert_eq!(shown.matches("alt=\"Training sample ").count(), 24);
    assert!(shown.contains("<section id=\"views\">"), "shown");
}

/// A page without the time at which it was made.
fn without_time(page: &str) -> String {
    let (before, after) = page.split_once("name=\"made\" content=\"").expect("a time");
    format!("{before}{}", after.trim_start_matches(|letter: char| letter.is_ascii_digit()))
}

#[test]
fn the_page_has_all_that_is_known() {
    let project = swept();
    let written = printed(&project, "report experiment.toml -o page.html");
    assert!(written.starts_with("page.html: 11 stages, "), "{written}");
    let page = project.read("page.html");
    let data = data(&page);
    assert_eq!(data["command"], "pipeline run experiment.toml");
    assert_eq!(data["files"][0]["text"], SWEEP);
    assert_eq!(data["runs"][0]["state"], "complete");
    assert_eq!(data["runs"][0]["ran"], 11);
    let evaluate = stage(&data, "evaluate@rate=0.2,seed=1");
    assert_eq!(evaluate["state"], "fresh");
    assert_eq!(evaluate["last-run"]["metrics"]["test-accuracy"], 0.12);
    assert_eq!(evaluate["last-run"]["metrics"]["loss"], "NaN");
    assert_eq!(evaluate["confusion"]["rows"], serde_json::json!([[5, 1], [2, 4]]));
    assert_eq!(evaluate["reliability"]["rows"][0], serde_json::json!([1.0, 0.0, null, null]));
    let train = stage(&data, "train@rate=0.2,seed=2");
    assert_eq!(train["curves"]["rows"][2], serde_json::json!([3.0, 1.2, 0.7]));
    assert!(
        train["log"]["text"].as_str().is_some_and(|log| log.ends_with("the last line")),
        "{train}"
    );
    let usage = &train["last-run"]["usage"];
    for used in ["cpu-seconds", "peak-memory", "bytes-in"] {
        assert!(usage[used].as_f64().is_some_and(|used| used > 0.0), "{used} of {usage}");
    }
    assert_eq!(stage(&data, "noisy@rate=0.8")["noise"]["requested-rate"], 0.8);
    assert_eq!(stage(&data, "noisy@rate=0.8")["noise"]["corrupted-classes"][0], "<i>dog</i>");
    let table = stage(&data, "table");
    assert_eq!(table["tables"][0]["header"][0], "rate");
    assert!(
        table["plots"][0]["svg"].as_str().is_some_and(|svg| svg.starts_with("<svg")),
        "{table}"
    );
    // Nothing is loaded, and no text from elsewhere is markup.
    assert!(page.contains("default-src 'none'"));
    assert!(!page.contains("taken over'</script>") && !page.contains("<i>dog"), "escaped");
    assert_eq!(page.matches("<script").count(), 2);
}

#[test]
fn the_same_cache_makes_the_same_page() {
    let project = swept();
    let one = printed(&project, "report experiment.toml -o -");
    let other = printed(&project, "report experiment.toml -o -");
    assert_eq!(without_time(&one), without_time(&other));
}

#[test]
fn what_is_not_fresh_is_shown_as_such() {
    let project = swept();
    project.edit("1,2.5,0.3", "1,2.6,0.3");
    project.pipeline("report experiment.toml").success();
    let page = project.read("report.html");
    let data = data(&page);
    let train = stage(&data, "train@rate=0.2,seed=1");
    assert_eq!(train["state"], "dirty");
    assert!(
        train["why"].as_str().is_some_and(|why| why.starts_with("shell: ")),
        "{}",
        train["why"]
    );
    assert_eq!(train["last-run"]["is-current"], false);
    assert_eq!(train["curves"]["rows"][0][1], 2.5, "of the earlier run");
    assert_eq!(stage(&data, "table")["state"], "waiting");
    let changed = printed(
        &project,
        "report experiment.toml noisy --only rate=0.2 --set matrix.seed=[1] -o -",
    );
    let data = self::data(&changed);
    assert_eq!(data["stages"].as_array().map(Vec::len), Some(1));
    assert_eq!(data["changes"], serde_json::json!(["--set 'matrix.seed=[1]'", "--only rate=0.2"]));
}

#[test]
fn what_failed_is_shown_with_its_message() {
    let project = Sandbox::new(SWEEP);
    project.edit("echo 'the last line'", "exit \"$SEED\"");
    project.pipeline("run experiment.toml --keep-going");
    let page = printed(&project, "report experiment.toml -o -");
    let failed = stage(&data(&page), "train@rate=0.2,seed=2")["failed"].clone();
    let message = failed["message"].as_str().expect("a text");
    assert!(message.contains("ended with exit status 2"), "{failed}");
    fs::write(project.path("page.html"), page).expect("writable");
    let page = fs::canonicalize(project.path("page.html")).expect("a page");
    let Some((shown, said)) = in_browser(&page, "#stage=train@rate=0.2,seed=2") else { return };
    assert!(!said.contains("CONSOLE"), "{said}");
    assert!(shown.contains("4 failed"), "{shown}");
    let aside = aside(&shown);
    assert!(aside.contains("Its last run failed"), "{aside}");
    assert!(aside.contains("ended with exit status 2"), "{aside}");
}

/// What the functions of the page make of values, as commands show them.
#[test]
fn numbers_are_shown_and_sorted_as_in_the_commands() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = include_str!("../../src/pipeline/report/elements.js");
    let calls = r#"
        const texts = [
            ...[0, 812, 999, 1000, 2610989, 163e9, 1e15].map(size),
            ...[0.004, 0.5, 0.994, 1, 7.34, 59.94, 125, 11220].map(duration),
            ["0.1", "0.05", "0.5", "0.25"].sort(compare).join(" "),
            ["1e-3", "simclr", "-2", "10", "9", "lq-10", "lq-9"].sort(compare).join(" "),
            [3, 10, 2.5].sort(compare).join(" "),
        ];
        document.body.append(h("p", {}, texts.join(" | ")));
    "#;
    let page = folder.path().join("functions.html");
    let text = format!("<!doctype html><meta charset=utf-8><body><script>{script}{calls}</script>");
    fs::write(&page, text).expect("writable");
    let Some((shown, said)) = in_browser(&page, "") else { return };
    assert!(!said.contains("CONSOLE"), "{said}");
    let (_, texts) = shown.split_once("<p>").expect("texts");
    let (texts, _) = texts.split_once("</p>").expect("an end");
    assert_eq!(
        texts,
        "0 B | 812 B | 999 B | 1.0 kB | 2.6 MB | 163 GB | 1.0 PB \
         | 4 ms | 0.50 s | 0.99 s | 1.0 s | 7.3 s | 59.9 s | 2 min 05 s | 3 h 07 min \
         | 0.05 0.1 0.25 0.5 | -2 1e-3 9 10 lq-9 lq-10 simclr | 2.5 3 10"
    );
}

/// Trainings of which only some have an axis: only the encoder has it, and only some start from the encoder.
const ENCODERS: &str = r#"
[experiment]
name = "encoders"

[matrix]
size = [10, 20]
rate = [0.05, 0.1, 0.25, 0.5]

[matrix.init]
scratch = {}
encoder = { weights = "encoder" }

[stages.encoder]
kind = "command"
environment = { SIZE = "${size}" }
shell = 'echo "$SIZE" > "$PIPELINE_OUTPUT/size"'

[stages.train]
kind = "command"
inputs = { encoder = "${init.weights}" }
environment = { INIT = "${init}", RATE = "${rate}" }
shell = '''
loss=1000
test "$INIT" = scratch || loss=$(cat "$PIPELINE_INPUT_ENCODER/size")
printf 'epoch,loss\n1,%s\n2,%s\n3,%s\n' "$loss" "$loss" "$loss" > "$PIPELINE_OUTPUT/curves.csv"
'''
"#;

#[test]
fn runs_without_an_axis_are_not_in_the_means_of_its_values() {
    let project = Sandbox::new(ENCODERS);
    project.pipeline("run experiment.toml").success();
    printed(&project, "report experiment.toml -o page.html");
    // Coloured by the axis, as a click on the choice does it.
    let script = r##"
        const colourBy = [...document.querySelectorAll("#curves label")].find((label) => label.textContent.startsWith("Colour by")).querySelector("select");
        colourBy.value = "size";
        colourBy.dispatchEvent(new Event("change"));
        const lineOf = (name) => [...document.querySelectorAll("#curves .line:not(.pale)")].find((path) => path.textContent === name)?.getAttribute("d");
        setTimeout(() => {
            // Without a window, the browser may not come to its next frame.
            document.querySelectorAll("#curves .chart").forEach((chart) => chart.redraw());
            const means = [...document.querySelectorAll("#curves .line:not(.pale)")].map((path) => path.textContent);
            const colours = [...document.querySelectorAll("#curves .line.pale")].map((path) => path.getAttribute("class").match(/c\d/)[0]);
            const chips = [...document.querySelectorAll("#curves .chips:not(.legend)")].map((chips) => [...chips.children].map((chip) => chip.textContent).join(" "));
            const ticks = [...document.querySelectorAll("#curves .tick")].map((tick) => tick.textContent);
            // The best is at the top: 10 and 20 are at the bottom of an axis to 1000.
            const heights = ["size=10 (4)", "size=20 (4)", "size=– (4)"].map((name) => lineOf(name)?.match(/M\S+ (\S+)L/)[1]);
            document.body.append(h("pre", { id: "found" }, JSON.stringify({ means, colours: [...new Set(colours)].sort(), chips, ticks, heights })));
        }, 500);
    "##;
    let Some((found, _)) = found_in_browser(&project, script, "") else { return };
    assert_eq!(found["means"], serde_json::json!(["size=10 (4)", "size=20 (4)", "size=– (4)"]));
    assert_eq!(found["colours"], serde_json::json!(["c0", "c1", "c2"]));
    assert_eq!(
        found["chips"],
        serde_json::json!(["init encoder scratch", "rate 0.05 0.1 0.25 0.5", "size 10 20 –"])
    );
    assert_eq!(found["ticks"], serde_json::json!(["1", "2", "3"]), "whole epochs");
    let height = |place: usize| -> f64 {
        found["heights"][place].as_str().expect("a line").parse().expect("a number")
    };
    // Of an axis from 10 to 1000, over 288 pixels: 10 and 20 are three pixels apart, and 1000 is at the top.
    assert!((2.0..4.0).contains(&(height(0) - height(1))), "{found}");
    assert!(height(1) - height(2) > 200.0, "{found}");
}

/// Stages that run one after the other.
const IN_A_ROW: &str = r#"
[experiment]
name = "in-a-row"

[stages.data]
kind = "command"
shell = "echo data"

[stages.prepare-features]
kind = "command"
inputs = { data = "data" }
shell = "echo features"

[stages.train]
kind = "command"
inputs = { features = "prepare-features" }
shell = "echo train"

[stages.evaluate]
kind = "command"
inputs = { model = "train" }
shell = "echo evaluate"
"#;

#[test]
fn no_label_of_the_times_is_over_another_and_their_table_is_whole() {
    let project = Sandbox::new(IN_A_ROW);
    project.pipeline("run experiment.toml").success();
    printed(&project, "report experiment.toml -o page.html");
    // As if there had been days between them.
    let page = project.read("page.html");
    let (before, after) = page.split_once("id=\"data\">").expect("a block of data");
    let (json, after) = after.split_once("</script>").expect("its end");
    let mut data: Value = serde_json::from_str(json).expect("JSON");
    for (day, stage) in data["stages"].as_array_mut().expect("a list").iter_mut().enumerate() {
        stage["last-run"]["finished"] = (1_700_000_000 + 90_061 * day).into();
    }
    project.write("page.html", format!("{before}id=\"data\">{data}</script>{after}"));
    let script = r##"
        setTimeout(() => {
            document.querySelectorAll("#time .chart").forEach((chart) => chart.redraw());
            const labels = [...document.querySelectorAll("#time .chart text:not(.row-name)")].map((label) => [label.textContent, label.getBoundingClientRect()]);
            const over = labels.flatMap(([one, first], place) => labels.slice(place + 1).filter(([, second]) => first.left < second.right && second.left < first.right && first.top < second.bottom && second.top < first.bottom).map(([other]) => `${one} ${other}`));
            const table = document.querySelector("#time .box-table");
            document.body.append(h("pre", { id: "found" }, JSON.stringify({ labels: labels.map(([text]) => text), over, hidden: table.scrollWidth - table.clientWidth })));
        }, 500);
    "##;
    let Some((found, _)) = found_in_browser(&project, script, "") else { return };
    assert_eq!(found["over"], serde_json::json!([]), "{found}");
    assert_eq!(found["hidden"], 0, "{found}");
    let labels = found["labels"].as_array().expect("a list");
    assert_eq!(labels.len(), 5, "{found}");
    assert_eq!(labels[..3], ["+25 h", "+25 h", "+25 h"], "{found}");
}

#[test]
fn legends_of_curves_mark_what_used_clean_labels() {
    let project = Sandbox::new(ENCODERS);
    project.pipeline("run experiment.toml").success();
    printed(&project, "report experiment.toml -o page.html");
    // As if the trainings with one of the sizes had, which no program can say of itself.
    let page = project.read("page.html");
    let mut marked = page.clone();
    for rate in ["0.05", "0.1", "0.25", "0.5"] {
        let name = format!("\"stage\":\"train@init=encoder,rate={rate},size=10\",");
        assert_eq!(marked.matches(&name).count(), 1, "{name}");
        marked = marked.replace(&name, &format!("{name}\"uses-clean-labels\":true,"));
    }
    let script = r##"
        const colourBy = [...document.querySelectorAll("#curves label")].find((label) => label.textContent.startsWith("Colour by")).querySelector("select");
        const look = (by) => new Promise((done) => {
            colourBy.value = by;
            colourBy.dispatchEvent(new Event("change"));
            setTimeout(() => {
                document.querySelectorAll("#curves .chart").forEach((chart) => chart.redraw());
                const texts = (selector) => [...document.querySelectorAll(selector)].map((one) => one.textContent).filter((text) => text.includes("†"));
                done({ lines: texts("#curves .line:not(.pale)"), chips: texts("#curves .chips:not(.legend) .chip"), legend: texts("#curves .legend .chip"), notes: texts("#curves p") });
            }, 500);
        });
        look("run").then((runs) => look("size").then((sizes) => document.body.append(h("pre", { id: "found" }, JSON.stringify({ runs, sizes })))));
    "##;
    let marks = |page: &str| {
        project.write("page.html", page);
        found_in_browser(&project, script, "").map(|(found, _)| found)
    };
    let Some(found) = marks(&marked) else { return };
    let note = ["† Learned from labels known to be right, or was chosen by them."];
    let of_runs =
        ["0.05", "0.1", "0.25", "0.5"].map(|rate| format!("init=encoder, rate={rate}, size=10 †"));
    let runs =
        serde_json::json!({ "lines": of_runs, "chips": [], "legend": of_runs, "notes": note });
    assert_eq!(found["runs"], runs);
    let sizes = serde_json::json!({
        "lines": ["size=10 (4) †"], "chips": ["10 †"], "legend": of_runs, "notes": note,
    });
    assert_eq!(found["sizes"], sizes);
    let nothing = serde_json::json!({ "lines": [], "chips": [], "legend": [], "notes": [] });
    let found = marks(&page).expect("a browser");
    assert_eq!([&found["runs"], &found["sizes"]], [&nothing, &nothing]);
}

/// Evaluations of those trainings, and a summary of them.
const EVALUATED: &str = r#"
[stages.evaluate]
kind = "command"
inputs = { model = "train" }
output = "metrics"
shell = '''
echo '{ "test-accuracy": 0.5 }' > "$PIPELINE_OUTPUT/metrics.json"
printf 'true class,cat,dog\ncat,5,1\ndog,2,4\n' > "$PIPELINE_OUTPUT/confusion.csv"
'''

[stages.table]
kind = "summarize"
of = "evaluate"
metric = "test-accuracy"
over = ["rate", "size"]
rows = ["init"]
"#;

#[test]
fn runs_without_an_axis_can_be_chosen_and_many_inputs_are_folded() {
    let project = Sandbox::new(&format!("{ENCODERS}{EVALUATED}"));
    project.pipeline("run experiment.toml").success();
    project.edit("0.5 }", "0.25 }");
    printed(&project, "report experiment.toml -o page.html");
    let script = r##"
        const controls = () => [...document.querySelectorAll("#evaluation label")];
        const of = (axis) => controls().find((label) => label.firstChild.textContent === axis).querySelector("select");
        const steps = [];
        const look = () => steps.push(document.querySelector("#evaluation .controls a").textContent);
        const choose = (axis, text) => {
            const select = of(axis);
            select.value = [...select.options].find((option) => option.textContent === text).value;
            select.dispatchEvent(new Event("change"));
            look();
        };
        choose("size", "20");
        choose("rate", "0.25");
        choose("size", "–");
        choose("size", "10");
        const options = controls().map((label) => [label.firstChild.textContent, ...[...label.querySelectorAll("option")].map((option) => option.textContent)].join(" "));
        document.body.append(h("pre", { id: "found" }, JSON.stringify({ steps, options })));
    "##;
    let Some((found, shown)) = found_in_browser(&project, script, "#stage=table") else { return };
    assert_eq!(
        found["steps"],
        serde_json::json!([
            "evaluate@init=encoder,rate=0.05,size=20",
            "evaluate@init=encoder,rate=0.25,size=20",
            "evaluate@init=scratch,rate=0.25",
            "evaluate@init=encoder,rate=0.25,size=10",
        ])
    );
    assert_eq!(
        found["options"],
        serde_json::json!(["init encoder scratch", "rate 0.05 0.1 0.25 0.5", "size 10 20 –"])
    );
    let table = aside(&shown);
    assert!(table.contains("<summary>of: 12 of evaluate</summary>"), "{table}");
    // As in the commands: a number of stages is to run, and a stage is dirty.
    let (_, head) = shown.split_once("<header").expect("the head");
    let (head, _) = head.split_once("</header>").expect("its end");
    assert!(head.contains("○ 12 to run"), "{head}");
    let page = fs::canonicalize(project.path("page.html")).expect("a page");
    let (shown, _) =
        in_browser(&page, "#stage=evaluate@init=scratch,rate=0.25").expect("a browser");
    let one = aside(&shown);
    assert!(one.contains("○ dirty") && one.contains("<div>model: <a"), "{one}");
}

const STOPPED: &str = r#"
[experiment]
name = "stopped"

[stages.data]
kind = "command"
shell = "touch $PIPELINE_OUTPUT/data"

[stages.broken]
kind = "command"
inputs = { data = "data" }
shell = "exit 3"

[stages.slow]
kind = "command"
inputs = { data = "data" }
shell = "touch began; sleep 600"
"#;

#[test]
fn what_was_interrupted_or_failed_is_shown_as_by_status() {
    let project = Sandbox::new(STOPPED);
    project.pipeline("run experiment.toml broken");
    let run = project.start("run experiment.toml slow");
    eventually("the stage runs", || project.path("began").exists());
    run.signal(Signal::INT);
    assert_eq!(run.wait().code(), Some(130));
    let status = project.pipeline("status experiment.toml --json").json();
    assert!(stage(&status, "slow")["interrupted"].is_object(), "{status}");
    let page = printed(&project, "report experiment.toml -o -");
    let data = data(&page);
    for (name, word) in [("data", "fresh"), ("broken", "failed"), ("slow", "interrupted")] {
        assert_eq!(stage(&data, name)["status"], word);
        assert!(
            page.contains(&format!("<g class=\"node {word}\" data-stage=\"{name}\">")),
            "{name}"
        );
    }
    assert_eq!(stage(&data, "slow")["interrupted"]["has-checkpoint"], false);
    assert_eq!(
        without_time(&page),
        without_time(&printed(&project, "report experiment.toml -o -"))
    );
    fs::write(project.path("page.html"), page).expect("writable");
    let page = fs::canonicalize(project.path("page.html")).expect("a page");
    let Some((shown, said)) = in_browser(&page, "#stage=slow") else { return };
    assert!(!said.contains("CONSOLE"), "{said}");
    let (_, head) = shown.split_once("<header").expect("the head");
    let (head, _) = head.split_once("</header>").expect("its end");
    for words in ["✕ 1 failed", "◐ 1 interrupted", "● 1 fresh"] {
        assert!(head.contains(words), "{words}: {head}");
    }
    assert!(!head.contains("to run"), "{head}");
    let aside = aside(&shown);
    assert!(aside.contains("Its last run was interrupted"), "{aside}");
    assert!(aside.contains("The next run begins again."), "{aside}");
}

#[test]
fn what_cannot_be_done_is_said() {
    let project = Sandbox::new(SWEEP);
    printed(&project, "report experiment.toml -o page.html");
    assert_eq!(stage(&data(&project.read("page.html")), "table")["state"], "waiting");
    assert_snapshot!(project.pipeline("report experiment.toml --open -o -"), @r"
    status 2
    --- stderr
    error: --open needs a file: name one with --output
    ");
    assert_snapshot!(project.pipeline("report experiment.toml -o ./experiment.toml"), @r#"
    status 2
    --- stderr
    error: ./experiment.toml is a file of the manifest or of the cache: name another one with --output
    "#);
    assert_snapshot!(project.pipeline("report experiment.toml -o missing/page.html"), @r"
    status 2
    --- stderr
    error: cannot write missing/page.html: No such file or directory (os error 2)
    ");
}

#[test]
fn the_graph_is_a_picture_or_a_page() {
    let project = swept();
    let svg = printed(&project, "graph experiment.toml --format svg");
    assert!(svg.starts_with("<svg ") && svg.contains(">4: 4 fresh</text>"), "{svg}");
    let page = printed(&project, "graph experiment.toml --format html");
    let data = data(&page);
    assert_eq!(data["only-graph"], true);
    assert!(stage(&data, "train@rate=0.2,seed=1")["curves"].is_null());
}

/// What a script that is added to `page.html` leaves in an element `found`, and the page then. `None` without a browser.
fn found_in_browser(project: &Sandbox, script: &str, fragment: &str) -> Option<(Value, String)> {
    let text = project.read("page.html");
    let (_, nonce) = text.split_once("<script nonce=\"").expect("a nonce");
    let (nonce, _) = nonce.split_once('"').expect("its end");
    let script = format!("<script nonce=\"{nonce}\">{script}</script></body>");
    project.write("page.html", text.replace("</body>", &script));
    let page = fs::canonicalize(project.path("page.html")).expect("a page");
    let (shown, said) = in_browser(&page, fragment)?;
    assert!(!said.contains("CONSOLE"), "{said}");
    let (_, found) = shown.split_once("<pre id=\"found\">").expect("what was found");
    let (found, _) = found.split_once("</pre>").expect("its end");
    Some((serde_json::from_str(found).expect("JSON"), shown))
}

/// The page after its scripts have run, and what the browser said. `None` without a browser.
fn in_browser(page: &Path, fragment: &str) -> Option<(String, String)> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let is_there = |name: &&&str| Command::new(name).arg("--version").output().is_ok();
    let Some(browser) = names.iter().find(is_there) else {
        skipped("no Chromium is installed, so the page was not opened in a browser");
        return None;
    };
    let profile = tempfile::tempdir().expect("a temporary folder");
    let mut command = Command::new(browser);
    command.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
    ]);
    command.args([
        "--disable-component-update",
        "--disable-sync",
        "--enable-logging=stderr",
        "--virtual-time-budget=4000",
    ]);
    command.arg(format!("--user-data-dir={}", profile.path().display()));
    command.args(["--window-size=1200,900", "--dump-dom"]);
    command.arg(format!("file://{}{fragment}", page.display()));
    let [out, err] = ["out", "err"].map(|name| profile.path().join(name));
    command.stdout(fs::File::create(&out).expect("a new file"));
    command.stderr(fs::File::create(&err).expect("a new file"));
    let mut child = command.spawn().expect("the browser starts");
    let start = Instant::now();
    while child.try_wait().expect("a child").is_none() {
        if start.elapsed() > LIMIT {
            let _ = child.kill();
            panic!("{browser} did not end");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let text =
        |path: &Path| String::from_utf8_lossy(&fs::read(path).expect("readable")).into_owned();
    Some((text(&out), text(&err)))
}

/// What is shown of the chosen stage: not the scripts, which have the same words.
fn aside(shown: &str) -> &str {
    let (_, aside) = shown.split_once("<aside").expect("the chosen stage");
    aside.split_once("</aside>").expect("its end").0
}

#[test]
fn a_browser_shows_it() {
    let project = swept();
    printed(&project, "report experiment.toml -o page.html");
    let page = fs::canonicalize(project.path("page.html")).expect("a page");
    let Some((shown, said)) = in_browser(&page, "#stage=train@rate=0.8,seed=2") else { return };
    assert!(!said.contains("CONSOLE"), "{said}");
    assert!(shown.contains("data-ready=\"true\""), "{shown}\n{said}");
    for section in [
        "summaries",
        "graph",
        "metrics",
        "curves",
        "evaluation",
        "noise",
        "time",
        "runs",
        "origin",
        "manifest",
    ] {
        assert!(shown.contains(&format!("<section id=\"{section}\">")), "{section} is shown");
    }
    assert!(shown.contains("<title>sweep &amp; more</title>"), "no text is a script");
    let aside = aside(&shown);
    assert!(aside.contains("<summary>Log</summary>") && !aside.contains("[object"), "{aside}");
    assert!(aside.contains("rate=0.8, seed=2</p>"), "{aside}");
    assert!(aside.contains(" of the processor, ") && aside.contains(" of memory"), "{aside}");
    assert!(aside.contains("&lt;/script&gt;") && aside.contains("the last line"), "{aside}");
    assert_eq!(shown.matches("<path class=\"line ").count(), 4, "a curve for each run");
    assert!(shown.contains("data:image/svg+xml"), "the plot of the summary");
}
