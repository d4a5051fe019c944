//! docs/cluster.md: the commands of it run as they are there, beside a real Slurm.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::slurm;
use crate::documents::{ClusterCommands, blocks, document};
use crate::support::{Ended, Sandbox, fake_learn, names};

/// What stands in the document for a site, and what is there in its place here. A folder is named here by `FOLDER`.
const SITE: [(&str, &str); 5] = [
    ("/shared", "FOLDER"),
    ("partition = \"gpu\"", "partition = \"main\""),
    ("[\"--gres=gpu:1\", \"--mem=24G\"]", "[\"--mem=900M\"]"),
    ("module load cuda/12", "true"),
    ("--cache elsewhere", "--cache FOLDER/elsewhere"),
];

/// What of the environment of whoever runs the tests says how a checkout is built.
const BUILDING: [&str; 6] =
    ["CARGO_HOME", "CARGO_TARGET_DIR", "CXX", "LIBTORCH", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"];

/// A checkout of the project: this one.
const CHECKOUT: &str = env!("CARGO_MANIFEST_DIR");

/// The document, with a folder of the site.
fn with_site(folder: &Path) -> String {
    SITE.into_iter().fold(document("cluster.md"), |text, (there, here)| {
        assert!(text.contains(there), "{there:?} is in the document");
        text.replace(there, &here.replace("FOLDER", &folder.display().to_string()))
    })
}

/// A user of the site, with these settings and a cache of their own.
fn user(slurm: &Path, folder: &Path, settings: &str) -> Sandbox {
    let user = Sandbox::new("");
    user.write("config/pipeline/config.toml", settings);
    let path = std::env::var("PATH").expect("a path");
    let place = |name: &str| user.path(name).display().to_string();
    let (config, cache) = (place("config"), place("cache"));
    let user = user
        .set("XDG_CONFIG_HOME", config)
        .set("PIPELINE_CACHE", cache)
        .set("PATH", format!("{}/bin:{path}", folder.display()))
        .set("SLURM_CONF", slurm.join("slurm.conf").to_string_lossy());
    let home = std::env::var("HOME").unwrap_or_default();
    let homes = [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")];
    let user = homes
        .into_iter()
        .fold(user, |user, (name, folder)| user.set(name, format!("{home}/{folder}")));
    let building = BUILDING.into_iter().filter_map(|name| Some((name, std::env::var(name).ok()?)));
    building.fold(user, |user, (name, value)| user.set(name, value))
}

/// Runs a block of the document in the checkout, however long it takes.
fn run(user: &Sandbox, block: &str) -> Ended {
    let mut command = Command::new("bash");
    user.dress(command.args(["-eux", "-c", block]));
    command.current_dir(CHECKOUT);
    let running = user.start_command(command);
    while running.is_running() {
        std::thread::sleep(Duration::from_millis(50));
    }
    let ended = running.wait();
    assert!(ended.status.success(), "{block}\n{ended}");
    ended
}

#[test]
fn the_way_from_nothing_to_a_sweep_that_others_get_is_as_it_is_written() {
    let Some(slurm) = slurm() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let document = with_site(folder.path());
    let executor = blocks(&document, "# Executors: stages that run elsewhere", "toml").remove(0);
    let way = "## From nothing to a sweep that others get";
    let [shared] = &blocks(&document, way, "toml")[..] else { panic!("one block of settings") };
    let commands = ClusterCommands::of(&document);
    // The worker of the tests learns nothing: the whole sweep would take long.
    let learn = fake_learn().display().to_string();
    let ann = user(&slurm, folder.path(), &format!("{shared}{executor}"));
    let ann = ann.set("PIPELINE_LEARN", learn);
    let made = run(&ann, &commands.first_user);
    let counted = |ended: &Ended, what: &str| {
        let mut words =
            ended.stdout.rsplit(&format!(" {what} in ")).nth(1).unwrap_or_default().rsplit(' ');
        words.next().and_then(|count| count.parse::<usize>().ok())
    };
    let all = counted(&made, "ran").unwrap_or_else(|| panic!("all of it ran: {made}"));
    let as_jobs = made.stderr.lines().filter(|line| line.contains(" is job ")).count();
    // A pretraining, 54 trainings, and as many evaluations, which went on after them.
    assert_eq!(as_jobs, 1 + 2 * 54, "{made}");
    assert_eq!(names(&ann.cache("jobs")), [""; 0]);
    let bob = user(&slurm, folder.path(), shared).set("PIPELINE_LEARN", "/nothing/learns/here");
    let got = run(&bob, &commands.other_user);
    assert_eq!(counted(&got, "remote"), Some(all), "{got}");
    assert_eq!(counted(&got, "ran"), None, "{got}");
    assert_eq!(names(&bob.cache("logs")), [""; 0], "nothing has run: {got}");
    let table = ann.cache("latest/sweep-quickstart/accuracy/table.md");
    let table = fs::read_to_string(table).expect("a table");
    assert!(table.contains("simclr") && got.stdout.ends_with(&table), "{got}");
    // A short sweep that learns, there and here.
    let carl = user(&slurm, folder.path(), &executor);
    run(&carl, &commands.there_and_here);
    let (there, here) = (carl.cache("store"), folder.path().join("elsewhere/store"));
    assert_eq!(names(&there), names(&here));
    let said = format!("All {} artifacts have the same digests", names(&there).len());
    assert!(document.contains(&said), "{said}");
}
