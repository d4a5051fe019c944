//! Manifests that several stories begin with.

/// Four stages: `words -> count -> report`, and `other` beside them. Each appends its name to `ran`.
pub const WORDS: &str = r#"
[experiment]
name = "words"

[stages.words]
kind = "command"
shell = 'echo words >> ran; echo "to be or not to be" > "$PIPELINE_OUTPUT/text"'

[stages.count]
kind = "command"
inputs = { words = "words" }
shell = 'echo count >> ran; wc -w < "$PIPELINE_INPUT_WORDS/text" | tr -d " " > "$PIPELINE_OUTPUT/number"'

[stages.report]
kind = "command"
inputs = { count = "count" }
shell = '''
echo report >> ran
echo "{\"words\": $(cat "$PIPELINE_INPUT_COUNT/number")}" > "$PIPELINE_OUTPUT/metrics.json"
'''
output = "metrics"

[stages.other]
kind = "command"
shell = 'echo other >> ran; echo other > "$PIPELINE_OUTPUT/text"'
"#;

/// A training as in the quickstart, with a command in place of the data set.
pub const TRAINING: &str = r#"
[experiment]
name = "training"
seed = 7

[stages.data]
kind = "command"
shell = 'cd "$PIPELINE_OUTPUT"; for name in train.safetensors test.safetensors dataset.json; do echo $name > $name; done'
output = "dataset"

[stages.simclr]
kind = "pretrain-simclr"
data = "data"
architecture = "resnet8"
epochs = 10

[stages.train]
kind = "train"
data = "data"
init = "simclr"
architecture = "resnet8"
learning-rate = 0.02

[stages.evaluate]
kind = "evaluate"
model = "train"
data = "data"
"#;
