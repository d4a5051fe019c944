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

/// The stages that are marked.
fn marked(text: &str) -> Vec<String> {
    let (manifest, _) = right(text, &[]);
    let marked = manifest.stages.iter().filter(|stage| stage.uses_clean_labels);
    marked.map(|stage| stage.name.to_string()).collect()
}

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
    assert_eq!(
        marked(METHODS),
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

/// The methods, none of which learns from clean labels.
fn without_clean_labels() -> String {
    METHODS
        .replace("method = \"meta-weight-net\"", "method = \"elr\"")
        .replace("uses-clean = true", "")
}

/// [`without_clean_labels`], with models that the given labels of samples held out choose.
fn chosen_by_given_labels() -> String {
    let chosen = "split = \"split\"\nwith = [\"method\"]\nselect-best = \"validation\"\nvalidation-labels = \"given\"";
    let text = without_clean_labels();
    assert!(text.contains("split = \"split\"\nwith = [\"method\"]"), "{text}");
    text.replace("split = \"split\"\nwith = [\"method\"]", chosen)
}

#[test]
fn given_labels_of_samples_held_out_are_clean_where_the_noise_left_these_out() {
    let methods = ["ce", "mwnet", "purified"];
    let all = ["train", "evaluate"]
        .into_iter()
        .flat_map(|stage| methods.map(|method| format!("{stage}@method={method}")))
        .chain(["table".to_owned()]);
    let text = chosen_by_given_labels();
    assert_eq!(marked(&text), all.collect::<Vec<_>>());
    // The noise is in all labels, and the purified ones are those with the split.
    let everywhere = text.replace("split = \"split\"\nrate", "rate");
    assert_eq!(marked(&everywhere), [""; 0]);
    // Whatever the data set holds out itself stays as it is.
    let own = everywhere.replace("kind = \"split\"", "kind = \"split\"\nby = \"dataset\"");
    assert_eq!(marked(&own), marked(&text));
}

#[test]
fn whoever_learns_from_labels_that_a_split_held_out_is_marked() {
    let text = without_clean_labels();
    let purified = text.replace("split = \"split\"\nmethod = \"linear\"", "method = \"linear\"");
    assert_eq!(
        marked(&purified),
        ["purified", "train@method=purified", "evaluate@method=purified", "table"]
    );
    let trained = text.replace("split = \"split\"\nwith", "with");
    assert_eq!(table(&trained).clean_labels, ["method=ce", "method=mwnet", "method=purified"]);
}

#[test]
fn whoever_holds_other_samples_out_than_the_noise_learns_from_clean_labels() {
    let other = |parameters: &str| {
        let text = without_clean_labels()
            .replace("split = \"split\"\nmethod", "split = \"other\"\nmethod")
            .replace("split = \"split\"\nwith", "split = \"other\"\nwith");
        text + "[stages.other]\nkind = \"split\"\ndata = \"data\"\n" + parameters
    };
    let all = ["method=ce", "method=mwnet", "method=purified"];
    for different in ["holdout = 5", "seed = 7", "by = \"dataset\""] {
        assert_eq!(marked(&other(different)).len(), 8, "{different}");
        assert_eq!(table(&other(different)).clean_labels, all, "{different}");
    }
    for equal in ["", "holdout = 1000"] {
        assert_eq!(marked(&other(equal)), [""; 0], "{equal}");
    }
}

#[test]
fn metrics_that_a_program_passes_on_are_marked_as_those_of_a_training() {
    let scores = "[stages.scores]\nkind = \"command\"\nrun = [\"cp\", \"{inputs.of}/metrics.json\", \"{output}\"]\n\
                  inputs = { of = \"evaluate\" }\noutput = \"metrics\"\n";
    let text = without_clean_labels()
        .replace("metric = \"test-accuracy\"", "metric = \"test-accuracy-at-best-validation\"");
    let passed = text.replace("of = \"evaluate\"", "of = \"scores\"") + scores;
    assert_eq!(table(&passed).clean_validation, table(&text).clean_validation);
    assert_eq!(marked(&passed), ["table"]);
}

#[test]
fn what_is_best_on_samples_held_out_is_chosen_by_clean_labels() {
    let at_best = |text: &str| {
        text.replace("metric = \"test-accuracy\"", "metric = \"test-accuracy-at-best-validation\"")
    };
    let text = at_best(&without_clean_labels());
    assert_eq!(marked(&text), ["table"], "the metric is, and the models are not");
    let marks = table(&text);
    let all = ["method=ce", "method=mwnet", "method=purified"];
    assert_eq!(
        (marks.clean_labels.as_slice(), marks.clean_validation.as_slice()),
        (&[][..], &all.map(str::to_owned)[..])
    );
    let honest = chosen_by_given_labels().replace("split = \"split\"\nrate", "rate");
    assert_eq!(marked(&at_best(&honest)), [""; 0]);
}

#[test]
fn what_judged_a_training_says_nothing_about_who_starts_from_its_model() {
    let first = "[stages.first]\nkind = \"train\"\ndata = \"data\"\nlabels = \"noisy\"\nsplit = \"split\"\n";
    let honest = chosen_by_given_labels()
        .replace("split = \"split\"\nrate", "rate")
        .replace("metric = \"test-accuracy\"", "metric = \"test-accuracy-at-best-validation\"");
    let text =
        honest.replace("with = [\"method\"]", "with = [\"method\"]\ninit = \"first\"") + first;
    assert_eq!(marked(&text), [""; 0]);
    let chosen = text + "select-best = \"validation\"\n";
    assert_eq!(marked(&chosen).len(), 8, "first, and all that follows: {:?}", marked(&chosen));
}

#[test]
fn labels_that_an_evaluation_compares_with_do_not_mark_it() {
    let compared = METHODS.replace("model = \"train\"", "model = \"train\"\nlabels = \"purified\"");
    assert_eq!(marked(&compared), marked(METHODS));
}

#[test]
fn a_probe_that_learns_from_labels_held_out_is_marked() {
    let probe = "[stages.probe]\nkind = \"probe\"\nweights = \"simclr\"\ndata = \"data\"\nlabels = \"noisy\"\n";
    let text = without_clean_labels() + probe;
    assert_eq!(marked(&text), ["probe"]);
    assert_eq!(marked(&format!("{text}split = \"split\"\n")), [""; 0]);
}

#[test]
fn without_clean_labels_nothing_is_marked() {
    let text = without_clean_labels();
    assert_eq!(marked(&text), [""; 0]);
    let parameters = KindConfig::Prepare(PrepareStage::Summarize(table(&text))).key_parameters();
    assert!(!parameters.contains_key("clean-labels"), "keys stay");
}
