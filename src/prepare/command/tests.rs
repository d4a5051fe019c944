//! Tests of `command` with real programs.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pipeline_stages::ArtifactType;
use pipeline_stages::formats::{ImageShape, Part, write_samples, write_tensors};
use pipeline_stages::kinds::Command;
use pipeline_stages::message::Metrics;
use pipeline_stages::worker::{Context, Stopped};
use safetensors::Dtype;
use serde_json::json;

use crate::fixture::{Fixture, notes, stage};

fn run(parameters: &serde_json::Value) -> (Fixture, Result<Metrics, String>) {
    let fixture = Fixture::new().with_input(
        "inputs",
        Some("train-data"),
        ArtifactType::Directory,
        &[("a.txt", b"hello")],
    );
    let result = fixture.run("command", parameters);
    (fixture, result)
}

fn read(fixture: &Fixture, name: &str) -> String {
    std::fs::read_to_string(fixture.output().join(name)).expect("the program wrote it")
}

#[test]
fn a_program_gets_its_folders_as_arguments() {
    let parameters =
        json!({"run": ["cp", "{inputs.train-data}/a.txt", "{output}/b c"], "outputs": ["b c"]});
    let (fixture, result) = run(&parameters);
    assert_eq!(result, Ok(Metrics::new()));
    assert_eq!(read(&fixture, "b c"), "hello");
}

#[test]
fn a_shell_line_gets_its_folders_in_the_environment() {
    let line = "cat \"$PIPELINE_INPUT_TRAIN_DATA/a.txt\" - > \"$PIPELINE_OUTPUT/b\"; \
                pwd -P > \"$PIPELINE_OUTPUT/folder\"; test -d \"$PIPELINE_CHECKPOINT\"";
    let (fixture, result) = run(&json!({"shell": line}));
    assert_eq!(result, Ok(Metrics::new()));
    assert_eq!(read(&fixture, "b"), "hello", "standard input is empty");
    let folder = fixture.folder().canonicalize().expect("it exists");
    assert_eq!(read(&fixture, "folder").trim_end(), folder.to_string_lossy());
}

#[test]
fn the_environment_holds_what_is_declared_and_nothing_else() {
    // Cargo sets this one for tests, along with others that the program must not see.
    let given = std::env::var_os("CARGO_PKG_NAME").map(|_| "CARGO_PKG_NAME");
    let parameters = json!({
        "shell": "env > \"$PIPELINE_OUTPUT/env\"",
        "environment": {"MODE": "fast"},
        "pass-environment": ["CARGO_PKG_NAME", "SURELY_NOT_SET"],
    });
    let (fixture, result) = run(&parameters);
    assert_eq!(result, Ok(Metrics::new()));
    let text = read(&fixture, "env");
    let mut names: Vec<_> =
        text.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    names.retain(|name| {
        let set_by_shell = ["_", "PWD", "OLDPWD", "SHLVL"];
        !super::INHERITED.contains(name) && !name.starts_with("LC_") && !set_by_shell.contains(name)
    });
    names.sort_unstable();
    let mut expected = vec![
        "MODE",
        "PIPELINE_CHECKPOINT",
        "PIPELINE_INPUT_TRAIN_DATA",
        "PIPELINE_OUTPUT",
        "PYTHONDONTWRITEBYTECODE",
    ];
    expected.extend(given);
    expected.sort_unstable();
    assert_eq!(names, expected);
    assert!(text.contains("MODE=fast\n"), "{text}");
}

#[test]
fn only_known_variables_are_inherited() {
    let all = [
        "PATH",
        "LC_ALL",
        "LC_TIME",
        "CUDA_VISIBLE_DEVICES",
        "SECRET_TOKEN",
        "LD_PRELOAD",
        "SHELL",
    ];
    let kept = super::inherited(all.iter().map(|name| (name.into(), "x".into())));
    assert_eq!(
        kept.into_keys().collect::<Vec<_>>(),
        ["CUDA_VISIBLE_DEVICES", "LC_ALL", "LC_TIME", "PATH"]
    );
}

#[test]
fn failures_show_how_the_program_ended() {
    for (line, words) in [
        ("exit 3", "ended with exit status 3"),
        ("kill -9 $$", "was killed by signal 9 (SIGKILL: out of memory?)"),
        ("kill -15 $$", "was killed by signal 15 (SIGTERM)"),
        ("surely-no-such-program", "exit status 127 (the shell did not find the program)"),
    ] {
        let (_fixture, result) = run(&json!({"shell": line}));
        let error = result.unwrap_err();
        assert!(error.starts_with("'sh -c ") && error.ends_with(words), "{line}: {error}");
    }
}

#[test]
fn a_missing_program_is_named_with_where_it_was_searched() {
    let (_fixture, result) =
        run(&json!({"run": ["surely-no-such-program"], "environment": {"PATH": "/bin:tools"}}));
    let error = result.unwrap_err();
    assert!(error.contains("'surely-no-such-program' in PATH, which is /bin, "), "{error}");
    assert!(error.ends_with("folder/tools"), "{error}");

    let (_fixture, result) = run(&json!({"run": ["./missing.sh"]}));
    let error = result.unwrap_err();
    assert!(error.contains("/folder/./missing.sh: the file does not exist"), "{error}");
}

#[test]
fn scripts_next_to_the_manifest_run_and_their_mistakes_are_named() {
    use std::os::unix::fs::PermissionsExt;
    for (content, mode, words) in [
        ("#!/bin/sh\ntest \"$1\" = x", 0o755, None),
        ("#!/bin/sh\n", 0o644, Some("it is not executable; try chmod +x")),
        (
            "#!/surely/no/interpreter\n",
            0o755,
            Some(
                "the interpreter that its first line (#!) names is missing: /surely/no/interpreter",
            ),
        ),
        ("#!/bin/sh\r\n", 0o755, Some("its first line ends as on Windows")),
        ("\u{7f}nonsense", 0o755, Some("it is not a program of this system")),
    ] {
        let fixture = Fixture::new();
        let draft = fixture.folder().join("draft");
        std::fs::write(&draft, content).expect("a file");
        std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(mode)).expect("its mode");
        // Another process writes the script: if this one did, a fork in another test could hold it open
        // for writing, and then it could not be executed (text file busy).
        let copy = ["-p", "draft", "step-one"];
        let copied =
            std::process::Command::new("cp").args(copy).current_dir(fixture.folder()).status();
        assert!(copied.is_ok_and(|status| status.success()));
        let result = fixture.run("command", &json!({"run": ["./step-one", "x"]}));
        match words {
            None => assert_eq!(result, Ok(Metrics::new())),
            Some(words) => {
                assert!(result.as_ref().is_err_and(|error| error.contains(words)), "{result:?}")
            }
        }
        if words.is_none() {
            let error = fixture.run("command", &json!({"run": ["step-one", "x"]})).unwrap_err();
            assert!(
                error.ends_with("to run the file next to the manifest, write './step-one'"),
                "{error}"
            );
        }
    }
}

#[test]
fn the_reason_for_a_failed_start_is_shown() {
    let long = "x".repeat(200_000);
    let (_fixture, result) = run(&json!({"run": ["true", long]}));
    let error = result.unwrap_err();
    assert!(error.ends_with("longer than the system allows; pass them in a file"), "{error}");
    let (_fixture, result) = run(&json!({"run": ["/dev/null"]}));
    assert_eq!(result.unwrap_err(), "cannot run /dev/null: it is not a regular file");
}

#[test]
fn a_missing_declared_output_is_an_error_that_lists_what_exists() {
    let (_fixture, result) = run(
        &json!({"shell": "cd \"$PIPELINE_OUTPUT\"; mkdir d; touch b", "outputs": ["a", "b", "d/e"]}),
    );
    let error = result.unwrap_err();
    assert!(
        error.ends_with("did not write a, d/e to its output folder, which contains b, d/"),
        "{error}"
    );

    let (_fixture, result) = run(&json!({"run": ["true"], "output": "weights"}));
    let error = result.unwrap_err();
    assert!(
        error.ends_with(
            "weights.safetensors, model.json to its output folder, which contains nothing"
        ),
        "{error}"
    );

    let (_fixture, result) =
        run(&json!({"shell": "cd \"$PIPELINE_OUTPUT\"; touch a b", "output": "file"}));
    let error = result.unwrap_err();
    assert!(error.ends_with("exactly one file, but the output folder contains a, b"), "{error}");
}

#[test]
fn the_numbers_in_metrics_json_are_metrics_and_the_rest_is_a_note() {
    let with = |json_text: &str| {
        let fixture = Fixture::new();
        let line = format!("echo '{json_text}' > \"$PIPELINE_OUTPUT/metrics.json\"");
        let parameters = json!({"shell": line, "output": "metrics"});
        let context = fixture.context("command", &parameters);
        let result = crate::run(&stage("command", &parameters), &context);
        (result.map_err(|error| format!("{error:#}")), notes(&context))
    };
    let expected = Metrics::from([("accuracy".to_owned(), 0.5), ("by/cat".to_owned(), 3.0)]);
    let (metrics, notes) = with(r#"{"accuracy": 0.5, "by": {"cat": 3}}"#);
    assert_eq!((metrics, notes), (Ok(expected), vec![]));
    let (metrics, notes) = with(r#"{"loss": NaN, "model": "r18", "confusion": [[1, 2]]}"#);
    assert!(metrics.is_ok_and(|metrics| metrics.len() == 1 && metrics["loss"].is_nan()));
    assert_eq!(
        notes,
        ["metrics.json: left out 'confusion' (an array), 'model' (a string); a metric is a number"]
    );
    let (error, _) = with(r#"{"a": 1"#);
    let expected = "metrics.json is not JSON: it ends too early";
    assert_eq!(error.map(drop), Err(expected.to_owned()));
    let (metrics, notes) = with("3");
    assert_eq!(metrics, Ok(Metrics::new()));
    assert_eq!(
        notes,
        [
            "metrics.json is a number, so it has no metrics: they are numbers under names, in an object"
        ]
    );
}

/// Makes a data set in a folder, and its `dataset.json`, wrong.
type Change<'c> = &'c dyn Fn(&Path, &mut serde_json::Value);

#[test]
fn the_files_of_a_data_set_have_the_same() {
    let image = ImageShape { channels: 3, height: 4, width: 5 };
    let with = |change: Change<'_>| {
        let fixture = Fixture::new();
        let data = fixture.folder().join("data");
        std::fs::create_dir(&data).expect("a folder");
        for (part, samples) in [(Part::Train, 3), (Part::Test, 2)] {
            let (pixels, labels) = (vec![0; samples * image.bytes()], vec![1; samples]);
            write_samples(&data, part, image, &pixels, &labels).expect("writable");
        }
        let mut info = json!({
            "format": "own", "classes": ["cat", "dog"], "train-samples": 3, "test-samples": 2,
            "image": {"channels": 3, "height": 4, "width": 5},
            "channel-mean": [0.5, 0.5, 0.5], "channel-std": [0.2, 0.2, 0.2],
        });
        change(&data, &mut info);
        std::fs::write(data.join("dataset.json"), info.to_string()).expect("writable");
        fixture.run(
            "command",
            &json!({"shell": "cp data/* \"$PIPELINE_OUTPUT\"", "output": "dataset"}),
        )
    };
    let has = |name: &'static str, value: serde_json::Value| {
        move |_: &Path, info: &mut serde_json::Value| info[name] = value.clone()
    };
    assert_eq!(with(&|_, _| ()), Ok(Metrics::new()));
    let last = |data: &Path, _: &mut serde_json::Value| {
        let last = ImageShape { channels: 4, height: 5, width: 3 };
        write_samples(data, Part::Test, last, &[0; 120], &[0, 1]).expect("writable");
    };
    let wrong_label = |data: &Path, _: &mut serde_json::Value| {
        write_samples(data, Part::Train, image, &[0; 180], &[0, 1, 2]).expect("writable");
    };
    let incomplete = |data: &Path, _: &mut serde_json::Value| {
        std::fs::write(data.join("train.safetensors"), "x").expect("writable");
    };
    let tensors = |images: (Dtype, Vec<usize>), labels: Dtype| {
        move |data: &Path, _: &mut serde_json::Value| {
            let tensor = |name, dtype: Dtype, shape: Vec<usize>| {
                let bytes = shape.iter().product::<usize>() * dtype.bitsize() / 8;
                (name, dtype, shape, vec![0; bytes].into())
            };
            let images = tensor("images", images.0, images.1.clone());
            let tensors = [images, tensor("labels", labels, vec![3])];
            write_tensors(&data.join("train.safetensors"), &tensors, &[]).expect("writable");
        }
    };
    let without_mean = |_: &Path, info: &mut serde_json::Value| {
        info.as_object_mut().expect("a table").remove("channel-mean");
    };
    let cases: [(Change<'_>, &str); 19] = [
        (
            &last,
            "test.safetensors has images of [4, 5, 3], but dataset.json has 3x4x5: write them as [samples, channels, height, width]",
        ),
        (
            &wrong_label,
            "train.safetensors: the label of sample 2 is 2, but dataset.json has 2 classes",
        ),
        (&incomplete, "data set: train.safetensors is not a complete safetensors file"),
        (
            &without_mean,
            "data set: dataset.json does not have the values that it needs: missing field `channel-mean` (line 1",
        ),
        (
            &has("train-samples", json!(2)),
            "train.safetensors has 3 samples, but dataset.json has train-samples 2",
        ),
        (
            &has("test-samples", json!(3)),
            "test.safetensors has 2 samples, but dataset.json has test-samples 3",
        ),
        (
            &has("validation-samples", json!(3)),
            "of train-samples = 3, validation-samples = 3 leaves none",
        ),
        (
            &tensors((Dtype::U8, vec![3, 4, 5]), Dtype::I64),
            "train.safetensors: 'images' has the shape [3, 4, 5], without channels: write images[:, None]",
        ),
        (
            &tensors((Dtype::F32, vec![3, 3, 4, 5]), Dtype::I64),
            "'images' is F32: write whole numbers from 0 to 255",
        ),
        (
            &tensors((Dtype::U8, vec![3, 3, 4, 5]), Dtype::I32),
            "'labels' is I32: write labels.astype('int64')",
        ),
        (
            &has("validation_samples", json!(1)),
            "dataset.json has 'validation_samples', which is none of its keys: channel-mean, channel-std, classes,",
        ),
        (
            &has("channel-mean", json!([0.5, 127.5, 0.5])),
            "dataset.json: 'channel-mean' has 127.5, but is of pixels from 0 to 1, as shares of 255: divide",
        ),
        (&has("channel-std", json!([0.2, -0.1, 0.2])), "'channel-std' has -0.1"),
        (
            &has("image", json!({"channels": 3, "height": 0, "width": 5})),
            "images of 3x0x5 have no pixels",
        ),
        (&has("classes", json!(["cat", "cat"])), "two classes have the name 'cat'"),
        (&has("classes", json!(["cat", ""])), "a class has no name"),
        (&has("channel-std", json!([1.0])), "'channel-std' has 1 numbers for 3 channels"),
        (&has("classes", json!("cat")), "invalid type: string \"cat\", expected a sequence"),
        (
            &has("storage", json!("encoded")),
            "train.safetensors has 'images', but dataset.json has storage = \"encoded\"",
        ),
    ];
    for (change, words) in cases {
        let error = with(change).expect_err(words);
        assert!(error.contains(words), "{error} should have {words}");
    }
}

#[test]
fn a_sandbox_is_not_for_the_process_that_starts_it() {
    let fixture = Fixture::new();
    let secret = fixture.root().join("secret");
    std::fs::write(&secret, "x").expect("a file");
    let line = |line: &str| line.replace("SECRET", &secret.display().to_string());
    let cat = line("cat SECRET");
    let result = fixture.run("command", &json!({"shell": cat, "sandbox": "on"}));
    let error = result.expect_err("it may not");
    if error.contains("needs Landlock") {
        let _ = std::io::stderr().write_all(b"SKIPPED: no Landlock, so no sandbox was tried\n");
        return;
    }
    assert!(error.contains("ended with exit status 1"), "{error}");
    // This process, its other threads and other programs may do what they could.
    std::fs::write(&secret, "y").expect("writable");
    let other = std::thread::spawn({
        let secret = secret.clone();
        move || std::fs::read_to_string(secret)
    });
    assert_eq!(other.join().expect("a thread").expect("readable"), "y");
    assert_eq!(fixture.run("command", &json!({"shell": cat})), Ok(Metrics::new()));
    // What it leaves running does not keep the stage.
    let started = Instant::now();
    let left = json!({"shell": line("cat SECRET; sleep 30 > /dev/null 2>&1 &"), "sandbox": "warn"});
    assert_eq!(fixture.run("command", &left), Ok(Metrics::new()));
    assert!(started.elapsed() < Duration::from_secs(20));
}

/// Set in the process that [`in_a_worker`] starts, to a folder that it shares with the one that started it.
const WORKER: &str = "PIPELINE_TEST_WORKER_FOLDER";

/// This test again, in a process of its own that leads a process group, like a worker.
fn worker(test: &str, folder: &Path) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", &format!("command::tests::{test}"), "--nocapture"]);
    command.env(WORKER, folder).env("TMPDIR", folder).process_group(0);
    command
}

/// Runs the body of a test in such a process.
fn in_a_worker(test: &str, body: impl FnOnce()) {
    if std::env::var_os(WORKER).is_some() {
        return body();
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let output = worker(test, folder.path()).output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains(" 1 passed"), "{text}\n{log}");
}

/// The context of a worker: with a lock on its checkpoint folder, which is the file `lock` in its folder.
fn locked(context: Context) -> Context {
    let folder = std::env::var_os(WORKER).expect("this is a worker");
    let lock = File::create(Path::new(&folder).join("lock")).expect("a file");
    lock.try_lock().expect("nobody else has it");
    context.with_checkpoint_lock(lock)
}

/// Starts a shell line, asks it to stop once it has written the file `ready`, and returns how long it took.
fn stop_when_ready(line: &str, grace: Duration) -> (Fixture, Duration, anyhow::Result<()>) {
    let fixture = Fixture::new();
    let parameters = json!({"shell": line});
    let pipeline_stages::PrepareStage::Command(command) = stage("command", &parameters) else {
        unreachable!("the kind is command")
    };
    let context = locked(fixture.context("command", &parameters));
    let stop = context.stop_flag();
    let ready = fixture.output().join("ready");
    let asking = std::thread::spawn(move || {
        while !ready.exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        stop.store(true, Ordering::Relaxed);
        Instant::now()
    });
    let program =
        super::program(&command as &Command, &context).expect("sh exists").with_grace(grace);
    let result = program.run(&context);
    let ended = Instant::now();
    let asked = asking.join().expect("it does not panic");
    (fixture, ended - asked, result)
}

/// A shell line that writes its process id and the file `ready`, and does not end; `on_term` is its trap for
/// SIGTERM.
fn listening(on_term: &str) -> String {
    format!(
        "trap '{on_term}' TERM; echo $$ > \"$PIPELINE_OUTPUT/pid\"; touch \"$PIPELINE_OUTPUT/ready\"; \
         while :; do sleep 0.01; done"
    )
}

/// The line in a shell of its own after `before`, in a shell without traps. `; true` prevents that one from
/// replacing itself with the other (exec).
fn behind_a_shell(before: &str, line: &str) -> String {
    format!("{before} sh -c \"$(cat <<'END'\n{line}\nEND\n)\"; true")
}

fn is_alive(fixture: &Fixture) -> bool {
    let pid = read(fixture, "pid").trim().parse().ok().and_then(rustix::process::Pid::from_raw);
    rustix::process::test_kill_process(pid.expect("a process id")).is_ok()
}

#[test]
fn a_program_that_is_asked_to_stop_may_save_its_work() {
    in_a_worker("a_program_that_is_asked_to_stop_may_save_its_work", || {
        let save = "sleep 0.2; touch \"$PIPELINE_CHECKPOINT/saved\"; exit 0";
        for line in [listening(save), behind_a_shell("", &listening(save))] {
            let (fixture, took, result) = stop_when_ready(&line, Duration::from_secs(60));
            assert!(result.unwrap_err().is::<Stopped>());
            assert!(fixture.checkpoint().join("saved").exists(), "{line}");
            assert!(!is_alive(&fixture), "it was waited for");
            assert!(took < Duration::from_secs(30), "{took:?}");
        }
    });
}

#[test]
fn a_program_that_ignores_the_request_is_killed() {
    in_a_worker("a_program_that_ignores_the_request_is_killed", || {
        let deaf = listening("");
        // In its own process group, it does not get signals to the group of the worker.
        for line in [deaf.clone(), behind_a_shell("", &deaf), behind_a_shell("setsid", &deaf)] {
            let (fixture, took, result) = stop_when_ready(&line, Duration::from_millis(100));
            assert!(result.unwrap_err().is::<Stopped>());
            assert!(took >= Duration::from_millis(100), "{took:?}");
            assert!(!is_alive(&fixture), "it was killed and waited for: {line}");
        }
    });
}

#[test]
fn what_a_program_leaves_running_is_killed() {
    in_a_worker("what_a_program_leaves_running_is_killed", || {
        let fixture = Fixture::new();
        let line = format!(
            "{{ {}; }} & while ! test -e \"$PIPELINE_OUTPUT/ready\"; do sleep 0.01; done",
            behind_a_shell("setsid", &listening(""))
        );
        let parameters = json!({"shell": line});
        let context = locked(fixture.context("command", &parameters));
        crate::run(&stage("command", &parameters), &context).expect("the program succeeds");
        assert!(!is_alive(&fixture), "it could still write to its output");
    });
}

#[test]
fn a_program_that_outlives_its_worker_keeps_the_checkpoint_locked() {
    let test = "a_program_that_outlives_its_worker_keeps_the_checkpoint_locked";
    let line =
        "touch \"$SHARED/ready\"; while test ! -e \"$SHARED/end\"; do sleep 0.01; done; true";
    if let Some(folder) = std::env::var_os(WORKER) {
        let fixture = Fixture::new();
        let parameters = json!({"shell": line, "environment": {"SHARED": folder.to_str()}});
        let context = locked(fixture.context("command", &parameters));
        drop(crate::run(&stage("command", &parameters), &context));
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = worker(test, folder.path());
    let mut worker =
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    while !folder.path().join("ready").exists() {
        assert_eq!(worker.try_wait().ok().flatten(), None, "it works until it is killed");
        std::thread::sleep(Duration::from_millis(5));
    }
    worker.kill().expect("it is alive");
    worker.wait().expect("it is a child of this process");
    let lock = File::open(folder.path().join("lock")).expect("it was made");
    assert!(matches!(lock.try_lock(), Err(TryLockError::WouldBlock)), "the program has it");
    std::fs::write(folder.path().join("end"), "").expect("a file");
    lock.lock().expect("the program exits");
}
