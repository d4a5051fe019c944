//! Manifests that are right, what is read from them, and the contract that reading relies on.

use std::collections::BTreeSet;
use std::path::Path;

use pipeline_stages::message::{Device, Execution};
use pipeline_stages::{KINDS, KindConfig, PrepareStage};

use super::super::envelope::Experiment;
use super::super::{Connection, Override, StageExecution, parse};
use super::{GOOD, HEAD, right};
use crate::stage_name::StageName;

fn name(text: &str) -> StageName {
    text.parse().expect("a name")
}

fn key(stage: &KindConfig, parameter: &str) -> serde_json::Value {
    stage.key_parameters().get(parameter).cloned().unwrap_or_default()
}

#[test]
fn everything_is_read() {
    let (manifest, graph) = right(GOOD, &[]);
    let about = Some("A manifest that is right".to_owned());
    assert_eq!(manifest.experiment, Experiment { name: "good".to_owned(), about, seed: 220 });
    let names: Vec<_> = manifest.stages.iter().map(|stage| stage.name.as_str()).collect();
    let in_file = [
        "download",
        "archive",
        "data",
        "halves",
        "mixed",
        "noisy",
        "simclr",
        "train",
        "evaluate",
        "imported",
        "supervised",
        "features",
        "purified",
        "probe",
        "summary",
        "accuracy",
    ];
    assert_eq!(names, in_file);
    assert_eq!(graph.order().map(StageName::as_str).collect::<Vec<_>>(), in_file);
    for stage in &manifest.stages {
        let line = GOOD.lines().nth(stage.line - 1);
        assert_eq!(line, Some(format!("[stages.{}]", stage.name).as_str()));
    }
}

#[test]
fn the_good_manifest_has_every_kind() {
    let (manifest, _) = right(GOOD, &[]);
    let used: BTreeSet<_> = manifest.stages.iter().map(|stage| stage.stage.info().name).collect();
    assert_eq!(used, KINDS.iter().map(|kind| kind.name).collect());
}

#[test]
fn seeds_are_the_stages_own_or_the_experiments() {
    let (manifest, _) = right(GOOD, &[]);
    let seed = |stage: &str| manifest.stage(&name(stage)).map(|stage| stage.seed);
    assert_eq!((seed("halves"), seed("train")), (Some(7), Some(220)));
    let (silent, _) = right(HEAD, &[]);
    assert_eq!(silent.experiment.seed, 0);
    let (largest, _) = right(HEAD, &["experiment.seed=18446744073709551615"]);
    assert_eq!(largest.experiment.seed, u64::MAX);
}

#[test]
fn execution_of_a_stage_goes_before_that_of_the_manifest() {
    let (manifest, _) = right(GOOD, &[]);
    let of = |stage: &str| manifest.stage(&name(stage)).map(|stage| stage.execution.clone());
    let everywhere =
        Execution { device: Device::Cpu, checkpoint_seconds: 30, ..Execution::default() };
    let own = Execution { device: Device::Cuda(1), threads: Some(2), ..everywhere.clone() };
    let execution = |execution, timeout_seconds| {
        Some(StageExecution { execution, timeout_seconds, ..StageExecution::default() })
    };
    assert_eq!(of("train"), execution(everywhere, None));
    assert_eq!(of("simclr"), execution(own, Some(600)));
}

#[test]
fn the_time_of_a_job_is_hours_minutes_and_seconds() {
    let read = |time: &str| {
        let set: Override = format!("execution.time='{time}'").parse().expect("a path and a value");
        let (manifest, _) = parse(Path::new("x.toml"), HEAD, &[set]).ok()?;
        manifest.stage(&name("data"))?.execution.time
    };
    let hour = 3600;
    for (time, seconds) in [
        ("04:00:00", Some(4 * hour)),
        ("0:00:01", Some(1)),
        ("100:30:00", Some(100 * hour + 1800)),
        ("1-12:00:00", Some(36 * hour)),
        ("00:00:00", None),
        ("04:00", None),
        ("04:60:00", None),
        ("4", None),
        ("-1:00:00", None),
        ("+1:00:00", None),
        ("1-", None),
        ("99999999999999999999:00:00", None),
        ("18446744073709551615:00:00", None),
    ] {
        assert_eq!(read(time), seconds, "{time}");
    }
}

#[test]
fn ports_of_all_shapes_are_connected() {
    let (manifest, graph) = right(GOOD, &[]);
    let connections = |stage: &str| -> Vec<(String, Connection)> {
        let stage = manifest.stage(&name(stage)).expect("it is there");
        stage.connections().map(|(port, one)| (port.to_owned(), one.clone())).collect()
    };
    let to = |port: &str, label: Option<&str>, from: &str| {
        (
            port.to_owned(),
            Connection { name: label.map(str::to_owned), from: name(from), among_all: false },
        )
    };
    assert_eq!(connections("data"), [to("source", None, "archive")]);
    let labelled = [to("inputs", Some("first"), "evaluate"), to("inputs", Some("second"), "train")];
    assert_eq!(connections("summary"), labelled);
    assert_eq!(connections("download"), []);
    let inputs: Vec<_> = graph.inputs(&name("train")).into_iter().map(StageName::as_str).collect();
    assert_eq!(inputs, ["data", "halves", "noisy", "simclr"]);
}

#[test]
fn lists_of_stages_keep_their_order() {
    let more = "[stages.b]\nkind = \"command\"\nrun = [\"x\"]\n[stages.a]\nkind = \"command\"\nrun = [\"x\"]\n\
        [stages.c]\nkind = \"dataset\"\nformat = \"idx\"\nsource = [\"b\", \"a\"]\n\
        [stages.d]\nkind = \"dataset\"\nformat = \"idx\"\nsource = \"b\"\n";
    let (manifest, _) = right(&format!("{HEAD}{more}"), &[]);
    let sources = |stage: &str| -> Vec<_> {
        let stage = manifest.stage(&name(stage)).expect("it is there");
        stage.inputs["source"].iter().map(|one| one.from.as_str()).collect()
    };
    assert_eq!(sources("c"), ["b", "a"]);
    assert_eq!(sources("d"), ["b"]);
}

#[test]
fn an_empty_list_of_optional_stages_is_not_a_connection() {
    let (manifest, _) = right(HEAD, &["stages.data.source = []"]);
    assert!(manifest.stages[0].inputs.is_empty());
}

#[test]
fn whole_numbers_are_numbers() {
    let (manifest, _) = right(GOOD, &["stages.train.learning-rate=1"]);
    let stage = |name_: &str| &manifest.stage(&name(name_)).expect("it is there").stage;
    assert_eq!(key(stage("noisy"), "rate"), serde_json::json!(1.0));
    assert_eq!(key(stage("train"), "learning-rate"), serde_json::json!(1.0));
}

#[test]
fn overrides_replace_and_add_values() {
    let set = [
        "stages.train.loss=cross-entropy",
        "stages.train.epochs = 3",
        "stages.train.epochs=4",
        "experiment.name=other",
        "execution.threads=2",
        "stages.train.execution.device=cuda",
        "stages.summary.environment.A=b c",
        "stages.\"download\".url=[\"file:x\", 'file:y']",
    ];
    let (manifest, _) = right(GOOD, &set);
    let stage = |text: &str| manifest.stage(&name(text)).expect("it is there");
    let train = stage("train");
    assert_eq!(key(&train.stage, "loss"), "cross-entropy");
    assert_eq!(key(&train.stage, "epochs"), 4);
    assert_eq!(train.execution.execution.device, Device::Cuda(0));
    assert_eq!(stage("evaluate").execution.execution.threads, Some(2));
    assert_eq!(manifest.experiment.name, "other");
    assert_eq!(key(&stage("summary").stage, "environment"), serde_json::json!({ "A": "b c" }));
    let KindConfig::Prepare(PrepareStage::Download(download)) = &stage("download").stage else {
        panic!("it is a download");
    };
    assert_eq!(download.url.0, ["file:x", "file:y"]);
}

#[test]
fn the_folder_is_absolute() {
    let (manifest, _) = right(HEAD, &[]);
    let here = std::env::current_dir().expect("the tests run somewhere");
    assert_eq!(manifest.folder, here.join("pipelines"));
    assert_eq!(manifest.path, Path::new("pipelines/x.toml"));
}

/// Neither the order of tables and keys nor the way in which they are written matters.
#[test]
fn another_way_to_write_it() {
    let inline = "experiment.name = 'x'\n[stages]\n\
        split = { kind = 'split', data = 'data', execution.threads = 2 }\n\
        data = { path = 'd', format = 'idx', kind = 'dataset' }\n";
    let tables = format!(
        "{HEAD}[stages.split.execution]\nthreads = 0x2\n[stages.split]\nkind = \"split\"\ndata = \"data\"\n"
    );
    let without_place = |text: &str| {
        let mut stages = right(text, &[]).0.stages.to_vec();
        stages.sort_by(|one, other| one.name.cmp(&other.name));
        stages.iter_mut().for_each(|stage| stage.line = 0);
        stages
    };
    assert_eq!(without_place(inline), without_place(&tables));
}

/// Every kind keeps apart what a manifest keeps apart by name only.
#[test]
fn keys_of_a_kind_are_unique() {
    for kind in KINDS {
        let ports = (kind.ports)().iter().map(|port| port.name());
        let fields = (kind.fields)().iter().map(|field| field.name.clone());
        let mut keys = BTreeSet::from(["kind", "seed", "execution"].map(str::to_owned));
        for key in ports.chain(fields) {
            assert!(keys.insert(key.clone()), "'{}' has two keys '{key}'", kind.name);
        }
    }
}

/// [`super::super::stage`] tells from a kind's parameters whether its output depends on them.
#[test]
fn the_output_of_a_kind_without_types_among_its_parameters_is_fixed() {
    let (manifest, _) = right(GOOD, &[]);
    for stage in &manifest.stages {
        let info = stage.stage.info();
        if stage.stage.output() != info.output {
            assert_eq!(super::super::stage::fixed_output(info), None, "{}", info.name);
        }
    }
}
