//! Every input that is kept is read again, without libFuzzer: those that reach the most code (`corpus/`), and those that
//! once failed (`found/`).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use pipeline_fuzz::{TARGETS, Target};

/// The entries of a folder of this crate; none where it does not exist.
fn entries(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut paths: Vec<PathBuf> = folder
        .read_dir()
        .map(|entries| entries.map(|entry| entry.expect("readable").path()).collect())
        .unwrap_or_default();
    paths.sort_unstable();
    paths
}

fn names(folder: &str) -> BTreeSet<String> {
    let name = |path: PathBuf| path.file_name().expect("a name").to_string_lossy().into_owned();
    entries(folder).into_iter().map(name).collect()
}

/// One test: the limit on memory is that of the process.
#[test]
fn inputs_that_are_kept_are_read() {
    for target in &TARGETS {
        let Target { name, .. } = target;
        let corpus = entries(&format!("corpus/{name}"));
        assert!(!corpus.is_empty(), "{name} has no corpus");
        let mut valid = 0;
        for path in corpus.into_iter().chain(entries(&format!("found/{name}"))) {
            // The last one shown is the one that fails.
            println!("{}", path.display());
            valid += usize::from(target.run(&fs::read(path).expect("readable")));
        }
        // Otherwise a change of what a target calls could go unseen.
        assert!(valid > 0, "{name} has no valid input");
    }
}

/// `cargo xtask fuzz` takes its targets from the folders.
#[test]
fn each_target_has_a_folder_and_each_folder_a_target() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(names("corpus"), targets);
    assert!(names("found").is_subset(&targets));
}
