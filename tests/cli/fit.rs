//! Stages that turn out not to fit together once an artifact exists.

use insta::assert_snapshot;

use crate::support::{MANIFEST, Sandbox};

const STAGES: &str = r#"
[experiment]
name = "fit"

[stages.data]
kind = "dataset"
format = "idx"
path = "images"

[stages.encoder]
kind = "pretrain-simclr"
data = "data"
architecture = "resnet8"
epochs = 1

[stages.split]
kind = "split"
data = "data"
holdout = 4

[stages.train]
kind = "train"
data = "data"
split = "split"
init = "encoder"
architecture = "resnet8"
"#;

fn project() -> Sandbox {
    let project = Sandbox::new(STAGES).with_fake_learn("");
    project.write_idx_images("images", 4, 2);
    project
}

#[test]
fn what_a_data_set_shows_is_reported_before_anything_slow_starts() {
    let project = project();
    assert_snapshot!(project.pipeline("run experiment.toml --jobs 1"), @r"
    status 1
    --- stderr
          data (dataset) runs: no earlier run
    done  data in [time]
    FAIL  split after [time]: experiment.toml:19:11: holdout = 4 leaves nothing to train on: the data set has 4 training samples
    --- stdout

    stage  result  time  metrics
    data  ran  [time]  train-samples 4, test-samples 2, classes 2
    encoder  skipped  a stage failed; --keep-going goes on
    split  failed  [time]
    train  skipped  needs encoder

    fit: 1 ran, 1 failed, 2 skipped in [time]; `pipeline log experiment.toml split` shows the whole log; --keep-going runs what does not need it
    ");
    assert_eq!(project.read("journal"), "", "no training began");
    // Now it is known before the run, too.
    assert_snapshot!(project.pipeline("plan experiment.toml"), @r"
    status 2
    --- stderr
    error: holdout = 4 leaves nothing to train on: the data set has 4 training samples
      --> experiment.toml:19:11
       |
    19 | holdout = 4
       |           ^
       |
       = help: holdout: How many training samples are held out. By default 1000.

    error: 1 mistake in experiment.toml; nothing was run
    ");
    assert_snapshot!(project.pipeline("run experiment.toml").results(), @"data fresh, encoder skipped, split failed, train skipped");
    project.edit("holdout = 4", "holdout = 2");
    let ended = project.pipeline("run experiment.toml");
    assert_eq!(ended.success(), "data fresh, encoder ran, split ran, train ran");
}

#[test]
fn what_is_not_asked_for_is_not_in_the_way() {
    let project = project();
    let ended = project.pipeline("run experiment.toml encoder");
    assert_eq!(ended.success(), "data ran, encoder ran");
    assert!(project.pipeline(&format!("plan {MANIFEST} encoder")).status.success());
    let ended = project.pipeline("run experiment.toml --keep-going split");
    assert_eq!(ended.results(), "data fresh, split failed");
}
