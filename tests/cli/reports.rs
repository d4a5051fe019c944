//! What the commands that only look print.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use insta::assert_snapshot;

use crate::manifests::{TRAINING, WORDS};
use crate::support::{Sandbox, pipeline, walk};

/// A training that has run, and whose learning rate was edited since.
fn edited() -> Sandbox {
    let project = Sandbox::new(TRAINING).with_fake_learn("");
    project.pipeline("run experiment.toml").success();
    project.edit("learning-rate = 0.02", "learning-rate = 0.03");
    project
}

#[test]
fn plan() {
    let project = edited();
    assert_snapshot!(project.pipeline("plan experiment.toml"), @r"
    status 0
    --- stdout
    data      fresh
    simclr    fresh
    train     dirty    learning-rate: 0.02 -> 0.03
    evaluate  waiting  on train

    training: 1 would run, 1 more if what they read changes, 2 are fresh
    ");
    assert_snapshot!(project.pipeline("plan experiment.toml --exit-code simclr"), @r"
    status 0
    --- stdout
    data    fresh
    simclr  fresh

    training: all 2 stages are fresh; nothing would run
    ");
    assert_eq!(project.pipeline("plan experiment.toml --exit-code").code(), Some(1));
    let json = project.pipeline("plan experiment.toml --json").json();
    assert_eq!(json["experiment"], "training");
    assert_eq!(json["fresh"], false);
    assert_eq!(json["stages"][2]["state"], "dirty");
    assert_snapshot!(json["stages"][2]["why"], @r#"{"changes":[{"change":"parameter","name":"learning-rate","new":0.03,"old":0.02}],"reason":"changed"}"#);
}

#[test]
fn graph_for_people() {
    let project = edited();
    assert_snapshot!(project.pipeline("graph experiment.toml"), @r"
    status 0
    --- stdout
    training

    1  ● data      command
    2  ● simclr    pretrain-simclr  ← data
    3  ○ train     train            ← data, init: simclr
    4  ◌ evaluate  evaluate         ← data, model: train

    ● fresh   ○ dirty: must run   ◌ waiting: runs if its inputs change
    ");
}

#[test]
fn graph_for_other_programs() {
    let project = edited();
    assert_snapshot!(project.pipeline("graph experiment.toml --format dot"), @r##"
    status 0
    --- stdout
    digraph "training" {
      rankdir = LR;
      node [shape = box, style = "rounded,filled", fontname = "Helvetica"];
      edge [fontname = "Helvetica", fontsize = 10, color = "#555555"];
      "data" [label = "data\ncommand", fillcolor = "#d9f2d9", tooltip = "fresh"];
      "simclr" [label = "simclr\npretrain-simclr", fillcolor = "#d9f2d9", tooltip = "fresh"];
      "train" [label = "train\ntrain", fillcolor = "#ffe0b3", tooltip = "dirty"];
      "evaluate" [label = "evaluate\nevaluate", fillcolor = "#f0f0f0", tooltip = "waiting"];
      "data" -> "simclr" [label = "data"];
      "data" -> "train" [label = "data"];
      "simclr" -> "train" [label = "init"];
      "data" -> "evaluate" [label = "data"];
      "train" -> "evaluate" [label = "model"];
    }
    "##);
    assert_snapshot!(project.pipeline("graph experiment.toml --format mermaid"), @r#"
    status 0
    --- stdout
    flowchart LR
      s0["data<br><small>command</small>"]:::fresh
      s1["simclr<br><small>pretrain-simclr</small>"]:::fresh
      s2["train<br><small>train</small>"]:::dirty
      s3["evaluate<br><small>evaluate</small>"]:::waiting
      s0 -->|data| s1
      s0 -->|data| s2
      s1 -->|init| s2
      s0 -->|data| s3
      s2 -->|model| s3
      classDef fresh fill:#d9f2d9,stroke:#4a8f4a,color:#000
      classDef dirty fill:#ffe0b3,stroke:#b37400,color:#000
      classDef waiting fill:#f0f0f0,stroke:#888888,color:#000
      classDef blocked fill:#f8d7da,stroke:#b02a37,color:#000
    "#);
    let json = project.pipeline("graph experiment.toml --format json").json();
    assert_snapshot!(project.filter(&format!("{:#}", json["stages"][3])), @r#"
    {
      "inputs": [
        {
          "from": "data",
          "name": null,
          "port": "data"
        },
        {
          "from": "train",
          "name": null,
          "port": "model"
        }
      ],
      "kind": "evaluate",
      "layer": 3,
      "on": [
        "train"
      ],
      "output": "metrics",
      "stage": "evaluate",
      "state": "waiting",
      "why": null
    }
    "#);
}

#[test]
fn why() {
    let project = edited();
    assert_snapshot!(project.pipeline("why experiment.toml simclr").printed(), @r"
    simclr is fresh: artifact [digest], made just now
    it ran then because:
      no earlier run
    ");
    assert_snapshot!(project.pipeline("why experiment.toml train").printed(), @r"
    train will run because:
      learning-rate: 0.02 -> 0.03
    ");
    assert_snapshot!(project.pipeline("why experiment.toml evaluate").printed(), @r"
    evaluate will run if the output of train changes
    train will run because:
      learning-rate: 0.02 -> 0.03
    ");
    project.pipeline("run experiment.toml").success();
    assert_snapshot!(project.pipeline("why experiment.toml evaluate").printed(), @r"
    evaluate is fresh: artifact [digest], made just now
    it ran then because:
      the content of input 'model' changed, through stage 'train'
        train ran because: learning-rate: 0.02 -> 0.03
    ");
}

#[test]
fn status() {
    let project = edited();
    project.edit("[stages.evaluate]", "[stages.new-evaluate]");
    assert_snapshot!(project.pipeline("status experiment.toml").printed(), @r"
    stage  kind  state  last run  took  artifact  size
    data  command  fresh  just now  [time]  [digest]  4.5 kB
    simclr  pretrain-simclr  fresh  just now  [time]  [digest]  65 B
    train  train  dirty  just now  [time]  [digest]  65 B
    new-evaluate  evaluate  waiting  never

    cache: [project]/cache
    ");
    let json = project.pipeline("status experiment.toml --json").json();
    assert_eq!(json["cache"], project.path("cache").to_string_lossy().as_ref());
    assert_eq!(json["stages"][0]["last-run"]["stage"], "data");
    assert_eq!(json["stages"][3]["last-run"], serde_json::Value::Null);
}

#[test]
fn metrics() {
    let project = Sandbox::new(WORDS);
    assert_snapshot!(project.pipeline("metrics experiment.toml").printed().trim(), @"no result yet: words, count, report, other (`pipeline run experiment.toml`)");
    project.pipeline("run experiment.toml").success();
    assert_snapshot!(project.pipeline("metrics experiment.toml").printed(), @"report  words  6");
    assert_snapshot!(project.pipeline("metrics experiment.toml --json").printed(), @r#"
    {
      "count": {},
      "other": {},
      "report": {
        "words": 6
      },
      "words": {}
    }
    "#);
}

#[test]
fn log_and_path() {
    let project = edited();
    let log = project.pipeline("log experiment.toml simclr").printed();
    assert_eq!(log.lines().count(), 21);
    assert!(log.starts_with("runs on cpu, 4 threads\nstep 0\nstep 1\n"), "{log}");
    assert_snapshot!(project.pipeline("log experiment.toml data"), @r"
    status 0
    --- stderr
    data wrote nothing to its log ([project]/cache/logs/[..]/[digest].log)
    data took [time], cpu [time], memory [size], read 0 B, written 4.5 kB
    ");
    assert_snapshot!(project.pipeline("path experiment.toml simclr"), @r"
    status 0
    --- stdout
    [project]/cache/store/[digest]
    ");
    assert_snapshot!(project.pipeline("path experiment.toml train"), @r"
    status 2
    --- stderr
    error: 'train' does not have an artifact for this manifest: learning-rate: 0.02 -> 0.03; `pipeline run experiment.toml train` makes it
    ");
    let new = Sandbox::new(WORDS);
    assert_snapshot!(new.pipeline("log experiment.toml words"), @r"
    status 2
    --- stderr
    error: 'words' does not have a log: it has not run yet
    ");
}

#[test]
fn a_log_is_shown_that_is_larger_than_memory() {
    let project = Sandbox::new(WORDS);
    project.pipeline("run experiment.toml words").success();
    let logs = walk(&project.cache("logs"));
    let log = logs.iter().find(|path| path.is_file()).expect("its log");
    let length: u64 = 2 << 30;
    let file = fs::File::options().write(true).open(log).expect("ours");
    file.set_len(length).expect("a hole");
    let mut shell = Command::new("bash");
    let program = pipeline().display().to_string();
    let line = format!("ulimit -v 1000000; {program} log experiment.toml words | wc -c");
    project.dress(shell.args(["-c", &line]));
    let ended = project.start_command(shell).wait();
    assert_eq!(ended.stdout.trim(), length.to_string(), "{ended}");
}

#[test]
fn kinds() {
    let project = Sandbox::new("");
    assert_snapshot!(project.pipeline("kinds"), @r#"
    status 0
    --- stdout
    download             -> file       Fetches one file and checks it.
    unpack               -> directory  Unpacks an archive into a folder.
    dataset              -> dataset    Reads a data set of labelled images.
    split                -> split      Holds training samples out, for validation and as the clean meta set.
    replace-images       -> dataset    Replaces training images with images of another data set: open-set label noise.
    corrupt-labels       -> labels     Corrupts training labels with a noise matrix or by what is in the images, or replaces them with human labels or your own.
    import-weights       -> weights    Takes the encoder out of a checkpoint that another program saved.
    command              -> directory  Runs a program of yours.
    summarize            -> metrics    Summarizes the metrics of all instances of a stage: mean, interval, differences, tables and plots.
    pretrain-simclr      -> weights    Pre-trains an encoder with SimCLR, on the training images without their labels.
    pretrain-supervised  -> weights    Pre-trains an encoder by classifying labelled images, with SGD momentum 0.9 and cross-entropy.
    features             -> features   Computes the features of every image with a frozen encoder, for probes and for correcting labels.
    purify-labels        -> labels     Corrects labels by the features of the samples: linear algebra, without training a network.
    train                -> model      Trains a classifier, from scratch or from pre-trained weights.
    evaluate             -> metrics    Evaluates a classifier: accuracies, loss, calibration, and whether its losses detect wrong labels.
    probe                -> metrics    Measures an encoder: a simple classifier on its frozen features, and its accuracy on the test set.

    `pipeline kinds KIND` explains one, `pipeline kinds KIND NAME` one part of it.
    "#);
    assert_snapshot!(project.pipeline("kinds train epochs").printed(), @r"
    parameters
      epochs = integer, at least 1 [default: 120]
          Passes over the training samples.
    ");
    assert_snapshot!(project.pipeline("kinds evaluate model").printed(), @r"
    inputs
      model = model
          The classifier.
    ");
    assert_snapshot!(project.pipeline("kinds train epoch").stderr, @"error: 'train' does not have 'epoch'; did you mean 'epochs'?");
    assert_snapshot!(project.pipeline("kinds train zzz").stderr, @"error: 'train' does not have 'zzz'; `pipeline kinds train` has them all");
    assert_snapshot!(project.pipeline("kinds train dividemix").printed(), @r#"
    parameters
      method = one of [default: "finetune"]
          How the classifier is trained.
            dividemix  DivideMix: two networks, each of which says for the other one which
                       labels are right; the other samples are learned from without labels. The
                       model is both: the mean of their predictions. From an encoder of
                       `pretrain-simclr` it is C2D. `loss` stays at its default. Not with
                       `sampling = "class-balanced"` or `samples-per-epoch`, as it divides all
                       samples that train.

    parameters with method = "dividemix"
      warmup-epochs = integer, at least 1 [default: 10]
          Epochs in which both networks learn from all samples, before they divide them: fewer
          than `epochs`. The paper has 10 for CIFAR-10 and 30 for CIFAR-100.
      confidence-penalty = number, at least 0 [default: 0.0]
          What is multiplied by the entropy of a prediction and taken from the loss, in these
          epochs: for asymmetric noise the paper has 1.
      clean-above = number, above 0 and below 1 [default: 0.5]
          A label counts as right above this probability: tau of the paper, which has 0.6 for 90
          % noise.
      loss-epochs = integer, at least 1 [default: 1]
          How many epochs, the last ones, the losses by which samples are divided are the mean
          of: no more than `epochs` without `warmup-epochs`. The authors' code has 5 for 90 %
          noise.
      sharpening-temperature = number, above 0 and at most 1 [default: 0.5]
          The temperature by which guessed labels are sharpened: T of the paper.
      unlabelled-weight = number, at least 0 [default: 25.0]
          The weight of the loss on samples without labels: lambda_u of the paper, which has
          from 0 for 20 % noise to 50 for CIFAR-10 and 150 for CIFAR-100 under strong noise.
      ramp-up-epochs = integer, at least 1 [default: 16]
          Epochs in which that weight rises linearly from 0.
      class-balance = number, at least 0 [default: 1.0]
          The weight of the term for equally frequent classes.
    "#);
    assert_snapshot!(project.pipeline("kinds train mae").printed(), @r#"
    parameters
      loss = one of [default: "cross-entropy"]
          The loss of a sample.

          `sop`, `forward-correction` and `dividemix` have a loss of their own: without this
          parameter, or with its default. `truncated-loss` needs `"generalized-cross-entropy"`,
          with `q = 0.7` as in its paper.
            mae  The mean absolute error to the one-hot label: 2 (1 - p_y).

    parameters with method = "meta-weight-net"
      meta-loss = one of [default: "cross-entropy"]
          The loss on the meta samples.
            mae  The mean absolute error, 2 (1 - p_y): robust to wrong labels.
    "#);
    assert_snapshot!(project.pipeline("kinds corrupt-labels matrix").printed(), @r#"
    parameters with noise = "matrix"
      matrix = text
          A text file, relative to the manifest: for each true class, in the order of the data
          set, a line with the probability of each label. Commas or spaces are between the
          numbers, which sum to 1. A first line of names, none of which is a number, is skipped,
          and so is what follows a `#`: `np.savetxt` writes such files, and the `transition.csv`
          of a `train` stage with `method = "forward-correction"` is one. It must be given.

    parameters
      noise = one of [default: "symmetric"]
          The shape of the noise matrix. The port `human` is only for `human`, and `source` only
          for `file`.
            matrix  The probabilities in a file of your own, `matrix`.
    "#);
    let json = project.pipeline("kinds --json").json();
    assert_eq!(json[0]["name"], "download");
    let train = project.pipeline("kinds train --json").json();
    let epochs = train["parameters"].as_array().expect("a list");
    let epochs = epochs.iter().find(|one| one["name"] == "epochs").expect("it has one");
    assert_eq!(
        (&epochs["default"], &epochs["required"]),
        (&serde_json::json!(120), &serde_json::json!(false))
    );
    assert_snapshot!(project.pipeline("kinds unpack"), @r#"
    status 0
    --- stdout
    unpack -> directory

    Unpacks an archive into a folder.

    Nothing is written outside the folder: absolute paths, `..`, links that leave it and device
    files are refused, and so are a path that occurs twice with different content, a name that
    is not UTF-8, and an encrypted archive. Files of file managers (`__MACOSX`, `._*`,
    `.DS_Store`, `Thumbs.db`, `desktop.ini`) are left out. Only the executable bit of a file's
    mode is kept; its times are not.

    inputs
      archive = file
          The archive.

    parameters
      format = one of [default: "auto"]
          The format of the archive.
            auto     Detected from the first bytes of the file.
            zip      A zip archive.
            tar      A tar archive.
            tar-gz   A tar archive, compressed with gzip.
            tar-xz   A tar archive, compressed with xz.
            tar-zst  A tar archive, compressed with Zstandard.
            gz       One file, compressed with gzip.
      strip = integer, at least 0 [default: 0]
          How many leading folders to drop from every path. A path with no more folders than
          these is left out.
      include = list of text [default: []]
          Globs over the paths in the archive (after `strip`); only what matches one is
          unpacked. Empty for all. `*` stays within one folder, `**` matches any number of
          folders; a glob that matches a folder takes all that is in it.

    parameters that cannot change the result
      max-bytes = integer, at least 1 [default: 274877906944]
          The most bytes that it may unpack to.
      max-files = integer, at least 1 [default: 4000000]
          The most files and folders that it may hold.
    "#);
    assert_snapshot!(project.pipeline("kinds evaluate"), @r#"
    status 0
    --- stdout
    evaluate -> metrics

    Evaluates a classifier: accuracies, loss, calibration, and whether its losses detect wrong
    labels.

    The network computes in f32, regardless of the precision of its training.

    inputs
      model = model
          The classifier.
      data = dataset
          The data set.
      labels = labels, optional
          The labels of the training samples, right and wrong, for `noise-detection-auc`.
      split = split, optional
          Which training samples count for `noise-detection-auc`: those that train. Without it:
          all.

    parameters
      batch-size = integer, at least 1
          Samples per step. Without it: 500, fewer for images larger than 64 pixels.

    output

    Accuracies are fractions from 0 to 1. What is not known is left out. `metrics.json` has

    - `test-accuracy`: on the test set, of the model as it is: that of its last step, if `train`
      chose no other one;
    - `test-accuracy-at-best-validation`: that of the first step with the best validation
      accuracy;
    - `best-test-accuracy-chosen-on-test`: the best of all evaluations during training. It is
      chosen on the test set, so it is too optimistic: only for comparison with papers that
      report it. This and the one before come from the model's `evaluations.csv`, which `train`
      writes while `track-test` is true; they are of the data set that it was trained on;
    - `test-top5-accuracy`: the true class is among the five likeliest, with more than five
      classes;
    - `test-accuracy/CLASS`, for every class that has test samples;
    - `test-loss`: the mean cross-entropy;
    - `test-ece`: the expected calibration error: the mean difference between confidence and
      accuracy over 15 equally wide bins of confidence, weighted by their samples (Guo et al.,
      2017);
    - `noise-detection-auc`, with `labels`: how well the loss of a training sample under its
      given label predicts whether that label is wrong: the area under the ROC curve, 1 for
      perfectly, 0.5 for not at all. Left out when no label is wrong, or all are.

    `confusion.csv` counts samples, a row per true class, a column per predicted class.
    `reliability.csv` has a row per bin of confidence: its samples, their mean confidence, their
    accuracy; NaN in a bin without samples.

    `predictions.safetensors` has every prediction, for the test set and, with `labels`, for the
    training samples that count. For N samples and K classes, with `test.` or `train.` before
    each name:

    - `index`, i64 `[N]`: the place of the sample in this part of the data set, from 0;
    - `logits`, f32 `[N,K]`: the outputs of the network, before the softmax;
    - `predicted`, i64 `[N]`: the class with the largest logit;
    - `label-clean`, i64 `[N]`, and `loss-clean`, f64 `[N]`: the label of the data set, and the
      cross-entropy under it, in nats;
    - `label-given` and `loss-given`, in `train` only: the same for the label that was trained
      on.

    Python reads it with `safetensors.numpy.load_file`. It takes at most 4 K + 48 bytes a
    sample.
    "#);
    assert_snapshot!(project.pipeline("kinds trian"), @r"
    status 2
    --- stderr
    error: there is no kind 'trian'; did you mean 'train'?
    ");
    for kind in pipeline_stages::KINDS {
        let text = project.pipeline(&format!("kinds {}", kind.name)).printed();
        assert!(text.starts_with(&format!("{} -> ", kind.name)), "{text}");
    }
}

#[test]
fn init_writes_a_manifest_that_plans() {
    let project = Sandbox::new("");
    assert_snapshot!(project.pipeline("init new"), @r#"
    status 0
    --- stdout
    wrote new/pipeline.toml, and the 6,000 images that it trains on under new/data

      pipeline graph new/pipeline.toml  shows its stages
      pipeline run new/pipeline.toml    runs them (about two minutes on two cores)
      pipeline kinds                    lists what stages can do
    "#);
    assert_snapshot!(project.pipeline("plan new/pipeline.toml").printed(), @r"
    download               dirty    no earlier run
    archive                waiting  on download; no earlier run
    data                   waiting  on archive; no earlier run
    split                  waiting  on data; no earlier run
    noisy                  waiting  on data, split; no earlier run
    simclr                 waiting  on data; no earlier run
    train@init=scratch     waiting  on data, split, noisy; no earlier run
    train@init=simclr      waiting  on data, split, noisy, simclr; no earlier run
    evaluate@init=scratch  waiting  on data, train@init=scratch; no earlier run
    evaluate@init=simclr   waiting  on data, train@init=simclr; no earlier run
    comparison             waiting  on evaluate@init=scratch, evaluate@init=simclr; no earlier run

    quickstart: 11 would run, 0 are fresh
    ");
    // Its first stages run without libtorch.
    assert_snapshot!(project.pipeline("run new/pipeline.toml noisy").success(), @"download ran, archive ran, data ran, split ran, noisy ran");
    project.write("new/pipeline.toml", "mine");
    assert_snapshot!(project.pipeline("init new"), @r"
    status 2
    --- stderr
    error: new/pipeline.toml already exists; `pipeline init FOLDER` writes to another folder
    ");
    assert_eq!(project.read("new/pipeline.toml"), "mine");
    let archive = project.path("new/data/fashion-mnist-6k.zip");
    let whole = std::fs::read(&archive).expect("readable");
    std::fs::remove_file(project.path("new/pipeline.toml")).expect("ours");
    std::fs::write(&archive, "my own").expect("writable");
    assert_snapshot!(project.pipeline("init new"), @r"
    status 2
    --- stderr
    error: new/data/fashion-mnist-6k.zip already exists, and is not the file that this writes: move it away
    ");
    assert_eq!(project.read("new/data/fashion-mnist-6k.zip"), "my own");
    assert!(!project.path("new/pipeline.toml").exists());
    std::fs::write(&archive, &whole[..1000]).expect("writable");
    let repaired = project.pipeline("init new");
    assert!(
        repaired.stderr.contains("new/data/fashion-mnist-6k.zip was cut off, and is written again"),
        "{repaired}"
    );
    assert_eq!(repaired.code(), Some(0), "{repaired}");
    assert_eq!(std::fs::read(&archive).expect("readable"), whole);
    std::fs::remove_file(project.path("new/pipeline.toml")).expect("ours");
    let again = project.pipeline("init new").printed();
    assert!(again.contains("are under new/data already"), "{again}");
}

#[test]
fn init_writes_nothing_where_a_link_leads_nowhere() {
    let project = Sandbox::new("");
    std::fs::create_dir_all(project.path("new/data")).expect("a folder");
    let files = || walk(&project.path(".")).iter().filter(|path| path.is_file()).count();
    let before = files();
    for (link, writes) in [
        ("new/data/FASHION-MNIST-LICENSE", "new"),
        ("new/data/fashion-mnist-6k.zip", "new"),
        ("other", "other"),
        ("third/data", "third"),
    ] {
        let link_path = project.path(link);
        std::fs::create_dir_all(link_path.parent().expect("a folder")).expect("a folder");
        std::os::unix::fs::symlink("nowhere", &link_path).expect("a link");
        let refused = project.pipeline(&format!("init {writes}"));
        assert_eq!(refused.code(), Some(2), "{refused}");
        let words =
            format!("error: {link} is a link to something that does not exist: move it away");
        assert!(refused.stderr.contains(&words), "{refused}");
        assert_eq!(std::fs::read_link(&link_path).expect("untouched"), Path::new("nowhere"));
        std::fs::remove_file(link_path).expect("ours");
        assert_eq!(files(), before, "nothing was written for {link}");
    }
}

#[test]
fn events_as_json() {
    let project = Sandbox::new(WORDS);
    let ended = project.pipeline("run experiment.toml --jobs 1 --progress json count");
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended}");
    let mut shown = String::new();
    for line in ended.stdout.lines() {
        let mut event: serde_json::Value = serde_json::from_str(line).expect("JSON in every line");
        if let Some(seconds) = event.get_mut("seconds") {
            assert!(seconds.is_f64());
            *seconds = "[seconds]".into();
        }
        shown.push_str(&format!("{event}\n"));
    }
    assert_snapshot!(project.filter(&shown), @r#"
    {"event":"begin","experiment":"words","stages":2}
    {"event":"start","key":"[digest]","kind":"command","resumes":false,"stage":"words","why":{"reason":"never-ran"}}
    {"digest":"[digest]","event":"end","key":"[digest]","metrics":{},"outcome":"ran","seconds":"[seconds]","stage":"words","unchanged":false}
    {"event":"start","key":"[digest]","kind":"command","resumes":false,"stage":"count","why":{"reason":"never-ran"}}
    {"digest":"[digest]","event":"end","key":"[digest]","metrics":{},"outcome":"ran","seconds":"[seconds]","stage":"count","unchanged":false}
    {"complete":true,"event":"done","seconds":"[seconds]"}
    "#);
}

#[test]
fn progress_as_json() {
    let project = Sandbox::new(TRAINING).with_fake_learn("");
    let ended = project.pipeline("run experiment.toml --progress json simclr");
    let lines = ended.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    let events: Vec<serde_json::Value> = lines.collect();
    let progress = events.iter().rfind(|event| event["event"] == "progress").expect("progress");
    assert_snapshot!(progress, @r#"{"done":20,"event":"progress","phase":"epoch 20/20","stage":"simclr","total":20,"unit":"steps"}"#);
    // Progress that nobody could read is dropped; a number that was measured is not.
    let measured: Vec<_> = events.iter().filter(|event| event["event"] == "measured").collect();
    assert_eq!(measured.len(), 20);
    assert_snapshot!(measured[3], @r#"{"event":"measured","name":"loss","stage":"simclr","step":4,"value":0.25}"#);
}

#[test]
fn progress_of_every_style_ends_in_the_same_table() {
    for style in ["auto", "plain", "bars", "none"] {
        let project = Sandbox::new(WORDS);
        let ended = project.pipeline(&format!("run experiment.toml --progress {style}"));
        let expected = "words ran, count ran, report ran, other ran";
        assert_eq!(ended.success(), expected, "{style}: {ended}");
        if style == "none" {
            assert_eq!(ended.stderr, "");
        }
    }
}

#[test]
fn reading_only_the_first_line_is_not_an_error() {
    let project = Sandbox::new(WORDS);
    for arguments in ["graph experiment.toml", "kinds", "completions bash", "run experiment.toml"] {
        let mut head = Command::new("sh");
        head.args(["-c", &format!("'{}' {arguments} | head -n 1", pipeline().display())]);
        project.dress(&mut head);
        let ended = project.start_command(head).wait();
        assert!(ended.status.success() && !ended.stderr.contains("panic"), "{arguments}: {ended}");
    }
    // Nobody reads at all.
    for arguments in ["graph experiment.toml", "kinds", "run experiment.toml"] {
        let mut child = project.command(arguments);
        let mut child =
            child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains("panic"), "{arguments}: {said}");
    }
}
