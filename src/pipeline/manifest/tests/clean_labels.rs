//! Which results follow from labels that are known to be right.

use pipeline_stages::KindConfig;
use pipeline_stages::PrepareStage;
use pipeline_stages::kinds::Summarize;

use super::right;

/// A net that learns from samples held out, one that does not, and one on labels corrected with them; each evaluated.
const METHODS: &str = r#"
[experiment]
name = "x"

[matrix.method]
ce = { labels = "noisy" }
mwnet = { labels = "noisy", method = "meta-weight-net" }
purified = { labels = "purified" }

[stages.data]
kind = "dataset"
format = "cifar10"
path = "data"

[stages.split]
kind = "split"
data = "data"

[stages.noisy]
kind = "corrupt-labels"
data = "data"
split = "split"
rate = 0.5

[stages.simclr]
kind = "pretrain-simclr"
data = "data"

[stages.features]
kind = "features"
weights = "simclr"
data = "data"

[stages.purified]
kind = "purify-labels"
features = "features"
labels = "noisy"
split = "split"
method = "linear"
uses-clean = true

[stages.train]
kind = "train"
data = "data"
split = "split"
with = ["method"]

[stages.evaluate]
kind = "evaluate"
model = "train"
data = "data"

[stages.table]
kind = "summarize"
of = "evaluate"
metric = "test-accuracy"
rows = ["method"]
"#;

fn table(text: &str) -> Summarize {
    let (manifest, _) = right(text, &[]);
    let table = manifest.stage(&"table".parse().expect("a name")).expect("a stage");
    match &table.stage {
        KindConfig::Prepare(PrepareStage::Summarize(table)) => table.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_follows_from_clean_labels_is_marked() {
    let (manifest, _) = right(METHODS, &[]);
    let marked: Vec<_> = manifest
        .stages
        .iter()
        .filter(|stage| stage.uses_clean_labels)
        .map(|stage| stage.name.as_str())
        .collect();
    assert_eq!(
        marked,
        [
            "purified",
            "train@method=mwnet",
            "train@method=purified",
            "evaluate@method=mwnet",
            "evaluate@method=purified",
            "table",
        ]
    );
    assert_eq!(table(METHODS).clean_labels, ["method=mwnet", "method=purified"]);
    let own = METHODS.replace("metric = ", "clean-labels = [\"method=ce\"]\nmetric = ");
    let all = ["method=ce", "method=mwnet", "method=purified"];
    assert_eq!(table(&own).clean_labels, all, "what the manifest says stays");
}

#[test]
fn without_clean_labels_nothing_is_marked() {
    let text = METHODS
        .replace("method = \"meta-weight-net\"", "method = \"elr\"")
        .replace("uses-clean = true", "");
    let (manifest, _) = right(&text, &[]);
    assert!(manifest.stages.iter().all(|stage| !stage.uses_clean_labels));
    let parameters = KindConfig::Prepare(PrepareStage::Summarize(table(&text))).key_parameters();
    assert!(!parameters.contains_key("clean-labels"), "keys stay");
}
