//! `pipeline report`: the page as a file, and in a real browser where one is installed.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use insta::assert_snapshot;
use serde_json::Value;

use crate::support::{Sandbox, skipped};

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
{ "noise": "flip", "requested-rate": $RATE, "realised-rate": 0.25, "samples": 8, "corrupted": 2, "classes": ["cat", "<i>dog</i>"],
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
    assert_eq!(stage(&data, "noisy@rate=0.8")["noise"]["requested-rate"], 0.8);
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
    assert!(shown.contains("Its last run failed"), "{shown}");
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
    let (_, aside) = shown.split_once("<aside").expect("the chosen stage");
    let (aside, _) = aside.split_once("</aside>").expect("its end");
    assert!(aside.contains("rate=0.8, seed=2</p>"), "{aside}");
    assert!(aside.contains("&lt;/script&gt;") && aside.contains("the last line"), "{aside}");
    assert_eq!(shown.matches("<path class=\"line ").count(), 4, "a curve for each run");
    assert!(shown.contains("data:image/svg+xml"), "the plot of the summary");
}
