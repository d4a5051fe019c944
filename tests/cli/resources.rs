//! What the user counts, by names of their own: how much there is, and who takes it.

use insta::assert_snapshot;

use crate::machine::{jealous, sociable, stages};
use crate::support::{MANIFEST, Sandbox, eventually};

/// What a run may use of what the user counts.
fn with_licences(project: &Sandbox, licences: u32) {
    let limits = format!("[execution]\nresources = {{ disk = 1, licence = {licences} }}\n");
    project.write(MANIFEST, project.read(MANIFEST) + &limits);
}

#[test]
fn what_the_user_counts_is_never_taken_twice() {
    // One holds the licence, two wait for it, and one that does not need it goes past them.
    let holds = "execution = { resources = { licence = 1 } }\n\
                 shell = \"mkdir licence && sleep 0.1 && rmdir licence && echo > $PIPELINE_OUTPUT/a\"\n";
    let stages = ["one", "two", "three"].map(|name| {
        format!(
            "[stages.{name}]\nkind = \"command\"\nenvironment = {{ NAME = \"{name}\" }}\n{holds}"
        )
    });
    let first = stages[0].replace("sleep 0.1", "while [ ! -e other ]; do sleep 0.01; done");
    let other =
        "[stages.other]\nkind = \"command\"\nshell = \"touch other; echo > $PIPELINE_OUTPUT/a\"\n";
    let head = "[experiment]\nname = \"licence\"\n";
    let project = Sandbox::new(&format!("{head}{first}{}{}{other}", stages[1], stages[2]));
    with_licences(&project, 1);
    let ended = project.pipeline("run experiment.toml --jobs 4 --cpus 4");
    assert_eq!(ended.success(), "one ran, two ran, three ran, other ran");
    // How much there is, and who takes it, is in no key.
    project.write(MANIFEST, project.read(MANIFEST).replace("licence = 1", "licence = 3"));
    let fresh = "one fresh, two fresh, three fresh, other fresh";
    assert_eq!(project.pipeline("run experiment.toml").success(), fresh);
}

#[test]
fn how_much_there_is_of_a_resource_is_said_by_who_is_nearest() {
    let takes = "resources = { licence = 1 }";
    // The manifest goes before the user, and the command line and the environment before both.
    let user = |project: Sandbox, licences: u32| {
        let limits = format!("[execution.resources]\nlicence = {licences}\nunknown = 7\n");
        project.write("config/pipeline/config.toml", limits);
        let home = project.path("config").to_string_lossy().into_owned();
        project.set("XDG_CONFIG_HOME", home)
    };
    let run = "run experiment.toml --jobs 2 --cpus 2";
    user(sociable(takes), 2).pipeline(run).success();
    user(jealous(takes), 1).pipeline(run).success();
    let project = user(jealous(takes), 2);
    with_licences(&project, 1);
    project.pipeline(run).success();
    let project = sociable(takes);
    with_licences(&project, 1);
    project.pipeline(&format!("{run} --resources disk=9 --resources licence=2")).success();
    let project = jealous(takes).set("PIPELINE_RESOURCES", "disk=9,licence=1");
    with_licences(&project, 2);
    project.pipeline(run).success();
}

#[test]
fn a_resource_of_which_nobody_says_how_much_there_is_is_a_mistake_at_its_line() {
    let stages = stages(&[
        ("fetch", "execution = { resources = { licnece = 1 } }"),
        ("many", "execution.resources.licence = 5"),
        ("none", "execution.resources = { tape = 2 }"),
        ("elsewhere", "execution = { executor = 'cluster', resources = { seats = 1 } }"),
    ]);
    let project = Sandbox::new(&(stages + "[executors.cluster]\nkind = \"slurm\"\n"));
    with_licences(&project, 2);
    let ended = project.pipeline("run experiment.toml");
    assert_eq!((ended.code(), project.read("ran").as_str()), (Some(2), ""), "{ended}");
    assert_snapshot!(ended.stderr, @r"
    error: 'fetch' takes 'licnece', and nobody says how much of it there is, did you mean 'licence'?
     --> experiment.toml:5:29
      |
    5 | execution = { resources = { licnece = 1 } }
      |                             ^^^^^^^
      |
      = help: [execution] of the manifest or of your config.toml can: resources = { licnece = 1 }; or --resources licnece=1

    error: 'many' takes 5 of 'licence', and a run may use 2
     --> experiment.toml:9:21
      |
    9 | execution.resources.licence = 5
      |                     ^^^^^^^
      |
      = help: take less, or let runs use more: --resources licence=5

    error: 'none' takes 'tape', and nobody says how much of it there is
      --> experiment.toml:13:25
       |
    13 | execution.resources = { tape = 2 }
       |                         ^^^^
       |
       = help: [execution] of the manifest or of your config.toml can: resources = { tape = 2 }; or --resources tape=2

    error: 'elsewhere' takes 'seats', and nobody says how much of it there is
      --> experiment.toml:17:51
       |
    17 | execution = { executor = 'cluster', resources = { seats = 1 } }
       |                                                   ^^^^^
       |
       = help: [execution] of the manifest or of your config.toml can: resources = { seats = 1 }; or --resources seats=1

    error: 4 mistakes in experiment.toml; nothing was run
    ");
    // A plan may be of a run for which somebody says it.
    let planned = project.pipeline("plan experiment.toml");
    assert_eq!(planned.code(), Some(0), "{planned}");
    let warned = ended.stderr.replace("error: '", "warning: '");
    let (warned, _) = warned.split_once("\n\nerror: 4 mistakes").expect("its last line");
    assert_eq!(planned.stderr.trim_end(), warned);
    let all = "--resources licnece=1,licence=5 --resources tape=2,seats=1";
    assert_eq!(project.pipeline(&format!("plan experiment.toml {all}")).stderr, "");
}

#[test]
fn stages_run_at_once_where_there_is_enough_for_both() {
    let takes = "resources = { licence = 2 }";
    let run = "run experiment.toml --jobs 2 --cpus 2 --resources";
    jealous(takes).pipeline(&format!("{run} licence=3")).success();
    sociable(takes).pipeline(&format!("{run} disk=1,licence=4")).success();
}

#[test]
fn what_runs_again_in_the_middle_of_a_run_takes_what_there_is_or_is_a_mistake() {
    let reads = "inputs = { a = \"counted\" }";
    let text = [
        stages(&[("counted", "execution = { resources = { licence = 1 } }"), ("reads", reads)]),
        // While it runs, the licence is taken.
        "[stages.holds]\nkind = \"command\"\nexecution = { resources = { licence = 1 } }\n\
         shell = \"touch held; while [ ! -e end ]; do sleep 0.01; done; rm held\"\n"
            .to_owned(),
    ];
    let project = Sandbox::new(&text.concat());
    project.edit("echo counted >> ran", "[ ! -e held ] || exit 1; echo counted >> ran");
    project.pipeline("run experiment.toml counted --resources licence=1").success();
    // It has a result until its reader finds out that this is damaged.
    let damage = || {
        let artifact = project.artifact("counted");
        project.unprotect(&artifact);
        std::fs::write(artifact.join("a"), "it is damaged\n").expect("ours");
    };
    damage();
    let ended = project.pipeline("run experiment.toml reads");
    assert_eq!(ended.results(), "counted failed, reads skipped", "{ended}");
    let mistake = "experiment.toml:5:29: 'counted' takes 'licence', and nobody says how much of it there is\n";
    assert!(ended.stderr.contains(mistake), "{ended}");
    assert!(ended.stderr.contains("or --resources licence=1"), "{ended}");
    assert_eq!(project.read("ran"), "counted\n");
    // It waits for what is taken.
    project.pipeline("run experiment.toml counted --resources licence=1").success();
    damage();
    let run = project.start("run experiment.toml --resources licence=1 --jobs 3 --cpus 3");
    eventually("the licence is taken", || project.path("held").exists());
    run.wait_for("its stage runs again");
    project.write("end", "");
    assert_eq!(run.wait().success(), "counted ran, reads ran, holds ran");
}

#[test]
fn amounts_that_cannot_be_read_are_mistakes() {
    let project = Sandbox::new(&stages(&[("one", "")]));
    for (options, mistake) in [
        ("--resources licence", "write a name and a number, as in licence=2,downloads=4"),
        ("--resources licence=1,", "write a name and a number, as in licence=2,downloads=4"),
        ("--resources licence=0", "'licence' must be a whole number from 1 to 4294967295"),
        ("--resources licence=0.5", "'licence' must be a whole number from 1 to 4294967295"),
        ("--resources =1", "\"\" cannot be the name of a resource: a name cannot be empty"),
        ("--resources a.b=1", "\"a.b\" cannot be the name of a resource: a name has only letters"),
        ("--resources cpus=1", "'cpus' is said beside 'resources', not in it"),
    ] {
        let ended = project.pipeline(&format!("run experiment.toml {options}"));
        assert_eq!(ended.code(), Some(2), "{ended}");
        assert!(ended.stderr.contains(mistake), "{ended}");
    }
}
