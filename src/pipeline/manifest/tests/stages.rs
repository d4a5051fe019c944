//! What is shown about the kind, the keys, the seed and the execution of a stage.

use insta::assert_snapshot;

use super::{shown_after_head, shown_of_train};

#[test]
fn stage_without_kind() {
    assert_snapshot!(shown_after_head(r##"[stages.a]
data = "data"
"##), @r#"
error: stage 'a' does not have a kind
 --> x.toml:8:9
  |
8 | [stages.a]
  |         ^
  |
  = help: add a line kind = "...", with one of download, unpack, dataset, split, replace-images, corrupt-labels, import-weights, command, summarize, pretrain-simclr, pretrain-supervised, features, purify-labels, train, evaluate and probe

error: 1 mistake in x.toml; nothing was run
"#);
}

#[test]
fn stage_with_misspelt_kind_key() {
    assert_snapshot!(shown_after_head(r##"[stages.a]
kin = "split"
data = "data"
"##), @r##"
    error: unknown key 'kin', did you mean 'kind'?
     --> x.toml:9:1
      |
    9 | kin = "split"
      | ^^^

    error: 1 mistake in x.toml; nothing was run
    "##);
}

#[test]
fn unknown_kind_that_is_near_one() {
    assert_snapshot!(shown_after_head(r##"[stages.a]
kind = "simclr"
[stages.b]
kind = "train"
data = "data"
init = "a"
"##), @r##"
    error: unknown kind 'simclr', did you mean 'pretrain-simclr'?
     --> x.toml:9:8
      |
    9 | kind = "simclr"
      |        ^^^^^^^^
      |
      = help: `pipeline kinds` describes them all

    error: 1 mistake in x.toml; nothing was run
    "##);
}

#[test]
fn unknown_kind_that_is_near_none() {
    assert_snapshot!(shown_after_head(r##"[stages.a]
kind = "xyzzy"
"##), @r#"
error: unknown kind 'xyzzy'
 --> x.toml:9:8
  |
9 | kind = "xyzzy"
  |        ^^^^^^^
  |
  = help: the kinds are download, unpack, dataset, split, replace-images, corrupt-labels, import-weights, command, summarize, pretrain-simclr, pretrain-supervised, features, purify-labels, train, evaluate and probe

error: 1 mistake in x.toml; nothing was run
"#);
}

#[test]
fn kind_of_a_wrong_type() {
    assert_snapshot!(shown_after_head(r##"[stages.a]
kind = ["split"]
"##), @r##"
    error: 'kind' must be text, but is a list
     --> x.toml:9:8
      |
    9 | kind = ["split"]
      |        ^^^^^^^^^

    error: 1 mistake in x.toml; nothing was run
    "##);
}

#[test]
fn misspelt_keys() {
    assert_snapshot!(shown_of_train(r##"epoch = 3
lr = 0.1
batchsize = 3
lable = "data"
sede = 3
"##), @r##"
    error: unknown key 'epoch', did you mean 'epochs'?
      --> x.toml:11:1
       |
    11 | epoch = 3
       | ^^^^^
       |
       = help: epochs: Passes over the training samples. By default 120.

    error: unknown key 'lr', did you mean 'learning-rate'?
      --> x.toml:12:1
       |
    12 | lr = 0.1
       | ^^
       |
       = help: learning-rate: The peak learning rate. By default 0.01.

    error: unknown key 'batchsize', did you mean 'batch-size'?
      --> x.toml:13:1
       |
    13 | batchsize = 3
       | ^^^^^^^^^
       |
       = help: batch-size: Samples per step. By default 100.

    error: unknown key 'lable', did you mean 'labels'?
      --> x.toml:14:1
       |
    14 | lable = "data"
       | ^^^^^

    error: unknown key 'sede', did you mean 'seed'?
      --> x.toml:15:1
       |
    15 | sede = 3
       | ^^^^

    error: 5 mistakes in x.toml; nothing was run
    "##);
}

#[test]
fn unknown_key_that_is_near_none() {
    assert_snapshot!(shown_of_train("zzz = 1\n"), @r#"
    error: unknown key 'zzz'
      --> x.toml:11:1
       |
    11 | zzz = 1
       | ^^^
       |
       = help: 'train' has the ports data, labels, split, init, and the parameters method, architecture, loss, epochs, batch-size, sampling, samples-per-epoch, optimizer, learning-rate, weight-decay, schedule, augmentation, mixup, image-size, normalise, precision, evaluate-every, validation-transform, validation-labels, select-best, track-test, sample-losses, average-epochs, q, forward-weight, reverse-weight, active-weight, passive-weight, smoothing, given-share, label-share, momentum, warmup, step-every, step-factor, meta-batch-size, meta-samples, meta-loss, meta-optimizer, meta-learning-rate, meta-weight-decay, meta-hidden, inner-rate, normalise-weights, inner-learning-rate, views, transition, estimation-epochs, matrix, target-momentum, regularization, regularization-ramp-up, average-momentum, average-ramp-up, learning-rate-u, learning-rate-v, consistency, balance, forget-rate, forget-epochs, prune-below, prune-after, prune-every, warmup-epochs, confidence-penalty, clean-above, loss-epochs, sharpening-temperature, unlabelled-weight, ramp-up-epochs, class-balance

    error: 1 mistake in x.toml; nothing was run
    "#);
}

#[test]
fn keys_of_the_execution_table() {
    assert_snapshot!(shown_of_train(r##"device = "cpu"
threads = 3
"##), @r##"
    error: 'device' belongs in the stage's 'execution'
      --> x.toml:11:1
       |
    11 | device = "cpu"
       | ^^^^^^
       |
       = help: write execution = { device = ... }, as it cannot change the result

    error: 'threads' belongs in the stage's 'execution'
      --> x.toml:12:1
       |
    12 | threads = 3
       | ^^^^^^^
       |
       = help: write execution = { threads = ... }, as it cannot change the result

    error: 2 mistakes in x.toml; nothing was run
    "##);
}

#[test]
fn missing_parameters() {
    assert_snapshot!(shown_after_head(r##"[stages.a]
kind = "corrupt-labels"
data = "data"
[stages.b]
kind = "download"
"##), @r#"
error: a stage of the kind 'corrupt-labels' needs 'rate'
 --> x.toml:8:9
  |
8 | [stages.a]
  |         ^
  |
  = help: rate: The noise rate. It must be given.

error: a stage of the kind 'download' needs 'url'
  --> x.toml:11:9
   |
11 | [stages.b]
   |         ^
   |
   = help: url: Where to get it: one URL, or several that are tried in order.

error: 2 mistakes in x.toml; nothing was run
"#);
}

#[test]
fn misspelt_required_parameter_is_one_mistake() {
    assert_snapshot!(shown_after_head(r##"[stages.a]
kind = "corrupt-labels"
data = "data"
rat = 0.5
"##), @r#"
error: unknown key 'rat', did you mean 'rate'?
  --> x.toml:11:1
   |
11 | rat = 0.5
   | ^^^
   |
   = help: rate: The noise rate. It must be given.

error: 1 mistake in x.toml; nothing was run
"#);
}

#[test]
fn rules_of_a_kind() {
    assert_snapshot!(shown_after_head(r##"[stages.a]
kind = "download"
url = ["ftp://x/y", "x.zip"]
md5 = "abc"
unverified = true
"##), @r#"
error: 'ftp://x/y' is not a URL that can be fetched: it does not start with https:// or http://
  --> x.toml:10:8
   |
10 | url = ["ftp://x/y", "x.zip"]
   |        ^^^^^^^^^^^
   |
   = help: url: Where to get it: one URL, or several that are tried in order.

error: 'x.zip' is not a URL that can be fetched: it does not start with https:// or http://; a file on this machine is file:PATH
  --> x.toml:10:21
   |
10 | url = ["ftp://x/y", "x.zip"]
   |                     ^^^^^^^
   |
   = help: url: Where to get it: one URL, or several that are tried in order.

error: a md5 checksum has 32 hexadecimal digits; 'abc' does not
  --> x.toml:11:7
   |
11 | md5 = "abc"
   |       ^^^^^
   |
   = help: md5: The MD5 checksum, in hexadecimal. Guards against accidents only.

error: the stage has a checksum and unverified = true: drop one of them
  --> x.toml:12:14
   |
12 | unverified = true
   |              ^^^^
   |
   = help: unverified: Accept any content, without a checksum. The stage runs again when a `file:` mirror appears, disappears or changes its content; a file from the web is not downloaded again. By default false.

error: 4 mistakes in x.toml; nothing was run
"#);
}

#[test]
fn rules_that_need_something_absent() {
    assert_snapshot!(shown_after_head(r##"[stages.a]
kind = "command"
[stages.b]
kind = "dataset"
format = "idx"
[stages.c]
kind = "download"
url = "https://example.org/a"
"##), @r##"
    error: nothing to run: set run = ["program", "argument"], or shell = "..."
     --> x.toml:9:8
      |
    9 | kind = "command"
      |        ^^^^^^^^^

    error: this stage has no data: connect 'source' to a stage, or set 'path' to a folder
      --> x.toml:12:10
       |
    12 | format = "idx"
       |          ^^^^^
       |
       = help: format: The format of the files.

    error: this file has no checksum: set blake3, sha256 or md5, or unverified = true
      --> x.toml:15:7
       |
    15 | url = "https://example.org/a"
       |       ^^^^^^^^^^^^^^^^^^^^^^^
       |
       = help: url: Where to get it: one URL, or several that are tried in order.

    error: 3 mistakes in x.toml; nothing was run
    "##);
}

#[test]
fn rules_wait_until_the_keys_are_right() {
    assert_snapshot!(shown_after_head(r##"[stages.a]
kind = "download"
url = "https://example.org/a"
md6 = "0123456789abcdef0123456789abcdef"
"##), @r##"
    error: unknown key 'md6', did you mean 'md5'?
      --> x.toml:11:1
       |
    11 | md6 = "0123456789abcdef0123456789abcdef"
       | ^^^
       |
       = help: md5: The MD5 checksum, in hexadecimal. Guards against accidents only.

    error: 1 mistake in x.toml; nothing was run
    "##);
}

#[test]
fn seed_without_random_numbers() {
    assert_snapshot!(shown_after_head(r##"[stages.a]
kind = "download"
url = "file:a"
unverified = true
seed = 3
"##), @r##"
    error: 'download' does not draw random numbers, so it does not take a seed
      --> x.toml:12:1
       |
    12 | seed = 3
       | ^^^^
       |
       = help: drop this line

    error: 1 mistake in x.toml; nothing was run
    "##);
}

#[test]
fn seed_of_a_wrong_type() {
    assert_snapshot!(shown_of_train(r##"seed = "lucky"
"##), @r##"
    error: 'seed' must be a whole number, but is text
      --> x.toml:11:8
       |
    11 | seed = "lucky"
       |        ^^^^^^^

    error: 1 mistake in x.toml; nothing was run
    "##);
}

#[test]
fn execution_of_a_stage() {
    assert_snapshot!(shown_of_train(r##"execution = { device = "cuda:x", thread = 2, timeout-seconds = 0 }
"##), @r##"
    error: 'cuda:x' is not a device
      --> x.toml:11:24
       |
    11 | execution = { device = "cuda:x", thread = 2, timeout-seconds = 0 }
       |                        ^^^^^^^^
       |
       = help: auto, cpu or cuda:N (cuda:0 is the first GPU)

    error: unknown key 'thread' in 'execution', did you mean 'threads'?
      --> x.toml:11:34
       |
    11 | execution = { device = "cuda:x", thread = 2, timeout-seconds = 0 }
       |                                  ^^^^^^

    error: 'timeout-seconds' must be at least 1, but is 0
      --> x.toml:11:64
       |
    11 | execution = { device = "cuda:x", thread = 2, timeout-seconds = 0 }
       |                                                                ^

    error: 3 mistakes in x.toml; nothing was run
    "##);
}
