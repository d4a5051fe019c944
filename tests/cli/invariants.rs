//! What must always hold.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use crate::support::Sandbox;

#[test]
fn the_orchestrator_and_its_own_workers_do_not_load_libtorch() {
    let project = Sandbox::new(
        r#"
[experiment]
name = "maps"

[stages.wait]
kind = "command"
shell = 'echo $PPID > worker; until test -e go; do sleep 0.01; done'
"#,
    );
    let run = project.start("run experiment.toml");
    crate::support::eventually("a worker", || project.read("worker").ends_with('\n'));
    let worker = project.read("worker").trim().to_owned();
    for pid in [run.pid().as_raw_nonzero().to_string(), worker] {
        let command = fs::read(format!("/proc/{pid}/cmdline")).expect("it runs");
        let program = command.split(|byte| *byte == 0).next().unwrap_or_default();
        assert!(program.ends_with(b"pipeline"), "{}", String::from_utf8_lossy(&command));
        let maps = match fs::read_to_string(format!("/proc/{pid}/maps")) {
            // Nobody but root may look into a worker. It is the same program, which loads the same libraries.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                assert_ne!(pid, run.pid().as_raw_nonzero().to_string(), "{error}");
                continue;
            }
            maps => maps.expect("it runs"),
        };
        let files: Vec<&str> =
            maps.lines().filter_map(|line| line.split_whitespace().nth(5)).collect();
        let has = |name: &str| files.iter().any(|file| file.contains(name));
        assert!(has("/pipeline") && has("libc"), "the map shows programs and libraries: {maps}");
        assert!(!has("torch") && !has("libc10"), "{maps}");
    }
    project.write("go", "");
    run.wait().success();
}

#[test]
fn every_manifest_of_the_project_plans() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    // Not deeper: below are the user's files for the manifests, maybe a million images.
    let listings = [folder.clone(), folder.join("paper")].map(fs::read_dir);
    let entries = listings.into_iter().flat_map(|listing| listing.expect("manifests").flatten());
    let mut manifests: Vec<_> = entries.map(|entry| entry.path()).collect();
    manifests.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    // Not those that others include.
    let is_whole = |text: String| text.lines().any(|line| line == "[experiment]");
    manifests.retain(|path| is_whole(fs::read_to_string(path).expect("a manifest")));
    for name in ["quickstart.toml", "paper/cifar10.toml"] {
        assert!(manifests.iter().any(|path| path.ends_with(name)), "{name}: {manifests:?}");
    }
    let project = Sandbox::new("");
    for manifest in manifests {
        let name = manifest.to_string_lossy();
        for command in ["plan", "graph"] {
            let ended = project.pipeline(&format!("{command} {name} --cache cache"));
            assert!(ended.status.success() && ended.stderr.is_empty(), "{name}: {ended}");
        }
    }
}

#[test]
fn a_run_that_does_nothing_moves_one_time() {
    let project = Sandbox::new(crate::manifests::WORDS);
    project.pipeline("run experiment.toml").success();
    let times = || {
        let files = crate::support::walk(&project.path("cache"));
        let stats = files.into_iter().map(|path| {
            let modified = fs::symlink_metadata(&path).and_then(|metadata| metadata.modified());
            (path, modified.expect("it exists"))
        });
        let mut stats: Vec<_> = stats.collect();
        stats.sort();
        stats
    };
    let before = times();
    project.pipeline("run experiment.toml").success();
    let after = times();
    let changed: Vec<_> = after.iter().filter(|file| !before.contains(file)).collect();
    let checked = project.cache("history/checked/words");
    assert_eq!(changed.iter().map(|(path, _)| path).collect::<Vec<_>>(), [&checked]);
    assert_eq!(after.len(), before.len());
}
