//! What does not fit together across stages, as far as the manifest says it.

use std::path::Path;

use insta::assert_snapshot;

use super::super::parse;
use super::shown;

/// The start of a manifest with data sets and encoders that differ in what is known of them.
const STAGES: &str = r#"
[experiment]
name = "x"
[stages.cifar]
kind = "dataset"
format = "cifar10"
path = "d"
[stages.few]
kind = "dataset"
format = "cifar100"
path = "d"
train-limit = 500
[stages.grey]
kind = "dataset"
format = "idx"
path = "d"
[stages.named]
kind = "dataset"
format = "idx"
path = "d"
classes = ["cat", "dog"]
[stages.like-cifar]
kind = "dataset"
format = "idx"
path = "d"
classes = ["truck", "ship", "horse", "frog", "dog", "deer", "cat", "bird", "automobile", "airplane"]
[stages.photos]
kind = "dataset"
format = "image-folder"
path = "d"
encoded = true
[stages.encoder]
kind = "pretrain-simclr"
data = "cifar"
architecture = "resnet8"
[stages.imported]
kind = "import-weights"
path = "d"
architecture = "resnet50-224"
normalise = "imagenet"
[stages.vit]
kind = "import-weights"
path = "d"
architecture = "vit_small_patch14_dinov2"
normalise = "imagenet"
[stages.classifier]
kind = "train"
data = "cifar"
[stages.cropped]
kind = "train"
data = "cifar"
augmentation = "random-resized-crop"
[stages.features]
kind = "features"
data = "cifar"
weights = "encoder"
[stages.any]
kind = "command"
shell = "true"
output = "dataset"
[stages.x]
"#;

/// The titles of the mistakes of a manifest with this stage at its end.
fn titles(stage: &str) -> Vec<String> {
    match parse(Path::new("x.toml"), &format!("{STAGES}{stage}"), &[]) {
        Ok(_) => Vec::new(),
        Err(mistakes) => mistakes.list().iter().map(|one| one.title().to_owned()).collect(),
    }
}

#[test]
fn stages_that_do_not_fit_together() {
    for (stage, expected) in [
        (
            "kind = \"train\"\ndata = \"cifar\"\ninit = \"encoder\"",
            "of a resnet8, but this stage trains a resnet18",
        ),
        ("kind = \"train\"\ndata = \"cifar\"\ninit = \"encoder\"\narchitecture = \"resnet8\"", ""),
        ("kind = \"train\"\ndata = \"cifar\"\ninit = \"imported\"", "of a resnet50-224"),
        (
            "kind = \"train\"\ndata = \"cifar\"\ninit = \"vit\"\nmethod = \"elr\"",
            "of a vit_small_patch14_dinov2, and vision transformers are not trained here: use their features",
        ),
        ("kind = \"features\"\ndata = \"cifar\"\nweights = \"vit\"", ""),
        ("kind = \"features\"\ndata = \"cifar\"\nweights = \"vit\"\nimage-size = 518", ""),
        (
            "kind = \"features\"\ndata = \"photos\"\nweights = \"vit\"\nimage-size = 256",
            "sees patches of 14x14 pixels: 256 is not a multiple of 14, as 266 is",
        ),
        ("kind = \"probe\"\ndata = \"cifar\"\nweights = \"vit\"\nclassifier = \"knn\"", ""),
        ("kind = \"probe\"\ndata = \"cifar\"\nweights = \"vit\"\naugmentation = \"none\"", ""),
        (
            "kind = \"probe\"\ndata = \"cifar\"\nweights = \"vit\"",
            "a vision transformer sees them resized to 224",
        ),
        (
            "kind = \"probe\"\ndata = \"photos\"\nweights = \"vit\"",
            "encoded files that are resized",
        ),
        ("kind = \"train\"\ndata = \"cifar\"\ninit = \"classifier\"", ""),
        (
            "kind = \"train\"\ndata = \"grey\"\ninit = \"classifier\"",
            "with 3 channels, but the data set has 1",
        ),
        ("kind = \"train\"\ndata = \"any\"\ninit = \"classifier\"", ""),
        (
            "kind = \"train\"\ndata = \"grey\"\nnormalise = \"imagenet\"",
            "3 channels, but the images have 1",
        ),
        (
            "kind = \"train\"\ndata = \"photos\"\naugmentation = \"crop-flip\"",
            "encoded files that are resized",
        ),
        ("kind = \"probe\"\ndata = \"cifar\"\nweights = \"encoder\"", ""),
        (
            "kind = \"probe\"\ndata = \"grey\"\nweights = \"encoder\"",
            "with 3 channels, but the data set has 1",
        ),
        (
            "kind = \"probe\"\ndata = \"photos\"\nweights = \"imported\"",
            "encoded files that are resized",
        ),
        ("kind = \"probe\"\ndata = \"photos\"\nweights = \"imported\"\nclassifier = \"knn\"", ""),
        (
            "kind = \"features\"\ndata = \"grey\"\nweights = \"encoder\"",
            "with 3 channels, but the data set has 1",
        ),
        (
            "kind = \"probe\"\ndata = \"cifar\"\nfeatures = \"features\"\naugmentation = \"none\"",
            "",
        ),
        (
            "kind = \"probe\"\ndata = \"few\"\nfeatures = \"features\"\nclassifier = \"knn\"",
            "of a data set with 10 classes, but this one has 100",
        ),
        ("kind = \"probe\"\ndata = \"cifar\"", "needs 'weights', an encoder, or 'features'"),
        (
            "kind = \"evaluate\"\ndata = \"few\"\nmodel = \"classifier\"",
            "has 10 classes, but the data set has 100",
        ),
        (
            "kind = \"evaluate\"\ndata = \"photos\"\nmodel = \"classifier\"",
            "are encoded, of any size",
        ),
        ("kind = \"evaluate\"\ndata = \"cifar\"\nmodel = \"classifier\"", ""),
        ("kind = \"evaluate\"\ndata = \"photos\"\nmodel = \"cropped\"", ""),
        (
            "kind = \"split\"\ndata = \"few\"",
            "holdout = 1000 leaves nothing to train on: the data set has 500",
        ),
        ("kind = \"split\"\ndata = \"few\"\nholdout = 499", ""),
        ("kind = \"split\"\ndata = \"cifar\"\nholdout = 50000", "leaves nothing to train on"),
        ("kind = \"split\"\ndata = \"any\"\nholdout = 50000", ""),
        (
            "kind = \"corrupt-labels\"\ndata = \"grey\"\nnoise = \"asymmetric\"\nrate = 0.1",
            "needs 'pairs'",
        ),
        (
            "kind = \"corrupt-labels\"\ndata = \"named\"\nnoise = \"asymmetric\"\nrate = 0.1",
            "needs 'pairs'",
        ),
        (
            "kind = \"corrupt-labels\"\ndata = \"like-cifar\"\nnoise = \"asymmetric\"\nrate = 0.1",
            "",
        ),
        ("kind = \"corrupt-labels\"\ndata = \"photos\"\nnoise = \"asymmetric\"\nrate = 0.1", ""),
        ("kind = \"corrupt-labels\"\ndata = \"cifar\"\nnoise = \"asymmetric\"\nrate = 0.1", ""),
        (
            "kind = \"corrupt-labels\"\ndata = \"grey\"\nnoise = \"asymmetric\"\nrate = 0.1\npairs = { a = \"b\" }",
            "",
        ),
        (
            "kind = \"corrupt-labels\"\ndata = \"photos\"\nnoise = \"instance\"\nrate = 0.1",
            "use a data set of pixels, such as an image-folder with encoded = false",
        ),
        ("kind = \"corrupt-labels\"\ndata = \"few\"\nnoise = \"instance\"\nrate = 0.1", ""),
        (
            "kind = \"corrupt-labels\"\ndata = \"named\"\nrate = 0.1\nclasses = [\"cat\", \"dgo\"]",
            "the class 'dgo' does not exist; did you mean 'dog'?",
        ),
        ("kind = \"corrupt-labels\"\ndata = \"any\"\nrate = 0.1\nclasses = [\"cat\", \"dgo\"]", ""),
        (
            "kind = \"corrupt-labels\"\ndata = \"named\"\nnoise = \"asymmetric\"\nrate = 0.1\npairs = { cat = \"owl\" }",
            "the class 'owl' does not exist; the classes are cat, dog",
        ),
        ("kind = \"purify-labels\"\nfeatures = \"features\"", ""),
        (
            "kind = \"purify-labels\"\nfeatures = \"features\"\nmethod = \"nearest-neighbours\"\nk = 50000",
            "k = 50000, but 50000 samples train",
        ),
        (
            "kind = \"purify-labels\"\nfeatures = \"features\"\nsplit = \"most\"\nk-min = 40000\nk-max = 40000\n\
             [stages.most]\nkind = \"split\"\ndata = \"cifar\"\nholdout = 10000",
            "k-min = 40000, but 40000 samples train",
        ),
    ] {
        let found = titles(stage);
        match expected {
            "" => assert_eq!(found, [""; 0], "{stage}"),
            expected => {
                assert!(found.len() == 1 && found[0].contains(expected), "{stage}: {found:?}")
            }
        }
    }
}

#[test]
fn a_misspelt_parameter_hides_what_only_follows() {
    let stage = "kind = \"pretrain-supervised\"\ndata = \"grey\"\nnormalize = \"dataset\"";
    assert_eq!(titles(stage), ["unknown key 'normalize', did you mean 'normalise'?"]);
}

#[test]
fn they_are_shown_at_the_port() {
    let stages = STAGES.replace("[stages.x]\n", "");
    let text = format!(
        "{stages}[stages.train]\nkind = \"train\"\ndata = \"cifar\"\ninit = \"encoder\"\n[stages.split]\nkind = \"split\"\ndata = \"few\"\n"
    );
    assert_snapshot!(shown(&text), @r##"
error: the initial weights are of a resnet8, but this stage trains a resnet18: set architecture = "resnet8" here, or train the initial weights with 'resnet18'
  --> x.toml:64:8
   |
64 | init = "encoder"
   |        ^^^^^^^^^

error: holdout = 1000 leaves nothing to train on: the data set has 500 training samples
  --> x.toml:65:9
   |
65 | [stages.split]
   |         ^^^^^
   |
   = help: holdout: How many training samples are held out. By default 1000.

error: 2 mistakes in x.toml; nothing was run
"##);
}

/// Labels with noise of this experiment, on a data set of CIFAR-10.
fn noisy(experiment: &str, stage: &str) -> String {
    format!(
        "[experiment]\nname = \"x\"\n{experiment}\n[stages.data]\nkind = \"dataset\"\nformat = \"cifar10\"\npath = \"d\"\n\
         [stages.noisy]\nkind = \"corrupt-labels\"\ndata = \"data\"\n{stage}\n"
    )
}

#[test]
fn seeds_of_noise_have_32_bits() {
    assert_snapshot!(shown(&noisy("seed = 20261129140719", "rate = 0.1")), @r##"
error: the seed 20261129140719 is too large for 'noisy': the generator of NumPy that draws there takes seeds up to 4294967295
 --> x.toml:3:8
  |
3 | seed = 20261129140719
  |        ^^^^^^^^^^^^^^
  |
  = help: a stage can have a seed of its own: seed = 1

error: 1 mistake in x.toml; nothing was run
"##);
    assert_snapshot!(shown(&noisy("", "rate = 0.1\nseed = 4294967296")), @r##"
error: the seed 4294967296 is too large for 'noisy': the generator of NumPy that draws there takes seeds up to 4294967295
  --> x.toml:12:8
   |
12 | seed = 4294967296
   |        ^^^^^^^^^^
   |
   = help: a stage can have a seed of its own: seed = 1

error: 1 mistake in x.toml; nothing was run
"##);
    assert_snapshot!(shown(&noisy("seed = \"${seed}\"\n[matrix]\nseed = [1, 4294967296]", "rate = 0.1")), @r##"
error: the seed 4294967296 is too large for 'noisy@seed=4294967296': the generator of NumPy that draws there takes seeds up to 4294967295
 --> x.toml:3:8
  |
3 | seed = "${seed}"
  |        ^^^^^^^^^
4 | [matrix]
5 | seed = [1, 4294967296]
  |            ---------- its value here
  |
  = help: a stage can have a seed of its own: seed = 1
  = help: at seed=4294967296

error: 1 mistake in x.toml; nothing was run
"##);
    let human = "noise = \"file\"\npath = \"a.csv\"";
    for (experiment, stage) in [
        ("seed = 4294967295", "rate = 0.1"),
        ("seed = 4294967296", "rate = 0.1\nseed = 7"),
        ("seed = 4294967296", human),
    ] {
        let read = parse(Path::new("x.toml"), &noisy(experiment, stage), &[]);
        assert!(read.is_ok(), "{experiment} {stage}");
    }
}

#[test]
fn a_class_is_compared_once_the_data_set_says_its_names() {
    use pipeline_stages::known::Known;

    use super::super::Fit;

    let text = noisy("", "rate = 0.1\nclasses = [\"cat\", \"dgo\"]");
    let (manifest, graph) = parse(Path::new("x.toml"), &text, &[]).expect("no mistake yet");
    let (mut fit, misfits) = Fit::check(&manifest, &graph, |_| None, |_| false);
    assert!(misfits.is_empty(), "{misfits:?}");
    let names = ["cat", "dog"].map(str::to_owned);
    let data = Known { class_names: Some(names.as_slice().into()), ..Known::default() };
    let misfits = fit.learn(&"data".parse().expect("a name"), data);
    let found: Vec<_> = misfits.iter().map(|misfit| misfit.mistake.title()).collect();
    assert_eq!(found, ["the class 'dgo' does not exist; did you mean 'dog'?"]);
}

#[test]
fn what_an_artifact_says_of_itself_counts() {
    use pipeline_stages::known::{ImageSize, Images, Known};

    use super::super::Fit;

    let stages = "kind = \"split\"\ndata = \"grey\"\nholdout = 1000\n\
                  [stages.model]\nkind = \"train\"\ndata = \"grey\"\n\
                  [stages.evaluate]\nkind = \"evaluate\"\ndata = \"named\"\nmodel = \"model\"";
    let text = format!("{STAGES}{stages}");
    let (manifest, graph) = parse(Path::new("x.toml"), &text, &[]).expect("no mistake yet");
    let (mut fit, misfits) = Fit::check(&manifest, &graph, |_| None, |_| false);
    assert!(misfits.is_empty(), "{misfits:?}");
    let size = |side| Some(ImageSize { height: side, width: side });
    let data = |train_samples, side| Known {
        channels: Some(1),
        images: Some(Images::Pixels),
        image_size: size(side),
        classes: Some(2),
        train_samples: Some(train_samples),
        ..Known::default()
    };
    let mut learn = |stage: &str, known| {
        let misfits = fit.learn(&stage.parse().expect("a name"), known);
        misfits
            .iter()
            .map(|misfit| format!("{}: {}", misfit.stage, misfit.mistake.title()))
            .collect::<Vec<_>>()
            .join("; ")
    };
    assert_snapshot!(learn("grey", data(900, 28)), @"x: holdout = 1000 leaves nothing to train on: the data set has 900 training samples");
    assert_snapshot!(learn("named", data(900, 32)), @"evaluate: the model takes images of 28x28 pixels as they are, and those of this data set have 32x32: train the model with 'image-size', or give it images of its size");
    assert_snapshot!(learn("named", data(900, 32)), @"");
    // What has run is not checked again, and nothing that it says is news to others.
    assert_snapshot!(learn("x", Known::default()), @"");
    let known = |stage: &str| match stage {
        "grey" => Some(data(900, 28)),
        "named" => Some(data(900, 28)),
        "x" => Some(Known::default()),
        _ => None,
    };
    let (_, misfits) = Fit::check(&manifest, &graph, |name| known(name.as_str()), |_| false);
    assert!(misfits.is_empty(), "{misfits:?}");
}

/// The mistakes of a stage that summarizes these metrics of another one.
fn mistakes_of_metrics(stage: &str, metrics: &str) -> String {
    let summary = format!("kind = \"summarize\"\nof = \"scores\"\nmetric = {metrics}");
    titles(&format!("{summary}\n[stages.scores]\n{stage}\n")).join("; ")
}

#[test]
fn a_metric_that_the_kind_does_not_have() {
    let evaluate = "kind = \"evaluate\"\ndata = \"cifar\"\nmodel = \"classifier\"";
    assert_snapshot!(mistakes_of_metrics(evaluate, r#"["test-loss", "test-acuracy"]"#), @"'evaluate' has no metric 'test-acuracy': its metrics are test-accuracy, test-accuracy-at-best-validation, best-test-accuracy-chosen-on-test, test-top5-accuracy, test-accuracy/..., test-loss, test-ece, noise-detection-auc");
    let all = r#"["test-accuracy", "test-accuracy/cat", "test-accuracy-at-best-validation", "noise-detection-auc"]"#;
    assert_eq!(mistakes_of_metrics(evaluate, all), "");
    let probe = "kind = \"probe\"\ndata = \"cifar\"\nweights = \"encoder\"\nclassifier = \"knn\"";
    assert_snapshot!(mistakes_of_metrics(probe, r#""linear-accuracy""#), @"'probe' has no metric 'linear-accuracy': its metrics are knn-accuracy, knn-top5-accuracy, knn-validation-accuracy");
    assert_eq!(mistakes_of_metrics(probe, r#""knn-accuracy""#), "");
    let own = "kind = \"command\"\nshell = \"true\"\noutput = \"metrics\"";
    assert_eq!(mistakes_of_metrics(own, r#""any""#), "", "a program may write anything");
}

/// Labels drawn from a matrix over two classes in a file, which is written into a folder of its own.
fn of_a_matrix() -> (tempfile::TempDir, std::path::PathBuf, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("noise.csv"), "1 0\n0 1\n").expect("a file");
    let path = folder.path().join("x.toml");
    let text = "[experiment]\nname = \"a\"\n\
                [stages.grey]\nkind = \"dataset\"\nformat = \"idx\"\npath = \"grey\"\n\
                [stages.noisy]\nkind = \"corrupt-labels\"\ndata = \"grey\"\nnoise = \"matrix\"\nmatrix = \"noise.csv\"\n";
    (folder, path, text.to_owned())
}

#[test]
fn a_matrix_in_a_file_is_compared_once_the_classes_are_known() {
    use pipeline_stages::known::Known;

    use super::super::Fit;

    let (_folder, path, text) = of_a_matrix();
    let (manifest, graph) = parse(&path, &text, &[]).expect("no mistake yet");
    let of = |classes| Known { classes: Some(classes), ..Known::default() };
    let learnt = |classes, is_planned: bool| {
        let (mut fit, misfits) = Fit::check(&manifest, &graph, |_| None, |_| is_planned);
        assert!(misfits.is_empty(), "{misfits:?}");
        let misfits = fit.learn(&"grey".parse().expect("a name"), of(classes));
        misfits.iter().map(|misfit| misfit.mistake.title().to_owned()).collect::<Vec<_>>()
    };
    assert!(learnt(2, true).is_empty() && learnt(3, false).is_empty());
    let [wrong] = &learnt(3, true)[..] else { panic!("one stage does not fit") };
    let end = "noise.csv, line 1: it has 2 numbers, but the data set has 3 classes";
    assert!(wrong.ends_with(end), "{wrong}");
}
