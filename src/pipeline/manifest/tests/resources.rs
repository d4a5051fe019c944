//! What stages and runs may take of a machine, and how often stages are tried, as it is read.

use super::super::execution::Attempts;
use super::super::{Failing, Resources, RunLimits, Takes};
use super::{HEAD, right, shown_after_head, shown_of_train};

fn takes(execution: &str) -> (Takes, i32, Option<u32>) {
    let text = format!(
        "{HEAD}[execution]\nthreads = 9\n[stages.train]\nkind = \"train\"\ndata = \"data\"\nexecution = {{ {execution} }}\n"
    );
    let (manifest, _) = right(&text, &[]);
    let name = "train".parse().expect("a name");
    let execution = manifest.stage(&name).expect("it is there").execution.clone();
    (execution.takes, execution.priority, execution.execution.threads)
}

fn counted(resources: &[(&str, u32)]) -> Resources {
    resources.iter().map(|(name, amount)| ((*name).to_owned(), *amount)).collect()
}

#[test]
fn what_a_stage_takes() {
    let none = Takes::default();
    let resources = |resources| Takes { resources, ..Takes::default() };
    let gpus = |parts| Takes { gpus: Some(parts), ..Takes::default() };
    for (execution, expected, priority, threads) in [
        ("", none.clone(), 0, 9),
        // Its threads are its cores, regardless of what is for all stages.
        ("cpus = 4", Takes { cpus: Some(4), ..none.clone() }, 0, 4),
        ("cpus = 4, threads = 2", Takes { cpus: Some(4), ..none.clone() }, 0, 2),
        ("gpus = 1", gpus(1000), 0, 9),
        ("gpus = 1.0", gpus(1000), 0, 9),
        ("gpus = 0.25", gpus(250), 0, 9),
        ("gpus = 0.3333", gpus(333), 0, 9),
        ("gpus = 0.001", gpus(1), 0, 9),
        ("gpus = 0", gpus(0), 0, 9),
        ("cpus = 1024", Takes { cpus: Some(1024), ..none.clone() }, 0, 1024),
        ("memory = '8 GB'", Takes { memory: Some(8_000_000_000), ..none.clone() }, 0, 9),
        ("memory = '1.5GiB'", Takes { memory: Some(3 << 29), ..none.clone() }, 0, 9),
        ("resources = {}", none.clone(), 0, 9),
        (
            "resources = { licence = 2, a-b = 1 }",
            resources(counted(&[("licence", 2), ("a-b", 1)])),
            0,
            9,
        ),
        ("resources.licence = 0xffff_ffff", resources(counted(&[("licence", u32::MAX)])), 0, 9),
        ("priority = -7", none.clone(), -7, 9),
        ("priority = 0x10", none.clone(), 16, 9),
    ] {
        assert_eq!(takes(execution), (expected, priority, Some(threads)), "{execution}");
    }
}

#[test]
fn what_all_stages_together_may_take() {
    let limits = |lines: &str| right(&format!("{HEAD}[execution]\n{lines}\n"), &[]).0.limits;
    let none = RunLimits::default();
    for (lines, expected) in [
        ("", none.clone()),
        ("cpus = 3", RunLimits { cpus: Some(3), ..none.clone() }),
        ("gpus = [3, 0]", RunLimits { gpus: Some(vec![0, 3]), ..none.clone() }),
        ("gpus = []", RunLimits { gpus: Some(vec![]), ..none.clone() }),
        ("memory = '1 TB'", RunLimits { memory: Some(1_000_000_000_000), ..none.clone() }),
        (
            "resources = { licence = 2 }",
            RunLimits { resources: counted(&[("licence", 2)]), ..none.clone() },
        ),
    ] {
        assert_eq!(limits(lines), expected, "{lines}");
    }
    let one = RunLimits { cpus: Some(1), ..none.clone() };
    let resources = counted(&[("a", 1), ("b", 2)]);
    let two = RunLimits { cpus: Some(2), gpus: Some(vec![1]), memory: Some(5), resources };
    assert_eq!(one.clone().or(&two), RunLimits { cpus: Some(1), ..two.clone() });
    let one = RunLimits { resources: counted(&[("b", 9), ("c", 3)]), ..one };
    assert_eq!(one.or(&two).resources, counted(&[("a", 1), ("b", 9), ("c", 3)]), "each by itself");
    assert_eq!(
        two.clone().at_most(1, Some(4)),
        RunLimits { cpus: Some(1), memory: Some(4), ..two.clone() }
    );
    assert_eq!(two.clone().at_most(3, None), two);
    assert_eq!(none.clone().at_most(3, Some(4)), none);
}

#[test]
fn how_often_a_stage_is_tried() {
    let attempts = |lines: &str| {
        let (manifest, _) = right(&format!("{HEAD}{lines}"), &[]);
        manifest.stage(&"data".parse().expect("a name")).expect("it is there").execution.clone()
    };
    use Failing::{Failure, OutOfMemory, Signal, Timeout};
    let usual = [Signal, OutOfMemory, Timeout];
    for (lines, count, on) in [
        ("", 1, &usual[..]),
        ("execution = { attempts = 3 }", 3, &usual),
        ("execution.attempts = { count = 2, on = ['failure', 'signal'] }", 2, &[Signal, Failure]),
        ("execution.attempts = { count = 2, on = [] }", 2, &[]),
        ("execution = { }\n[execution]\nattempts = 5", 5, &usual),
        ("execution = { attempts = 1 }\n[execution]\nattempts = 5", 1, &usual),
    ] {
        let expected = Attempts { count, on: on.iter().copied().collect() };
        assert_eq!(attempts(lines).attempts, expected, "{lines}");
    }
}

#[test]
fn amounts_that_are_none_are_mistakes() {
    for (execution, mistake) in [
        ("cpus = 0", "'cpus' must be at least 1, but is 0"),
        ("cpus = 1025", "'cpus' must be at most 1024, but is 1025"),
        ("threads = 100000", "'threads' must be at most 1024, but is 100000"),
        ("cpus = 0.5", "'cpus' must be a whole number, but is a number with a fraction"),
        ("cpus = 2, threads = 3", "3 threads are more than the 2 'cpus' of the stage"),
        ("gpus = 1.5", "a part of one GPU, or a whole number up to 1024, but is 1.5"),
        ("gpus = -1", "a part of one GPU, or a whole number up to 1024, but is -1"),
        ("gpus = 5000", "a part of one GPU, or a whole number up to 1024, but is 5000"),
        ("gpus = nan", "but is NaN"),
        ("gpus = 0.0001", "0.0001 is too small a part of a GPU"),
        ("gpus = [0]", "'gpus' must be a number, but is a list"),
        ("gpus = 2", "a stage of the kind 'train' uses one GPU at most"),
        ("memory = 8", "'memory' must be a size, but is a whole number"),
        ("memory = '8 B', cpus = true", "'cpus' must be a whole number, but is true"),
        ("memory = '8'", "'8' does not have a unit"),
        ("memory = '8 apples'", "'8 apples' is not a size"),
        ("memory = '0 GB'", "'memory' cannot be 0"),
        ("resources = 1", "'resources' must be a table, but is a whole number"),
        ("resources = { a = 0 }", "'a' must be at least 1, but is 0"),
        ("resources = { a = 4294967296 }", "'a' must be at most 4294967295, but is 4294967296"),
        ("resources = { a = 0.5 }", "'a' must be a whole number, but is a number with a fraction"),
        ("resources = { a = '1' }", "'a' must be a whole number, but is text"),
        ("resources = { 'a b' = 1 }", "\"a b\" cannot be the name of a resource: a name has only"),
        (
            "resources = { gpus = 1 }",
            "\"gpus\" cannot be the name of a resource: 'gpus' is said beside",
        ),
        ("priority = 1.0", "'priority' must be a whole number, but is a number with a fraction"),
        ("priority = 1000001", "'priority' must be from -1000000 to 1000000, but is 1000001"),
        ("attempts = 0", "'attempts' must be at least 1, but is 0"),
        ("attempts = 101", "'attempts' must be at most 100, but is 101"),
        ("attempts = '3'", "'attempts' must be a whole number or a table, but is text"),
        ("attempts = { on = [] }", "'attempts' does not say how many there are"),
        ("attempts = { count = 2, on = 'signal' }", "'on' must be a list, but is text"),
        ("attempts = { count = 2, on = ['signals'] }", "did you mean 'signal'?"),
        ("attempts = { count = 2, after = [] }", "unknown key 'after' in 'attempts'"),
        ("priorty = 1", "unknown key 'priorty' in 'execution', did you mean 'priority'?"),
    ] {
        let found = shown_of_train(&format!("execution = {{ {execution} }}\n"));
        assert!(found.contains(mistake), "{execution}:\n{found}");
        assert!(found.contains("1 mistake in") && found.contains("x.toml:11:"), "{found}");
    }
    for (lines, mistake) in [
        ("cpus = 0", "'cpus' must be at least 1, but is 0"),
        ("cpus = 1025", "'cpus' must be at most 1024, but is 1025"),
        ("threads = 100000", "'threads' must be at most 1024, but is 100000"),
        ("gpus = [3, 0, 3]", "'gpus' has the GPU 3 twice"),
        ("gpus = 1", "must be a list of the GPUs that a run may use, but is a whole number"),
        ("gpus = [-1]", "'gpus' must be a whole number from 0, but is -1"),
        ("memory = true", "'memory' must be a size, but is true"),
        ("resources = { a = -1 }", "'a' must be a whole number from 1, but is -1"),
        ("resources = [1]", "'resources' must be a table, but is a list"),
        ("priority = 1", "unknown key 'priority' in 'execution'"),
    ] {
        let found = shown_after_head(&format!("[execution]\n{lines}\n"));
        assert!(found.contains(mistake) && found.contains("1 mistake in"), "{lines}:\n{found}");
    }
    let found = shown_after_head(
        "[stages.plot]\nkind = \"command\"\nrun = [\"plot\"]\nexecution = { gpus = 2, device = \"cuda:0\" }\n",
    );
    assert!(found.contains("'gpus' takes several, and 'device' is one of them"), "{found}");
    let found = shown_after_head(
        "[stages.split]\nkind = \"split\"\ndata = \"data\"\nholdout = 1\nexecution = { gpus = 1 }\n",
    );
    assert!(found.contains("a stage of the kind 'split' does not use a GPU"), "{found}");
}

#[test]
fn the_name_of_an_executor_is_one_that_it_can_have() {
    for (name, reason) in [
        ("", "\"\" cannot be the name of an executor: a name cannot be empty"),
        ("a b", "\"a b\" cannot be the name of an executor: a name has only letters"),
        ("-gpu", "\"-gpu\" cannot be the name of an executor: a name cannot start with '-'"),
    ] {
        let found = shown_of_train(&format!("execution = {{ executor = '{name}' }}\n"));
        assert!(found.contains(reason), "{found}");
        assert!(found.contains("1 mistake in") && found.contains("x.toml:11:26"), "{found}");
    }
    // Whether there is one is known where it is run.
    for name in ["local", "gpu"] {
        let name = format!("executor = '{name}'");
        assert_eq!(takes(&name).0, Takes::default(), "{name}");
    }
}
