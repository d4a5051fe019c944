//! The examples of docs/cluster.md for other schedulers, with programs that print as theirs do.

use rustix::process::Signal;

use super::{project, submitted, works};
use crate::documents::{blocks, document};
use crate::support::{MANIFEST, Sandbox, names};

/// What the programs have in common: the jobs that have not ended, each with its state.
const JOBS: &str = r#"#!/bin/sh
here=$(cd "$(dirname "$0")/.." && pwd)
listed() {
    for job in "$here"/queue/*/; do
        id=$(basename "$job")
        case $(cat "$job/state" 2> /dev/null) in PEND) echo "$id $1" ;; RUN) echo "$id $2" ;; esac
    done
}
for last; do :; done
"#;

/// The programs of each scheduler.
const PROGRAMS: [(&str, [(&str, &str); 3]); 3] = [
    (
        "lsf",
        [
            ("bsub", "exec \"$here/sched\" submit \"$last\""),
            (
                "bjobs",
                r#"[ "$1 $2 $3" = "-noheader -o jobid stat" ] || exit 2
shift 3
for id; do
    listed PEND RUN | grep "^$id " || { echo "Job <$id> is not found" >&2; missing=1; }
done
[ -z "$missing" ] || exit 255"#,
            ),
            ("bkill", "exec \"$here/sched\" cancel \"$@\""),
        ],
    ),
    (
        "pbs",
        [
            (
                "qsub",
                "\"$here/sched\" submit \"$last\" | sed 's/.*<\\([0-9]*\\)> is.*/\\1.pbs-server.example.org/'",
            ),
            (
                "qstat",
                r#"echo 'Job id            Name             User              Time Use S Queue'
echo '----------------  ---------------- ----------------  -------- - -----'
listed Q R | while read -r id state; do echo "$id.pbs-server.ex*  job  ann  00:00:01 $state workq"; done"#,
            ),
            ("qdel", "exec \"$here/sched\" cancel \"$@\""),
        ],
    ),
    (
        "sge",
        [
            ("qsub", "\"$here/sched\" submit \"$last\" | sed 's/.*<\\([0-9]*\\)> is.*/\\1/'"),
            (
                "qstat",
                r#"[ "$1 $2" = "-u *" ] || exit 2
echo 'job-ID  prior   name       user         state submit/start at     queue  slots ja-task-ID'
echo '---------------------------------------------------------------------------------------'
listed qw r | while read -r id state; do echo "  $id 0.50500 job  ann  $state  11/28/2026 10:00:00 all.q 1"; done"#,
            ),
            ("qdel", "exec \"$here/sched\" cancel \"$@\""),
        ],
    ),
];

/// A training with the examples, and the programs of one of them.
fn with_programs(behaviour: &str, programs: &[(&str, &str)]) -> Sandbox {
    let project = project(behaviour);
    let examples = blocks(&document("cluster.md"), "## `kind = \"command\"`", "toml").concat();
    project.write(MANIFEST, format!("{}{examples}", project.read(MANIFEST)));
    for (name, script) in programs {
        project.write_program(&format!("bin/{name}"), &format!("{JOBS}{script}\n"));
    }
    let path = std::env::var("PATH").expect("a path");
    let path = format!("{}:{path}", project.path("bin").display());
    project.set("PATH", path)
}

#[test]
fn the_examples_for_other_schedulers_run_and_cancel_jobs() {
    for (executor, programs) in PROGRAMS {
        let run = format!(
            "run experiment.toml --executor {executor} --set stages.simclr.execution.memory='100MB' simclr"
        );
        let project = with_programs("", &programs);
        let ended = project.pipeline(&run);
        assert_eq!(ended.success(), "data ran, simclr ran", "{executor}: {ended}");
        assert_eq!((submitted(&project), names(&project.cache("jobs"))), (1, Vec::new()));
        let project = with_programs("slow", &programs).set("FAKE_LEARN_STEPS", "2000");
        let running = project.start(&run);
        works(&project);
        running.signal(Signal::INT);
        running.wait_for("again within 3 s");
        std::thread::sleep(std::time::Duration::from_millis(300));
        running.signal(Signal::INT);
        assert_eq!(running.wait().results(), "data ran, simclr stopped", "{executor}");
        assert_eq!(project.read("cancelled"), "1\n", "{executor}");
    }
}
