//! docs/python.md: its program runs, where Python has what it needs.

use std::fs;
use std::path::Path;
use std::process::Command;

use pipeline_stages::formats::{Judged, Part, Predictions, PredictionsWriter};

use crate::support::{Sandbox, pipeline, skipped};

/// An experiment with the names of the quickstart, whose evaluations hand out predictions that are there already.
const QUICKSTART: &str = r#"
[experiment]
name = "quickstart"

[matrix.init]
scratch = { accuracy = 0.5 }
simclr = { accuracy = 0.75 }

[stages.data]
kind = "dataset"
format = "image-folder"
path = "photos"
size = 32

[stages.noisy]
kind = "corrupt-labels"
data = "data"
rate = 0.8

[stages.evaluate]
kind = "command"
inputs = { labels = "noisy" }
files = ["predictions.safetensors"]
output = "metrics"
environment = { ACCURACY = "${init.accuracy}" }
shell = '''
cp predictions.safetensors "$PIPELINE_OUTPUT"
echo "{\"test-accuracy\": $ACCURACY}" > "$PIPELINE_OUTPUT/metrics.json"
'''
"#;

#[test]
fn the_program_of_the_docs_runs() {
    let project = Sandbox::new("");
    project.write("quickstart.toml", QUICKSTART);
    project.write_photos("photos", &["cat", "dog"], 8, 2);
    let mut writer = PredictionsWriter::create(&project.folder(), 2, 4, None).expect("writable");
    let clean = Judged { labels: vec![0, 0, 1, 1], losses: vec![0.5; 4] };
    let (index, logits, predicted) = ((0..4).collect(), vec![0.0; 8], vec![0, 1, 1, 1]);
    let predictions = Predictions { index, logits, predicted, clean, given: None };
    writer.push(Part::Test, &predictions).expect("they fit");
    writer.finish().expect("writable");
    project.pipeline("run quickstart.toml").success();

    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/python.md");
    let docs = fs::read_to_string(docs).expect("it exists");
    let (_, program) = docs.split_once("```python\n").expect("a program");
    let (program, _) = program.split_once("```").expect("its end");
    let python = std::env::var("PIPELINE_PANDAS_PYTHON").unwrap_or("python3".to_owned());
    let mut command = Command::new(python);
    project.dress(&mut command);
    let folder = pipeline().parent().expect("a folder").display().to_string();
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{folder}:{path}")).args(["-c", program]);
    match command.output() {
        Ok(output) if output.status.success() => {
            let printed = String::from_utf8_lossy(&output.stdout).into_owned();
            let words: Vec<&str> = printed.split_whitespace().collect();
            let expected = ["axes.init", "scratch", "0.50", "simclr", "0.75"];
            let lines = ["scratch", "4", "0.75", "simclr", "4", "0.75"];
            assert_eq!(words, [&["parameters.noisy.rate", "0.8"], &expected[..], &lines].concat());
        }
        Ok(output) if String::from_utf8_lossy(&output.stderr).contains("No module named") => {
            skipped(
                "Python's pandas or safetensors are not installed, so the program of docs/python.md did not run",
            );
        }
        Ok(output) => panic!("{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => {
            skipped(&format!("no Python, so the program of docs/python.md did not run: {error}"));
        }
    }
}
