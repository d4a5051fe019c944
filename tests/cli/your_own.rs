//! docs/your-own.md: what it shows is a part of a manifest, and labels of one's own are trained on.

use std::fs;
use std::path::Path;

use insta::assert_snapshot;

use crate::support::{Sandbox, names};

/// The stages that the parts refer to, for those that do not have them themselves.
const STAGES: [(&str, &str); 5] = [
    ("data", "kind = \"dataset\"\nformat = \"image-folder\"\npath = \"photos\""),
    ("noisy", "kind = \"corrupt-labels\"\ndata = \"data\"\nrate = 0.4"),
    ("train", "kind = \"train\"\ndata = \"data\"\nlabels = \"noisy\""),
    ("evaluate", "kind = \"evaluate\"\nmodel = \"train\"\ndata = \"data\""),
    (
        "mine",
        "kind = \"command\"\nshell = \"exit 1\"\ninputs = { labels = \"noisy\" }\noutput = \"metrics\"",
    ),
];

fn blocks() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/your-own.md");
    let text = fs::read_to_string(path).expect("it exists");
    let blocks = text.split("```toml\n").skip(1);
    blocks.map(|rest| rest.split("```").next().expect("a text").to_owned()).collect()
}

/// A project whose manifest is a block of the docs, with the stages that it refers to.
fn project_of(block: &str) -> Sandbox {
    let mut manifest = "experiment = { name = \"own\", seed = \"${seed}\" }\n".to_owned();
    let axes = "[matrix]\nseed = [1]\nrate = [0.2]\n";
    manifest += &(if block.contains("[matrix]") { "" } else { axes }.to_owned() + block);
    for (name, stage) in STAGES {
        let header = format!("[stages.{name}]");
        if !block.contains(&header) {
            manifest += &format!("\n{header}\n{stage}\n");
        }
    }
    let project = Sandbox::new(&manifest);
    project.write_photos("photos", &["cat", "dog"], 2, 1);
    for file in
        ["noisy.csv", "labels.csv", "my_noise.py", "make.py", "train.py", "images/photo-1.jpg"]
    {
        project.write(file, "");
    }
    project
}

#[test]
fn every_part_of_a_manifest_in_the_docs_is_one() {
    let blocks = blocks();
    assert!(blocks.len() > 5, "{blocks:?}");
    for block in blocks {
        let ended = project_of(&block).pipeline("plan experiment.toml --cpus 8 --memory 16GB");
        assert_eq!(ended.code(), Some(0), "{block}\n{ended}");
        assert!(!ended.stdout.contains("blocked"), "{block}\n{ended}");
    }
}

#[test]
fn a_table_with_yours_trains_nothing_that_stands_for_it() {
    let block = blocks().into_iter().find(|block| block.contains("[stages.scores]"));
    let project = project_of(&block.expect("it is in the docs"));
    let ended = project.pipeline("plan experiment.toml --all");
    let stages = ended.stdout.lines().filter_map(|line| line.split_whitespace().next());
    let of_one_seed: Vec<_> = stages.filter(|stage| stage.ends_with("seed=1")).collect();
    assert_snapshot!(of_one_seed.join("\n"), @r"
    noisy@seed=1
    train@loss=ce,seed=1
    train@loss=gce,seed=1
    evaluate@loss=ce,seed=1
    scores@method=ce,seed=1
    evaluate@loss=gce,seed=1
    scores@method=gce,seed=1
    mine@seed=1
    scores@method=mine,seed=1
    ");
}

#[test]
fn a_table_of_images_becomes_folders_and_a_missing_image_is_a_failure() {
    let block = blocks().into_iter().find(|block| block.contains("[stages.sorted]"));
    let manifest = format!("[experiment]\nname = \"own\"\n{}", block.expect("it is in the docs"));
    let project = Sandbox::new(&manifest);
    project.write_photos("images", &["cat"], 2, 1);
    // As a spreadsheet writes it: with returns, and without a line break at the end.
    project.write(
        "labels.csv",
        "file,class,part\r\ntrain/cat/0.png,cat,train\r\ntrain/cat/1.png,dog,train\r\n\
         test/cat/0.png,cat,test\r\ntest/cat/0.png,dog,test",
    );
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @"sorted ran, data ran");
    let files = |part: &str| {
        let classes = names(&project.artifact("sorted").join(part));
        let of_class = |class| names(&project.artifact("sorted").join(part).join(class));
        classes
            .iter()
            .map(|class| format!("{class} {}", of_class(class).join(" ")))
            .collect::<Vec<_>>()
    };
    assert_eq!(files("train"), ["cat 0.png", "dog 1.png"]);
    assert_eq!(files("test"), ["cat 0.png", "dog 0.png"]);
    let text = project.read("labels.csv").replace("train/cat/0.png", "train/cat/missing.png");
    project.write("labels.csv", text);
    assert_eq!(project.pipeline("run experiment.toml").code(), Some(1));
}

const OWN: &str = r#"
[experiment]
name = "own"

[stages.data]
kind = "dataset"
format = "image-folder"
path = "photos"

[stages.noisy]
kind = "corrupt-labels"
data = "data"
noise = "file"
path = "noisy.csv"
"#;

#[test]
fn labels_of_a_file_are_used_and_its_content_decides() {
    let project = Sandbox::new(OWN);
    project.write_photos("photos", &["cat", "dog"], 2, 1);
    let run = || project.pipeline("run experiment.toml").success();
    project.write("noisy.csv", "path,label\n");
    let ended = project.pipeline("run experiment.toml");
    assert_eq!(ended.code(), Some(1), "{ended}");
    assert!(
        ended
            .stderr
            .contains("4 of the 4 samples that train have no row, such as sample 0 ('train/cat/"),
        "{ended}"
    );
    // The artifact names the files.
    let files = fs::read_to_string(project.artifact("data").join("files.csv")).expect("it exists");
    let of_part = files.lines().filter(|line| line.contains(",train,"));
    let paths: Vec<_> = of_part.filter_map(|line| line.split(',').nth(2)).collect();
    let labels: String = paths.iter().map(|path| format!("{path},dog\n")).collect();
    project.write("noisy.csv", format!("path,label\n{labels}"));
    assert_snapshot!(run(), @"data fresh, noisy ran");
    project.write("labels/other.csv", format!("path,label\n{labels}"));
    project.edit("noisy.csv", "labels/other.csv");
    assert_snapshot!(run(), @"data fresh, noisy fresh");
    project.write("labels/other.csv", "0\n1\n1\n1\n");
    assert_snapshot!(run(), @"data fresh, noisy ran");
}
