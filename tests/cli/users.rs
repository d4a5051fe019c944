//! An ordinary user, whose new files nobody else may read: the whole way, without root's privileges.

use std::fs;

use insta::assert_snapshot;

use crate::manifests::{TRAINING, WORDS};
use crate::support::{Sandbox, names, walk};

#[test]
fn run_again_edit_and_stop_early() {
    let project = Sandbox::of_an_ordinary_user(WORDS);
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @"words ran, count ran, report ran, other ran");
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @"words fresh, count fresh, report fresh, other fresh");
    project.edit("to be or not to be", "six words that are not those");
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @"words ran, count ran, report fresh, other fresh");
    assert_eq!(names(&project.cache("tmp")), [""; 0]);
}

#[test]
fn what_nobody_may_change_is_read_only() {
    use std::os::unix::fs::PermissionsExt;
    let project = Sandbox::of_an_ordinary_user(WORDS);
    project.pipeline("run experiment.toml").success();
    let artifact = project.artifact("words");
    let mode =
        |path: &std::path::Path| path.metadata().expect("readable").permissions().mode() & 0o777;
    assert_eq!(mode(&artifact.join("text")), 0o400);
    assert_eq!(mode(&artifact), 0o500);
}

#[test]
fn damage_is_put_out_of_the_way() {
    let project = Sandbox::of_an_ordinary_user(WORDS);
    project.pipeline("run experiment.toml").success();
    let artifact = project.artifact("words");
    project.unprotect(&artifact);
    fs::write(artifact.join("text"), "to be").expect("it can be written now");
    project.edit("wc -w", "wc -c");
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @"words ran, count ran, report ran, other fresh");
    assert_eq!(project.quarantined().len(), 1);
}

#[test]
fn folders_in_an_artifact_and_programs_in_it() {
    let project = Sandbox::of_an_ordinary_user(
        r#"
[experiment]
name = "tools"

[stages.tools]
kind = "command"
shell = '''
cd "$PIPELINE_OUTPUT"
mkdir -p bin/deep empty
printf '#!/bin/sh\necho hello\n' > bin/deep/hello
chmod +x bin/deep/hello
ln -s deep/hello bin/hello
'''

[stages.use]
kind = "command"
inputs = { tools = "tools" }
shell = '"$PIPELINE_INPUT_TOOLS/bin/hello" > "$PIPELINE_OUTPUT/said"'
"#,
    );
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @"tools ran, use ran");
    let said = fs::read_to_string(project.artifact("use").join("said")).expect("readable");
    assert_eq!(said, "hello\n");
    // The same output in another umask has the same digest.
    let other = Sandbox::new(&project.read("experiment.toml"));
    other.pipeline("run experiment.toml").success();
    assert_eq!(project.digest("tools"), other.digest("tools"));
    assert!(walk(&project.artifact("tools")).len() == walk(&other.artifact("tools")).len());
}

#[test]
fn training() {
    let project = Sandbox::of_an_ordinary_user(TRAINING);
    // `pipeline-learn` lies beside `pipeline`.
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @"data ran, simclr ran, train ran, evaluate ran");
}
