//! What runs, but is probably unintended: warnings, each at its line.
//!
//! Reads the file system, and changes nothing.

use std::collections::{BTreeSet, HashSet};
use std::path::{Component, Path};

use pipeline_stages::{KindConfig, PrepareStage};

use crate::diagnostic::{Mistake, Warnings};
use crate::manifest::{Lint, Manifest, Stage};
use crate::stage_name::StageName;

pub(crate) fn warnings(manifest: &Manifest, selected: &[StageName]) -> Warnings {
    let mut list = Vec::new();
    if !manifest.allowed.contains(&Lint::UndeclaredFile) {
        let stages = selected.iter().filter_map(|name| manifest.stage(name));
        list.extend(stages.flat_map(|stage| undeclared_files(stage, manifest.folder_of(stage))));
    }
    if !manifest.allowed.contains(&Lint::AxisInShell) {
        let points = manifest.stages.iter().flat_map(|stage| stage.name.point());
        let axes: BTreeSet<&str> = points.map(|(axis, _)| axis).collect();
        let mut seen = HashSet::new();
        // The instances of a stage have one text.
        let stages = selected.iter().filter(|name| seen.insert(name.template()));
        let stages = stages.filter_map(|name| manifest.stage(name));
        list.extend(stages.flat_map(|stage| axes_in_shell(stage, &axes)));
    }
    if !manifest.allowed.contains(&Lint::UnusedAxis) {
        list.extend(manifest.unused_axes.iter().map(|(name, span)| {
            let title = format!("no stage uses the axis '{name}'");
            Mistake::at(span.clone(), title)
                .help(format!(
                    "write \"${{{name}}}\" in a value of a stage (for a shell: environment = {{ {} = \"${{{name}}}\" }}), or as the seed of the experiment",
                    variable_of(name)
                ))
                .help(silence(Lint::UnusedAxis))
        }));
    }
    Warnings::new(manifest.sources.clone(), list)
}

/// The files in the manifest's folder that a command names in `run`, and not in `files`.
fn undeclared_files(declaration: &Stage, folder: &Path) -> Vec<Mistake> {
    let KindConfig::Prepare(PrepareStage::Command(command)) = &declaration.stage else {
        return Vec::new();
    };
    let is_declared = |path: &Path| {
        command.files.iter().any(|file| plain(path).starts_with(plain(Path::new(file))))
    };
    let paths = command.local_arguments().into_iter();
    let found =
        paths.filter(|(_, path)| !is_declared(Path::new(path)) && folder.join(path).is_file());
    found
        .map(|(place, path)| {
            let title = format!("'{path}' is not in 'files', so an edit of it reruns nothing");
            Mistake::at(declaration.places.find("run", Some(place)), title)
                .help(format!("add it: files = [{path:?}]"))
                .help(silence(Lint::UndeclaredFile))
        })
        .collect()
}

/// The axes that a command names in `shell` as if they were put in there.
fn axes_in_shell(declaration: &Stage, axes: &BTreeSet<&str>) -> Vec<Mistake> {
    let KindConfig::Prepare(PrepareStage::Command(command)) = &declaration.stage else {
        return Vec::new();
    };
    let Some(shell) = &command.shell else { return Vec::new() };
    let is_set = |axis: &str| {
        let is_passed = command.environment.contains_key(axis)
            || command.pass_environment.iter().any(|name| name == axis);
        is_variable(axis) && (is_passed || is_set_in(shell, axis))
    };
    let named = axes.iter().filter(|axis| shell.contains(&format!("${{{axis}}}")) && !is_set(axis));
    named
        .map(|axis| {
            let title = format!(
                "in a shell, '${{{axis}}}' is a variable of the shell, not the axis '{axis}' of the matrix"
            );
            let variable = if is_variable(axis) { (*axis).to_owned() } else { variable_of(axis) };
            Mistake::at(declaration.places.find("shell", None), title)
                .help(format!(
                    "hand it over: environment = {{ {variable} = \"${{{axis}}}\" }}, and write ${{{variable}}} in the shell"
                ))
                .help(silence(Lint::AxisInShell))
        })
        .collect()
}

/// The name of an environment variable for an axis: `LEARNING_RATE`.
fn variable_of(axis: &str) -> String {
    axis.to_uppercase().replace(['-', '.', '+'], "_")
}

/// Whether a shell can have a variable of this name.
fn is_variable(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Whether a text for a shell seems to give a variable a value itself: `NAME=`, but not with its own value, `for NAME`, `read NAME`,
/// `${NAME:=...}`, `-v NAME`. A guess: no warning is better than a wrong one.
fn is_set_in(shell: &str, variable: &str) -> bool {
    let own = format!("${{{variable}}}");
    let words = || shell.split(|letter: char| letter.is_whitespace() || ";&|()`".contains(letter));
    let assigns = words().any(|word| {
        let value = word.strip_prefix(variable).and_then(|rest| rest.strip_prefix('='));
        value.is_some_and(|value| !value.contains(&own))
    });
    let follows =
        |before: &str| words().zip(words().skip(1)).any(|pair| pair == (before, variable));
    let is_read = words().any(|word| word == "read") && words().any(|word| word == variable);
    assigns
        || is_read
        || follows("for")
        || follows("-v")
        || shell.contains(&format!("${{{variable}:"))
}

fn silence(lint: Lint) -> String {
    format!("or silence this: [lint] and, below it, allow = [\"{}\"]", lint.name())
}

/// The path without `.`: `./a` is `a`.
fn plain(path: &Path) -> std::path::PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Colour;

    /// The files that are warned about, of those in a folder with `a.py`, `src/b.py` and the folder `data`.
    fn warned(stage: &str) -> Vec<String> {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["src", "data"] {
            std::fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        for name in ["a.py", "src/b.py"] {
            std::fs::write(folder.path().join(name), "").expect("a file");
        }
        let text = format!("[experiment]\nname = \"x\"\n[stages.a]\nkind = \"command\"\n{stage}\n");
        let path = folder.path().join("x.toml");
        let (manifest, graph) = crate::manifest::parse(&path, &text, &[]).expect("a manifest");
        let selected: Vec<_> = graph.order().cloned().collect();
        let shown = warnings(&manifest, &selected).render(Colour::Never);
        let titles = shown.lines().filter_map(|line| line.strip_prefix("warning: '"));
        titles.filter_map(|line| Some(line.split_once('\'')?.0.to_owned())).collect()
    }

    #[test]
    fn axes_that_a_shell_does_not_know() {
        for (stage, expected) in [
            ("shell = 'echo ${seed}'", 1),
            ("shell = 'echo ${rate}'", 0),
            ("shell = 'echo $seed'", 0),
            ("shell = 'seed=3; echo ${seed}'", 0),
            ("shell = 'python train.py --seed=${seed}'", 1),
            ("shell = 'python train.py seed=${seed}'", 1),
            ("shell = 'random_seed=3; echo ${seed}'", 1),
            ("shell = 'echo for seed ${seed}'", 0),
            ("shell = 'export seed=3 && echo ${seed}'", 0),
            ("shell = 'ls | while IFS= read -r seed; do echo ${seed}; done'", 0),
            ("shell = 'seed=${seed} python train.py'", 1),
            ("shell = 'curl \"http://x/?a=1&seed=${seed}\"'", 1),
            ("shell = 'for x in seed rate; do echo ${seed}; done'", 1),
            ("shell = 'A=1 seed=3; echo ${seed}'", 0),
            ("shell = 'case $X in a) seed=3;; esac; echo ${seed}'", 0),
            ("shell = ': ${seed:=3}; echo ${seed}'", 0),
            ("shell = 'echo ${learning-rate}'\nenvironment = { learning-rate = '1' }", 1),
            ("shell = 'for seed in 1 2; do echo ${seed}; done'", 0),
            ("shell = 'echo ${seed}'\nenvironment = { seed = '${seed}' }", 0),
            ("shell = 'echo ${seed}'\n[lint]\nallow = ['axis-in-shell']", 0),
        ] {
            let text = format!(
                "[experiment]\nname = 'x'\n[matrix]\nseed = [1, 2]\nlearning-rate = [1, 2]\n[stages.b]\nkind = 'command'\nshell = 'true'\nenvironment = {{ SEED = '${{seed}}', RATE = '${{learning-rate}}' }}\n[stages.a]\nkind = 'command'\n{stage}\n"
            );
            let (manifest, graph) =
                crate::manifest::parse(Path::new("x.toml"), &text, &[]).expect("a manifest");
            let selected: Vec<_> = graph.order().cloned().collect();
            let shown = warnings(&manifest, &selected).render(Colour::Never);
            assert_eq!(shown.matches("is a variable of the shell").count(), expected, "{shown}");
        }
    }

    #[test]
    fn local_files_that_are_not_declared() {
        for (stage, expected) in [
            (r#"run = ["python3", "a.py"]"#, &["a.py"][..]),
            (r#"run = ["python3", "./a.py", "src/b.py"]"#, &["./a.py", "src/b.py"]),
            (r#"run = ["python3", "-c", "a.py", "--config=src/b.py"]"#, &["a.py", "src/b.py"]),
            ("run = [\"python3\", \"a.py\"]\nfiles = [\"./a.py\"]", &[]),
            ("run = [\"python3\", \"./src/b.py\"]\nfiles = [\"src\"]", &[]),
            ("run = [\"python3\", \"./src/b.py\"]\nfiles = [\"sr\"]", &["./src/b.py"]),
            (r#"run = ["a.py", "data", "other.py", "{output}/a.py", "/etc/passwd", ""]"#, &[]),
            (r#"run = ["./a.py"]"#, &[]),
            ("run = [\"python3\", \"a.py\"]\n[lint]\nallow = [\"undeclared-file\"]", &[]),
        ] {
            assert_eq!(warned(stage), expected, "{stage}");
        }
    }
}
