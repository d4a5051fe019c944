//! What stages take of the machine, its cores, memory and GPUs: what is recorded of it, and how it is shared out.

use std::fs::File;
use std::path::Path;

use insta::assert_snapshot;
use rustix::fs::{FlockOperation, flock};
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Ended, MANIFEST, Running, Sandbox, eventually, names, skipped};

/// A stage that keeps 30 MB in a variable of a shell for a second, and one that reads what it wrote.
const MEMORY: &str = r#"
[experiment]
name = "memory"
[stages.large]
kind = "command"
shell = """
text=$(head -c 30000000 /dev/zero | tr '\\0' x)
sleep 1.2
printf %s "$text" | head -c 1000 > "$PIPELINE_OUTPUT/text"
"""
[stages.small]
kind = "command"
inputs = { large = "large" }
shell = "cp $PIPELINE_INPUT_LARGE/text $PIPELINE_OUTPUT/copy"
"#;

fn usage<'a>(status: &'a Value, stage: &str) -> &'a Value {
    let stages = status["stages"].as_array().expect("stages");
    let stage = stages.iter().find(|one| one["stage"] == stage).expect("the stage");
    &stage["last-run"]["usage"]
}

#[test]
fn a_record_has_what_its_stage_took() {
    let project = Sandbox::new(MEMORY);
    project.pipeline("run experiment.toml").success();
    let status = project.pipeline("status experiment.toml --json").json();
    let (large, small) = (usage(&status, "large"), usage(&status, "small"));
    let number = |usage: &Value, name: &str| usage[name].as_f64().expect(name);
    assert!(number(large, "cpu-seconds") > 0.0, "{large}");
    assert!(number(large, "peak-memory") > 30e6, "{large}");
    assert!((1e5..30e6).contains(&number(small, "peak-memory")), "{small}");
    assert_eq!((large["bytes-in"].as_u64(), small["bytes-in"].as_u64()), (Some(0), Some(1000)));
    assert_eq!(large["gpu-memory"], Value::Null);

    let shown = project.pipeline("status experiment.toml --usage").stdout;
    let head: Vec<_> = shown.lines().next().unwrap_or_default().split("  ").collect();
    let head: Vec<_> = head.into_iter().map(str::trim).filter(|word| !word.is_empty()).collect();
    let expected =
        ["stage", "kind", "state", "last run", "took", "cpu", "memory", "read", "artifact", "size"];
    assert_eq!(head, expected, "{shown}");
    let results = project.pipeline("results experiment.toml small --usage").stdout;
    assert!(results.contains(" read") && results.contains("1.0 kB"), "{results}");
    let results = project.pipeline("results experiment.toml small --json").json();
    assert_eq!(results[0]["usage"], *small);
    let csv = project.pipeline("results experiment.toml small --usage --csv").stdout;
    let (head, row) = csv.split_once('\n').expect("a head");
    let last = "seconds,cpu-seconds,peak-memory,gpu-memory,bytes-in,bytes-out";
    assert!(head.ends_with(last) && row.trim_end().ends_with(",,1000,1000"), "{csv}");
}

/// Stages that append their names to `ran`.
pub fn stages(tables: &[(&str, &str)]) -> String {
    let stage = |(name, more): &(&str, &str)| {
        format!(
            "[stages.{name}]\nkind = \"command\"\n{more}\nshell = \"echo {name} >> ran; echo {name} > $PIPELINE_OUTPUT/a\"\n"
        )
    };
    let head = "[experiment]\nname = \"shared\"\n".to_owned();
    tables.iter().map(stage).fold(head, |text, stage| text + &stage)
}

/// Two stages that fail if both run at once, and take this.
pub fn jealous(takes: &str) -> Sandbox {
    let stage = |name: &str| {
        format!(
            "[stages.{name}]\nkind = \"command\"\nexecution = {{ {takes} }}\n\
             shell = \"mkdir lock && sleep 0.3 && rmdir lock && echo {name} > $PIPELINE_OUTPUT/a\"\n"
        )
    };
    let text = format!("[experiment]\nname = \"jealous\"\n{}{}", stage("one"), stage("two"));
    Sandbox::new(&text)
}

/// Two stages that wait for each other, and take this.
pub fn sociable(takes: &str) -> Sandbox {
    let stage = |name: &str, other: &str| {
        format!(
            "[stages.{name}]\nkind = \"command\"\nexecution = {{ {takes}, timeout-seconds = 30 }}\n\
             shell = \"touch {name}-is-here; while [ ! -e {other}-is-here ]; do sleep 0.01; done; \
             echo {name} > $PIPELINE_OUTPUT/a\"\n"
        )
    };
    let (one, two) = (stage("one", "two"), stage("two", "one"));
    Sandbox::new(&format!("[experiment]\nname = \"sociable\"\n{one}{two}"))
}

#[test]
fn stages_that_need_all_of_something_never_run_at_once() {
    for (takes, options) in [
        ("memory = '6 GB'", "--jobs 2 --cpus 2 --memory 10GB"),
        ("cpus = 2", "--jobs 2 --cpus 3"),
        ("gpus = 0.6", "--jobs 2 --cpus 2 --gpus 1"),
        ("gpus = 2", "--jobs 2 --cpus 2 --gpus 0,1"),
        ("cpus = 1", "--jobs 1 --cpus 2"),
        ("cpus = 1", "--cpus 1"),
    ] {
        let project = jealous(takes);
        let project = project.with_gpus(&["NVIDIA H100", "NVIDIA H100"]);
        project.pipeline(&format!("run experiment.toml {options}")).success();
    }
}

#[test]
fn stages_for_which_there_is_enough_run_at_once() {
    for (takes, options) in [
        ("memory = '5 GB'", "--jobs 2 --cpus 2 --memory 10GB"),
        ("cpus = 2", "--cpus 4"),
        ("gpus = 0.5", "--cpus 2 --gpus 1"),
        ("gpus = 1", "--cpus 2"),
    ] {
        let project = sociable(takes).with_gpus(&["NVIDIA H100", "NVIDIA H100"]);
        project.pipeline(&format!("run experiment.toml {options}")).success();
    }
}

#[test]
fn the_manifest_and_the_user_have_limits_and_the_command_line_goes_before() {
    let project = jealous("cpus = 1");
    project.write("experiment.toml", project.read(MANIFEST) + "[execution]\ncpus = 1\n");
    project.pipeline("run experiment.toml").success();
    let project = sociable("memory = '1 GB'");
    project.write("config/pipeline/config.toml", "[execution]\nmemory = '1 GB'\n");
    let home = project.path("config").to_string_lossy().into_owned();
    let project = project.set("XDG_CONFIG_HOME", home);
    project.pipeline("run experiment.toml --jobs 2 --cpus 2 --memory 2GB").success();
    let project = jealous("memory = '1 GB'");
    project.write("config/pipeline/config.toml", "[execution]\nmemory = '1.5 GB'\n");
    let home = project.path("config").to_string_lossy().into_owned();
    let project = project.set("XDG_CONFIG_HOME", home);
    project.pipeline("run experiment.toml --jobs 2 --cpus 2").success();
}

/// How a run ends that has too little.
fn refused(takes: &str, options: &str) -> String {
    let text = stages(&[("small", ""), ("large", &format!("execution = {{ {takes} }}"))]);
    let project = Sandbox::new(&text).with_gpus(&["NVIDIA H100"; 2]);
    let ended = project.pipeline(&format!("run experiment.toml {options}"));
    assert_eq!((ended.code(), project.read("ran").as_str()), (Some(2), ""), "{ended}");
    ended.stderr
}

#[test]
fn what_takes_more_than_there_is_is_a_mistake_at_its_line() {
    assert_snapshot!(refused("cpus = 3", "--cpus 2"), @r"
    error: 'large' takes 3 cores, and a run may use 2
     --> experiment.toml:9:22
      |
    9 | execution = { cpus = 3 }
      |                      ^
      |
      = help: take fewer, or let runs use more: --cpus 3

    error: 1 mistake in experiment.toml; nothing was run
    ");
    // `threads` alone are as many cores.
    let threads = refused("threads = 3", "--cpus 2");
    assert!(threads.contains("takes 3 cores, and a run may use 2"), "{threads}");
    assert!(threads.contains("experiment.toml:9:25"), "{threads}");
    assert_snapshot!(refused("memory = '8 GB'", "--memory 4GB"), @r"
    error: 'large' takes 8.0 GB of memory, and a run may use 4.0 GB
     --> experiment.toml:9:24
      |
    9 | execution = { memory = '8 GB' }
      |                        ^^^^^^
      |
      = help: take less, or let runs use more: --memory '8.0 GB'

    error: 1 mistake in experiment.toml; nothing was run
    ");
    assert_snapshot!(refused("gpus = 3", ""), @r"
    error: 'large' takes 3 GPUs, and a run may use 2 GPUs
     --> experiment.toml:9:22
      |
    9 | execution = { gpus = 3 }
      |                      ^
      |
      = help: these are cuda:0 and cuda:1

    error: 1 mistake in experiment.toml; nothing was run
    ");
    assert_snapshot!(refused("gpus = 1", "--gpus none"), @r"
    error: 'large' takes a GPU, and a run may use none
     --> experiment.toml:9:22
      |
    9 | execution = { gpus = 1 }
      |                      ^
      |
      = help: none is to be used: see 'gpus' of [execution], and --gpus

    error: 1 mistake in experiment.toml; nothing was run
    ");
    let text = stages(&[("large", "execution = { gpus = 0.5 }")]);
    let project = Sandbox::new(&text).with_gpus(&[]);
    let warned = "warning: 'large' takes a part of a GPU, and a run may use none";
    let plan = project.pipeline("plan experiment.toml --gpus 7");
    assert!(plan.status.success() && plan.stderr.contains(warned), "{plan}");
    let ended = project.pipeline("run experiment.toml --gpus 7");
    assert_snapshot!(ended.stderr, @r"
    error: 'large' takes a part of a GPU, and a run may use none
     --> experiment.toml:5:22
      |
    5 | execution = { gpus = 0.5 }
      |                      ^^^
      |
      = help: no GPU was found; with CUDA_VISIBLE_DEVICES, only what it names counts

    error: 1 mistake in experiment.toml; nothing was run
    ");
    // A plan may be of a run on another machine.
    let text = stages(&[
        ("small", "execution = { cpus = 1 }"),
        ("large", "execution = { cpus = 4, memory = '100 TB' }"),
        ("wide", "execution = { memory = '100 TB', gpus = 1 }"),
        ("many", "execution = { gpus = 3 }"),
        ("elsewhere", "execution = { cpus = 9, executor = 'cluster' }"),
    ]);
    let cluster = "[executors.cluster]\nkind = \"slurm\"\n";
    let project = Sandbox::new(&(text + cluster)).with_gpus(&["NVIDIA H100"; 2]);
    assert_snapshot!(project.pipeline("plan experiment.toml --cpus 2 --memory 20GB"), @r"
    status 0
    --- stderr
    warning: 'large' takes 4 cores, and a run may use 2
     --> experiment.toml:9:22
      |
    9 | execution = { cpus = 4, memory = '100 TB' }
      |                      ^
      |
      = help: take fewer, or let runs use more: --cpus 4

    warning: 'wide' takes 100 TB of memory, and a run may use 20 GB
      --> experiment.toml:13:24
       |
    13 | execution = { memory = '100 TB', gpus = 1 }
       |                        ^^^^^^^^
       |
       = help: take less, or let runs use more: --memory '100 TB'

    warning: 'many' takes 3 GPUs, and a run may use 2 GPUs
      --> experiment.toml:17:22
       |
    17 | execution = { gpus = 3 }
       |                      ^
       |
       = help: these are cuda:0 and cuda:1

    --- stdout
    small      dirty  no earlier run
    large      dirty  no earlier run
    wide       dirty  no earlier run
    many       dirty  no earlier run
    elsewhere  dirty  no earlier run

    shared: 5 would run, 0 are fresh
    ");
    assert_snapshot!(project.pipeline("run experiment.toml small large -n --cpus 4 --memory 100TB").stderr, @"");
    // What learns may run on an executor.
    let text = TRAININGS.to_owned() + "execution = { cpus = 9 }\n" + cluster;
    let project = Sandbox::new(&text);
    project.write_idx_images("images", 20, 10);
    let plan = |more: &str| project.pipeline(&format!("{more} simclr@seed=1 --cpus 2"));
    assert_snapshot!(plan("plan experiment.toml"), @r"
    status 0
    --- stderr
    warning: 'simclr' takes 9 cores, and a run may use 2
      --> experiment.toml:14:22
       |
    14 | execution = { cpus = 9 }
       |                      ^
       |
       = help: take fewer, or let runs use more: --cpus 9
       = help: at seed=1

    --- stdout
    data           dirty    no earlier run
    simclr@seed=1  waiting  on data; no earlier run

    trainings: 2 would run, 0 are fresh
    ");
    assert_eq!(plan("plan experiment.toml --executor cluster").stderr, "");
    assert_eq!(plan("run experiment.toml -n --executor cluster").stderr, "");
    // What has its result needs nothing.
    let project = Sandbox::new(&stages(&[("large", "execution = { cpus = 3 }")]));
    project.pipeline("run experiment.toml --cpus 3").success();
    project.pipeline("run experiment.toml --cpus 2").success();
}

#[test]
fn options_that_are_no_amounts_are_mistakes() {
    let project = Sandbox::new(&stages(&[("one", "")]));
    for (options, mistake) in [
        ("--cpus 0", "it must be a whole number from 1 to 1024"),
        ("--cpus 1025", "it must be a whole number from 1 to 1024"),
        ("--gpus 0,1,0", "it has the GPU 0 twice"),
        ("--gpus one", "write their numbers, as in 0,1,3, or none"),
        ("--memory 8G", "'8G' may be 8 GB or 8 GiB"),
        ("--memory 10", "'10' does not have a unit: write one, as in 10 GB"),
        ("--memory 0", "it cannot be 0"),
    ] {
        let ended = project.pipeline(&format!("run experiment.toml {options}"));
        assert_eq!(ended.code(), Some(2), "{ended}");
        assert!(ended.stderr.contains(mistake), "{ended}");
    }
}

#[test]
fn a_program_has_as_many_threads_as_it_takes_cores() {
    let stage = |name: &str, more: &str| {
        let line = format!("echo $OMP_NUM_THREADS $RAYON_NUM_THREADS {name} > $PIPELINE_OUTPUT/a");
        format!("[stages.{name}]\nkind = \"command\"\nshell = \"{line}\"\n{more}\n")
    };
    let text = [
        "[experiment]\nname = \"threads\"\n[execution]\nthreads = 7\n",
        &stage("none", ""),
        &stage("three", "execution = { cpus = 3 }"),
        &stage("own", "environment = { OMP_NUM_THREADS = \"9\" }"),
        &stage("passed", "pass-environment = [\"RAYON_NUM_THREADS\"]"),
    ];
    let project = Sandbox::new(&text.concat()).set("RAYON_NUM_THREADS", "5");
    project.pipeline("run experiment.toml --cpus 4").success();
    let written = |stage: &str| {
        std::fs::read_to_string(project.artifact(stage).join("a")).expect("it wrote that")
    };
    for (stage, threads) in [("none", "1 1"), ("three", "3 3"), ("own", "9 1"), ("passed", "1 5")] {
        assert_eq!(written(stage).trim_end(), format!("{threads} {stage}"));
    }
    // A rerun has the same.
    project.pipeline("verify experiment.toml --rerun three").success();
}

#[test]
fn no_more_threads_hash_than_a_run_may_take_cores() {
    // Of one file.
    const MOST: usize = 8;
    let cores = std::thread::available_parallelism().expect("Linux says it").get().min(MOST);
    if cores == 1 {
        return skipped("one core has one thread");
    }
    let text = "[experiment]\nname = \"hashed\"\n\
                [stages.reads]\nkind = \"command\"\nfiles = [\"large\"]\nshell = \"true\"\n";
    let project = |limits: &str| {
        let project = Sandbox::new(&format!("{text}{limits}"));
        project.write("large", "not yet");
        project
    };
    // It takes minutes to hash them, and nothing of the disk to have them.
    let grow = |project: &Sandbox| {
        let file = File::options().write(true).open(project.path("large")).expect("ours");
        file.set_len(1 << 40).expect("a file with a hole");
    };
    let threads =
        |run: &Running| names(Path::new(&format!("/proc/{}/task", run.pid().as_raw_pid()))).len();
    let compare = |projects: [&Sandbox; 2], options: [&str; 2]| {
        projects.iter().for_each(|project| grow(project));
        let run = |place: usize| {
            projects[place].start(&format!("run experiment.toml {}", options[place]))
        };
        let (limited, free) = (run(0), run(1));
        // What else they have ends soon, or is the same.
        let mut steady = 0;
        eventually("fewer threads, and no others for a while", || {
            let is_fewer = threads(&limited) + cores - 1 == threads(&free);
            steady = if is_fewer { steady + 1 } else { 0 };
            steady == 50
        });
        for run in [limited, free] {
            run.signal(Signal::KILL);
            assert_eq!(run.wait().code(), None, "it hashes");
        }
    };
    let own = project("[execution]\ncpus = 1\n");
    compare([&own, &project("")], ["", ""]);
    // What the command line says counts before the manifest is read, for what an earlier run has seen.
    let projects = [project(""), project("")];
    for project in &projects {
        project.pipeline("run experiment.toml").success();
    }
    compare([&projects[0], &projects[1]], ["--cpus 1", ""]);
}

/// Three trainings from one data set.
const TRAININGS: &str = r#"
[experiment]
name = "trainings"
[matrix]
seed = [1, 2, 3, 4]
[stages.data]
kind = "dataset"
format = "idx"
path = "images"
[stages.simclr]
kind = "pretrain-simclr"
data = "data"
seed = "${seed}"
"#;

fn trainings(together: &str) -> Sandbox {
    let project = Sandbox::new(TRAININGS).with_fake_learn("gpu");
    project.write_idx_images("images", 20, 10);
    let folder = project.path("gpus-in-use");
    std::fs::create_dir(&folder).expect("a folder");
    let folder = folder.to_string_lossy().into_owned();
    project.set("FAKE_LEARN_GPUS", folder).set("FAKE_LEARN_TOGETHER", together)
}

/// The GPUs that trainings saw, each once, and the devices they were asked for.
fn seen(project: &Sandbox) -> Vec<String> {
    let journal = project.read("journal");
    let lines = journal.lines().filter_map(|line| line.strip_prefix("gpu "));
    let all: std::collections::BTreeSet<String> = lines.map(str::to_owned).collect();
    all.into_iter().collect()
}

fn devices(project: &Sandbox) -> Vec<(String, String, String)> {
    let status = project.pipeline("status experiment.toml --all --json").json();
    let stages = status["stages"].as_array().expect("stages").clone();
    let runs = stages.iter().filter(|one| one["kind"] == "pretrain-simclr");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let device = |stage: &Value| {
        let on = &stage["last-run"]["ran-on"];
        assert_eq!(stage["last-run"]["usage"]["gpu-memory"], 5_000_000_000_u64, "{stage}");
        (text(&on["device"]), text(&on["name"]), text(&on["uuid"]))
    };
    let all: std::collections::BTreeSet<_> = runs.map(device).collect();
    all.into_iter().collect()
}

#[test]
fn each_training_has_a_gpu_of_its_own() {
    let project = trainings("2").with_gpus(&["NVIDIA H100", "NVIDIA T400"]);
    let project = project.set("CUDA_DEVICE_ORDER", "PCI_BUS_ID");
    project.pipeline("run experiment.toml --cpus 3 --all").success();
    assert_eq!(seen(&project), ["0, device auto", "1, device auto"]);
    let name = |text: &str| text.to_owned();
    let expected = [
        (name("cuda:0"), name("NVIDIA H100"), name("GPU-0-of-the-test")),
        (name("cuda:1"), name("NVIDIA T400"), name("GPU-1-of-the-test")),
    ];
    assert_eq!(devices(&project), expected);
    // In CUDA's own order, nobody knows which of them has which number.
    let project = trainings("2").with_gpus(&["NVIDIA H100", "NVIDIA T400"]);
    project.pipeline("run experiment.toml --cpus 3 --all").success();
    assert_eq!(seen(&project), ["0, device auto", "1, device auto"]);
    let unnamed = |device: &str| (name(device), String::new(), String::new());
    assert_eq!(devices(&project), [unnamed("cuda:0"), unnamed("cuda:1")]);
}

#[test]
fn numbers_of_gpus_count_within_what_a_scheduler_allows() {
    let gpus = ["NVIDIA H100"; 3];
    let project = trainings("2").with_gpus(&gpus).set("CUDA_VISIBLE_DEVICES", "2,0");
    project.pipeline("run experiment.toml --cpus 3").success();
    assert_eq!(seen(&project), ["0, device auto", "2, device auto"]);
    let devices = devices(&project);
    let of_test = |number: &str| format!("GPU-{number}-of-the-test");
    let found: Vec<_> = devices.iter().map(|(device, _, uuid)| (device.as_str(), uuid)).collect();
    assert_eq!(found, [("cuda:0", &of_test("2")), ("cuda:1", &of_test("0"))]);

    // A certain one: all trainings after each other.
    let project = trainings("1").with_gpus(&gpus).set("CUDA_VISIBLE_DEVICES", "2,0");
    project.pipeline("run experiment.toml --cpus 3 --set execution.device=cuda:1").success();
    assert_eq!(seen(&project), ["0, device cuda:0"]);
    let ended =
        project.pipeline("run experiment.toml --set execution.device=cuda:2 --force simclr");
    assert_eq!(ended.code(), Some(2), "{ended}");
    assert!(ended.stderr.contains("'simclr' takes cuda:2, and a run may use 2 GPUs"), "{ended}");
    assert!(ended.stderr.contains("these are cuda:0 and cuda:1"), "{ended}");

    // Only some of them, and none that exists.
    let project = trainings("1").with_gpus(&gpus);
    let none = "may use the GPUs 7, 8 only, and none of them exists";
    let plan = project.pipeline("plan experiment.toml --cpus 3 --gpus 7,8");
    assert!(plan.status.success() && plan.stderr.contains(none), "{plan}");
    let ended = project.pipeline("run experiment.toml --cpus 3 --gpus 7,8");
    assert_eq!(ended.code(), Some(2), "{ended}");
    assert!(ended.stderr.contains(none), "{ended}");
    let project = trainings("1").with_gpus(&gpus);
    project.pipeline("run experiment.toml --cpus 3 --gpus 1").success();
    assert_eq!(seen(&project), ["1, device auto"]);
}

#[test]
fn a_rerun_has_the_gpu_that_a_run_would_give_it() {
    let project = trainings("1").with_gpus(&["NVIDIA H100"; 2]);
    project.edit("[matrix]\nseed = [1, 2, 3, 4]\n", "");
    project.edit("seed = \"${seed}\"\n", "");
    project.pipeline("run experiment.toml --cpus 3 --gpus 1").success();
    project.write("config/pipeline/config.toml", "[execution]\ngpus = [0]\n");
    let home = project.path("config").to_string_lossy().into_owned();
    let project = project.set("XDG_CONFIG_HOME", home);
    let verified = project.pipeline("verify experiment.toml --rerun simclr --json").json();
    assert_eq!(verified["recorded"]["ran-on"]["uuid"], "GPU-1-of-the-test", "{verified}");
    let now = &verified["rerun"]["ran-on"];
    assert_eq!((&now["device"], &now["uuid"]), (&"cuda:0".into(), &"GPU-0-of-the-test".into()));
    let verified = project.pipeline("verify experiment.toml --rerun simclr --gpus 1 --json").json();
    assert_eq!(verified["rerun"]["ran-on"]["device"], "cuda:1", "{verified}");
    let refused = project.pipeline("verify experiment.toml --rerun simclr --gpus 7");
    assert!(refused.stderr.contains("GPUs 7 only, and none of them exists"), "{refused}");
}

#[test]
fn limits_of_files_are_never_more_than_the_machine_has() {
    let stage = stages(&[("large", "execution = { cpus = 1000 }")]);
    let project = Sandbox::new(&format!("{stage}[execution]\ncpus = 1024\n"));
    let ended = project.pipeline("run experiment.toml");
    assert_eq!((ended.code(), project.read("ran").as_str()), (Some(2), ""), "{ended}");
    assert!(ended.stderr.contains("'large' takes 1000 cores"), "{ended}");
    project.pipeline("run experiment.toml --cpus 1000").success();
}

#[test]
fn a_part_of_a_gpu_is_shared_and_a_program_sees_what_it_takes() {
    let line = "echo $CUDA_VISIBLE_DEVICES, $CUDA_DEVICE_ORDER";
    let place = "$PIPELINE_OUTPUT/a";
    let text = format!(
        "[experiment]\nname = \"gpus\"\n\
         [stages.two]\nkind = \"command\"\nexecution = {{ gpus = 2 }}\nshell = \"{line} > {place}\"\n\
         [stages.none]\nkind = \"command\"\nshell = \"{line} >> {place}\"\n"
    );
    let project = Sandbox::new(&text).with_gpus(&["NVIDIA H100", "NVIDIA T400", "NVIDIA T400"]);
    let project = project.set("CUDA_DEVICE_ORDER", "PCI_BUS_ID");
    project.pipeline("run experiment.toml --cpus 4 --gpus 1,2").success();
    let written = |stage: &str| {
        std::fs::read_to_string(project.artifact(stage).join("a")).expect("it wrote that")
    };
    // What the user has set reaches also the one that is handed none.
    assert_eq!(
        (written("two").trim(), written("none").trim()),
        ("1,2, PCI_BUS_ID", ", PCI_BUS_ID")
    );
    let status = project.pipeline("status experiment.toml two --json").json();
    let on = status["stages"][0]["last-run"]["ran-on"].clone();
    let expected = serde_json::json!({
        "device": "cuda:1",
        "name": "NVIDIA T400",
        "uuid": "GPU-1-of-the-test",
        "remark": "and cuda:2 GPU-2-of-the-test",
    });
    assert_eq!(on, expected);
}

/// The names of stages in the order in which they ran.
fn ran(project: &Sandbox, ended: &Ended) -> Vec<String> {
    assert!(ended.status.success(), "{ended}");
    project.read("ran").lines().map(str::to_owned).collect()
}

#[test]
fn the_longest_way_starts_first_and_a_priority_before_it() {
    let after = |input: &str| format!("inputs = {{ a = \"{input}\" }}");
    let chain = [after("one"), after("two")];
    let text = stages(&[("alone", ""), ("one", ""), ("two", &chain[0]), ("three", &chain[1])]);
    let project = Sandbox::new(&text);
    let ended = project.pipeline("run experiment.toml --jobs 1");
    assert_eq!(ran(&project, &ended), ["one", "two", "alone", "three"]);

    let project = Sandbox::new(&text);
    project.edit("[stages.alone]\n", "[stages.alone]\nexecution = { priority = 1 }\n");
    let ended = project.pipeline("run experiment.toml --jobs 1");
    assert_eq!(ran(&project, &ended), ["alone", "one", "two", "three"]);
}

#[test]
fn what_took_long_before_starts_first() {
    let slow = "shell = \"sleep 3; echo slow >> ran; echo $SEED > $PIPELINE_OUTPUT/a\"";
    let quick = "shell = \"echo quick >> ran; echo $SEED > $PIPELINE_OUTPUT/a\"";
    let stage = |name: &str, line: &str| {
        format!("[stages.{name}]\nkind = \"command\"\nenvironment = {{ SEED = \"1\" }}\n{line}\n")
    };
    let text =
        format!("[experiment]\nname = \"long\"\n{}{}", stage("quick", quick), stage("slow", slow));
    let project = Sandbox::new(&text);
    let ended = project.pipeline("run experiment.toml --jobs 1");
    assert_eq!(ran(&project, &ended), ["quick", "slow"], "by their places");
    project.write(MANIFEST, project.read(MANIFEST).replace("\"1\"", "\"2\""));
    let ended = project.pipeline("run experiment.toml --jobs 1");
    assert_eq!(ran(&project, &ended)[2..], ["slow", "quick"], "by their times");
}

/// A stage that fails in this way where it was not tried before, and may be tried as often as this.
fn fragile(how: &str, attempts: &str) -> Sandbox {
    // Longer than the other ways take on any machine.
    let limit = if how.starts_with("sleep") { 5 } else { 50 };
    Sandbox::new(&format!(
        "[experiment]\nname = \"fragile\"\n[stages.fragile]\nkind = \"command\"\n\
         execution = {{ attempts = {attempts}, timeout-seconds = {limit} }}\nshell = \"\"\"\n\
         echo try >> tries\n\
         if [ ! -e $PIPELINE_CHECKPOINT/begun ]; then touch $PIPELINE_CHECKPOINT/begun; {how}; fi\n\
         echo done > $PIPELINE_OUTPUT/a\n\"\"\"\n"
    ))
}

fn tries(project: &Sandbox) -> usize {
    project.read("tries").lines().count()
}

#[test]
fn a_stage_that_was_killed_is_tried_again_from_its_checkpoint() {
    for (how, why) in [
        ("kill -9 $$", "was killed by signal 9 (SIGKILL"),
        ("kill -15 $$", "was killed by signal 15 (SIGTERM"),
        ("sh -c 'kill -9 $$'; exit $?", "ended with exit status 137"),
        ("sleep 60", "its time was up (timeout-seconds)"),
        ("echo MemoryError >&2; exit 1", "ended with exit status 1"),
    ] {
        let project = fragile(how, "3");
        let ended = project.pipeline("run experiment.toml");
        assert_eq!((ended.success().as_str(), tries(&project)), ("fragile ran", 2), "{how}");
        assert!(ended.stderr.contains("fragile: attempt 2 of 3"), "{ended}");
        assert!(ended.stderr.contains(why), "{ended}");
        assert_eq!(ended.stderr.contains("with nothing beside it"), how.contains("Memory"));
    }
}

#[test]
fn the_history_has_all_attempts() {
    let project = fragile("kill -9 $$", "2");
    let events = project.pipeline("run experiment.toml --progress json").stdout;
    let attempt = events.lines().find(|line| line.contains("\"attempt\"")).unwrap_or_default();
    let attempt: Value = serde_json::from_str(attempt).expect("an event");
    assert_eq!((attempt["attempt"].as_u64(), attempt["of"].as_u64()), (Some(2), Some(2)));
    let run = project.pipeline("history --json").json()[0]["run"].as_str().map(str::to_owned);
    let shown = project.pipeline(&format!("history show {}", run.expect("a name"))).printed();
    let line = shown.lines().find(|line| line.starts_with("fragile")).unwrap_or_default();
    assert!(line.contains("attempt 2, after: ") && line.contains("signal 9"), "{shown}");
}

#[test]
fn a_stage_that_waits_for_its_next_attempt_is_stopped_with_its_run() {
    // Its next attempt would be alone.
    let project = fragile("echo MemoryError >&2; exit 1", "2");
    let other = "[stages.other]\nkind = \"command\"\nshell = \"while :; do sleep 0.01; done\"\n";
    project.write(MANIFEST, project.read(MANIFEST) + other);
    let run = project.start("run experiment.toml --jobs 2");
    run.wait_for("fragile: attempt 2 of 2, with nothing beside it");
    run.wait_for("other (command) runs");
    run.signal(rustix::process::Signal::INT);
    let ended = run.wait();
    assert_eq!(ended.results(), "fragile stopped, other stopped", "{ended}");
    assert_eq!(tries(&project), 1, "{ended}");
    let status = project.pipeline("status experiment.toml fragile").printed();
    assert!(status.contains("fragile was interrupted"), "{status}");
    let shell = "shell = \"true > $PIPELINE_OUTPUT/a\"";
    project.edit("shell = \"while :; do sleep 0.01; done\"", shell);
    project.pipeline("run experiment.toml").success();
}

#[test]
fn what_is_not_to_be_tried_again_is_tried_once() {
    for (how, attempts, expected) in [
        ("exit 1", "3", 1),
        ("exit 1", "{ count = 3, on = ['failure'] }", 2),
        ("kill -9 $$", "{ count = 3, on = ['failure', 'timeout'] }", 1),
        ("kill -9 $$", "1", 1),
        ("rm -f $PIPELINE_CHECKPOINT/begun; kill -9 $$", "3", 3),
    ] {
        let project = fragile(how, attempts);
        let ended = project.pipeline("run experiment.toml");
        assert_eq!(tries(&project), expected, "{how} {attempts}: {ended}");
        assert_eq!(ended.status.success(), expected == 2, "{ended}");
        assert_eq!(ended.stderr.contains("this was attempt 3 of 3"), expected == 3, "{ended}");
    }
}

#[test]
fn without_memory_the_next_attempt_runs_alone() {
    let others: String = (1..=9)
        .map(|number| {
            format!(
                "[stages.other{number}]\nkind = \"command\"\n\
                 shell = \"touch beside; while [ -e hold ]; do sleep 0.01; done; sleep 0.1; rm -f beside; \
                 echo {number} > $PIPELINE_OUTPUT/a\"\n"
            )
        })
        .collect();
    let text = TRAININGS.replace("[1, 2, 3, 4]", "[1]") + &others;
    let project = Sandbox::new(&text).with_fake_learn("out-of-memory");
    project.write_idx_images("images", 20, 10);
    let beside = project.path("beside").to_string_lossy().into_owned();
    let project = project.set("FAKE_LEARN_BESIDE", beside);
    project.pipeline("run experiment.toml data").success();
    let run = "run experiment.toml --jobs 2 --cpus 2 --set stages.simclr.execution.cpus=1";
    project.write("hold", "");
    let failed = project.start(&format!("{run} --keep-going"));
    failed.wait_for("FAIL  simclr");
    std::fs::remove_file(project.path("hold")).expect("it is there");
    let failed = failed.wait();
    assert!(failed.stderr.contains("CUDA out of memory. Tried to allocate 2.00 GiB"), "{failed}");
    assert!(failed.stderr.contains("beside it ran other"), "{failed}");
    assert!(failed.stderr.contains("with attempts = 2 in its execution"), "{failed}");
    assert!(failed.stderr.contains("it would be tried again, alone"), "{failed}");

    let text = text.replace("echo 1 >", "echo again >");
    project.write(MANIFEST, text);
    let forced = (1..=9).map(|number| format!(" --force other{number}")).collect::<String>();
    let checkpoints = project.cache("partial");
    std::fs::remove_dir_all(&checkpoints).expect("it failed in the middle");
    let ended =
        project.pipeline(&format!("{run} --set stages.simclr.execution.attempts=2{forced}"));
    assert!(ended.status.success(), "{ended}");
    assert!(
        ended.stderr.contains("attempt 2 of 2, with nothing beside it: CUDA out of"),
        "{ended}"
    );
}

#[test]
fn without_memory_of_a_gpu_the_next_attempt_has_all_of_one() {
    let text = TRAININGS.replace("[1, 2, 3, 4]", "[1, 2]");
    let sandbox = || {
        let project = Sandbox::new(&text).with_fake_learn("out-of-memory");
        project.write_idx_images("images", 20, 10);
        let beside = project.path("beside").to_string_lossy().into_owned();
        project.set("FAKE_LEARN_BESIDE", beside).with_gpus(&["NVIDIA H100"])
    };
    let run = "run experiment.toml --jobs 2 --cpus 2 --set stages.simclr.execution.attempts=3";
    let ended = sandbox().pipeline(&format!("{run} --set stages.simclr.execution.gpus=0.5"));
    assert!(ended.status.success(), "{ended}");
    let line = "attempt 2 of 3, with a GPU of its own: CUDA out of";
    assert!(ended.stderr.contains(line), "{ended}");
    assert!(ended.stderr.contains("| step 0"), "the log of the first attempt: {ended}");
    // More than all of it there is not.
    let ended = sandbox().pipeline(&format!("{run} --keep-going"));
    assert!(!ended.status.success(), "{ended}");
    assert!(ended.stderr.contains("nothing else of this run was on its GPU"), "{ended}");
    assert!(!ended.stderr.contains("attempt"), "{ended}");
}

#[test]
fn the_largest_stage_is_named_when_memory_runs_out() {
    // One that has 30 MB while the other finds out that there is no more.
    let text = r#"
[experiment]
name = "memory"
[stages.large]
kind = "command"
shell = """
text=$(head -c 30000000 /dev/zero | tr '\\0' x)
sleep 1.2; touch seen
while [ ! -e failed ]; do sleep 0.01; done
echo "$text" | head -c 9 > $PIPELINE_OUTPUT/a
"""
[stages.small]
kind = "command"
shell = """
while [ ! -e seen ]; do sleep 0.01; done
echo "terminate called after throwing an instance of 'std::bad_alloc'" >&2; exit 1
"""
"#;
    let project = Sandbox::new(text);
    let run = project.start("run experiment.toml --jobs 2 --cpus 2");
    run.wait_for("FAIL  small");
    project.write("failed", "");
    let ended = run.wait();
    assert_eq!(ended.results(), "large ran, small failed", "{ended}");
    assert!(ended.stderr.contains("the largest stage then was large, with "), "{ended}");
    assert!(ended.stderr.contains(" MB; beside it ran small"), "{ended}");
}

#[test]
fn what_a_remote_was_asked_for_is_blamed_when_memory_runs_out() {
    // Their keys are known only with the result of the first one: a remote is asked for each of them before it starts.
    let text = r#"
[experiment]
name = "memory"
[stages.first]
kind = "command"
shell = "echo > $PIPELINE_OUTPUT/a"
[stages.large]
kind = "command"
inputs = { first = "first" }
shell = "touch seen; while [ ! -e failed ]; do sleep 0.01; done; echo > $PIPELINE_OUTPUT/a"
[stages.small]
kind = "command"
inputs = { first = "first" }
shell = """
while [ ! -e seen ]; do sleep 0.01; done
echo MemoryError >&2; exit 1
"""
"#;
    let share = tempfile::tempdir().expect("a folder");
    let address = format!("file://{}", share.path().display());
    let project = Sandbox::new(text).set("PIPELINE_REMOTE", address);
    let run = project.start("run experiment.toml --jobs 2 --cpus 2 --keep-going");
    run.wait_for("FAIL  small");
    project.write("failed", "");
    let ended = run.wait();
    assert_eq!(ended.results(), "first ran, large ran, small failed", "{ended}");
    assert!(ended.stderr.contains("beside it ran large"), "{ended}");
    assert!(ended.stderr.contains("with attempts = 2 in its execution"), "{ended}");
}

#[test]
fn only_programs_that_run_are_blamed_when_memory_runs_out() {
    // The program of one has ended, and its result waits until nobody cleans the cache.
    let text = r#"
[experiment]
name = "memory"
[stages.large]
kind = "command"
shell = "touch seen; while [ ! -e end-large ]; do sleep 0.01; done"
[stages.small]
kind = "command"
shell = """
while [ ! -e fail-small ]; do sleep 0.01; done
echo MemoryError >&2; exit 1
"""
"#;
    let project = Sandbox::new(text);
    let run = project.start("run experiment.toml --jobs 2 --cpus 2 --keep-going");
    eventually("both run", || project.path("seen").exists());
    let lock = File::options().write(true).open(project.cache("locks/pins")).expect("the lock");
    flock(&lock, FlockOperation::LockExclusive).expect("nobody cleans");
    project.write("end-large", "");
    run.wait_for("which cleans this cache");
    project.write("fail-small", "");
    run.wait_for("FAIL  small");
    drop(lock);
    let ended = run.wait();
    assert_eq!(ended.results(), "large ran, small failed", "{ended}");
    assert!(ended.stderr.contains("nothing ran beside it"), "{ended}");
    assert!(!ended.stderr.contains("attempts = 2"), "{ended}");
}

#[test]
fn where_the_driver_has_no_files_its_program_is_asked_once_and_only_if_it_matters() {
    let project = trainings("2");
    let script = "#!/bin/sh\necho asked >> asked\necho 'GPU 0: NVIDIA H100 (UUID: GPU-0-of-the-test)'\n\
                  echo 'GPU 1: NVIDIA H100 (UUID: GPU-1-of-the-test)'\n";
    let project = project.with_nvidia_smi(script);
    project.pipeline("run experiment.toml data").success();
    project.pipeline("plan experiment.toml");
    assert_eq!(project.read("asked"), "", "nothing could use a GPU");
    project.pipeline("run experiment.toml --cpus 3").success();
    assert_eq!(seen(&project), ["0, device auto", "1, device auto"]);
    assert_eq!(devices(&project)[1].2, "GPU-1-of-the-test");
    project.pipeline("run experiment.toml --cpus 3").success();
    assert_eq!(project.read("asked"), "asked\n");
}
