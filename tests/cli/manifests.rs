//! Manifests that several stories begin with.

/// A line of shell that writes a data set of a hundred images in each part, without single quotes.
macro_rules! data_set_line {
    () => {
        r#"cd "$PIPELINE_OUTPUT"; for part in train test; do { printf "\210\0\0\0\0\0\0\0%-136s" "{\"images\":{\"dtype\":\"U8\",\"shape\":[100,3,2,2],\"data_offsets\":[800,2000]},\"labels\":{\"dtype\":\"I64\",\"shape\":[100],\"data_offsets\":[0,800]}}"; head -c 2000 /dev/zero; } > $part.safetensors; done; echo "{\"format\":\"own\",\"classes\":[\"a\",\"b\"],\"image\":{\"channels\":3,\"height\":2,\"width\":2},\"train-samples\":100,\"test-samples\":100,\"channel-mean\":[0,0,0],\"channel-std\":[1,1,1]}" > dataset.json"#
    };
}
pub(crate) use data_set_line;

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
pub const TRAINING: &str = concat!(
    r#"
[experiment]
name = "training"
seed = 7

[stages.data]
kind = "command"
shell = '"#,
    data_set_line!(),
    r#"'
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
"#
);
