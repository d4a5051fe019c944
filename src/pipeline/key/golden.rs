//! The key of a stage of every kind. A key that changes by accident makes every user's every stage of the kind run again: of a kind
//! whose results have changed, its version changes; a new parameter belongs in the key only where it has another value than its default.

use std::collections::BTreeSet;

use insta::assert_snapshot;
use pipeline_stages::KINDS;

use super::tests::key_of;

/// A stage of every kind, and its key. Each is called as its kind is.
const STAGES: &str = r#"
[experiment]
name = "golden"
seed = 7

[stages.download]
kind = "download"
url = "https://example.org/a.zip"
blake3 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

[stages.unpack]
kind = "unpack"
archive = "download"
strip = 1
include = ["*.ubyte"]

[stages.dataset]
kind = "dataset"
format = "image-folder"
source = ["unpack", "download"]
train-limit = 100
classes = ["a", "b"]
size = 16

[stages.split]
kind = "split"
data = "dataset"
holdout = 10

[stages.replace-images]
kind = "replace-images"
data = "dataset"
outside = "dataset"
split = "split"
rate = 0.25

[stages.corrupt-labels]
kind = "corrupt-labels"
data = "dataset"
split = "split"
noise = "asymmetric"
rate = 0.25
pairs = { a = "b" }

[stages.import-weights]
kind = "import-weights"
source = "download"
architecture = "resnet18"
normalise = "none"
prefix = "encoder"

[stages.command]
kind = "command"
run = ["./score", "--at={inputs.model}", "{output}"]
environment = { RATE = "0.5" }
files = ["a.py", "b"]
ignore = ["*.log"]
outputs = ["metrics.json"]
output = "metrics"
inputs = { data = "dataset", model = "train" }

[stages.summarize]
kind = "summarize"
of = "evaluate"
metric = ["test-accuracy", "test-loss"]
reference = "paper.csv"
scale = 100
title = "A table"

[stages.pretrain-simclr]
kind = "pretrain-simclr"
data = "dataset"
epochs = 3
optimizer = "adam"
learning-rate = 1e-3
image-size = 16

[stages.pretrain-supervised]
kind = "pretrain-supervised"
data = "dataset"
architecture = "resnet18"
updates = 100
evaluate-every = 10

[stages.features]
kind = "features"
weights = "pretrain-simclr"
data = "dataset"

[stages.purify-labels]
kind = "purify-labels"
features = "features"
labels = "corrupt-labels"
split = "split"
k-max = 31

[stages.train]
kind = "train"
data = "dataset"
labels = "corrupt-labels"
split = "split"
init = "pretrain-simclr"
method = "meta-weight-net"
loss = "generalized-cross-entropy"
q = 0.66
epochs = 2
precision = "bf16"
seed = 8

[stages.evaluate]
kind = "evaluate"
model = "train"
data = "dataset"

[stages.probe]
kind = "probe"
weights = "pretrain-simclr"
data = "dataset"
classifier = "knn"
k = 5
"#;

#[test]
fn every_kind_has_the_keys_that_it_had() {
    let keys = KINDS.iter().map(|kind| format!("{} {}", kind.name, key_of(STAGES, kind.name)));
    let keys: Vec<String> = keys.collect();
    let different: BTreeSet<_> = keys.iter().filter_map(|line| line.split(' ').nth(1)).collect();
    assert_eq!(different.len(), KINDS.len());
    assert_snapshot!(keys.join("\n"), @r"
    download 33d339ae9fba95b0ddcbd28cd6490d5347090064eefc94a7d0e82bba0d16c6e9
    unpack 4bde4ed4212b1b8ec5ad408018c5eaa72e9a5a04d6e843369b1dff032ad28f7c
    dataset 739196a8a00157319946612b125c765f6141dc395ba9719d28cb97e2b3cd7772
    split 2244d2a9409d0268e370a15e9df17fb34f7962b082037c36a43b87aea81b3153
    replace-images f957607e21bcce91895511aa8fbf2ab10e601bc4dd785551857201e028db545c
    corrupt-labels cbc8c1a08b29565a53347c0d991b5c64535deb9ba2c2453d89feba98db733415
    import-weights 3be39bcacad6ac2ecf5f6300c9d74c39aa23e947d395ebb7f467b0a5a9cb6fea
    command 11383976cd42049aad0c81018f340c6175baafd7edab6680ff0f63fca8b4daca
    summarize 562dd72db18d037050a466437880b97d9a6bfb6ddf9c2ace2d98724b7a1211ae
    pretrain-simclr c71495912465416d7dd6e58c6353caf8d372acc50dfe9544a89b366eb98f0e63
    pretrain-supervised 4e39356d75b31abea7eb0d1bdc8401c7951e72a3e4b7075b770db8098e7f29c8
    features f5df3f782affee9cf2c631f2033dda73a73268c721fde96f0fcf468ea456dad9
    purify-labels 4ce44bf3016efc42e735cd87dae6e051fdc8c4e351d37511170eb7a273910e4c
    train 4882ac39ee998955522a2fdd1ec405228a27ac1bf107dd61280102d863c5ce0f
    evaluate eb1aaeb9b69b96d84b0685994d23e97c1e12f0a112af139870e6a57e8f5e3cf4
    probe d22c5387ac1238975cf4cf7fac90ba96a24672dc674a9533c27f36bacbdc146f
    ");
}
