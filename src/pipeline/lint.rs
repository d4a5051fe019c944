//! What runs, but is probably unintended: warnings, each at its line.
//!
//! Reads the file system, and changes nothing.

use std::cell::LazyCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Component, Path, PathBuf};

use pipeline_stages::kinds::Command;
use pipeline_stages::{KindConfig, PrepareStage};

use crate::diagnostic::{Mistake, Warnings};
use crate::manifest::{Lint, Manifest, Stage};
use crate::stage_name::StageName;

pub(crate) fn warnings(manifest: &Manifest, selected: &[StageName]) -> Warnings {
    let mut list = Vec::new();
    if !manifest.allowed.contains(&Lint::UndeclaredFile) {
        let stages = selected.iter().filter_map(|name| manifest.stage(name));
        let mut files = HashMap::new();
        list.extend(
            stages.flat_map(|stage| undeclared_files(stage, manifest.folder_of(stage), &mut files)),
        );
    }
    // Where only swept values are replaced, nobody has written a text for an axis.
    let only_swept = manifest.placeholders.only_swept;
    if !only_swept && !manifest.allowed.contains(&Lint::AxisInShell) {
        let points = manifest.stages.iter().flat_map(|stage| stage.name.point());
        let axes: LazyCell<BTreeSet<&str>, _> =
            LazyCell::new(|| points.map(|(axis, _)| axis).collect());
        let mut seen = HashSet::new();
        // The instances of a stage have one text, or several where points bring them by `with`.
        let stages = selected.iter().filter_map(|name| manifest.stage(name)).filter(|stage| {
            let shell = command_of(stage).and_then(|command| command.shell.as_deref());
            shell.is_some_and(|shell| seen.insert((stage.name.template(), shell)))
        });
        list.extend(stages.flat_map(|stage| axes_in_shell(manifest, stage, &axes)));
    }
    if !manifest.allowed.contains(&Lint::UnusedAxis) {
        list.extend(manifest.unused_axes.iter().map(|(name, span)| {
            let title = format!("no stage uses the axis '{name}'");
            let help = match only_swept {
                true => "this sweep has no effect: the stages set this value themselves, or do not have it; sweep over the value of a stage: stages.NAME.KEY=VALUES".to_owned(),
                false => format!(
                    "write \"${{{name}}}\" in a value of a stage (for a shell: environment = {{ {} = \"${{{name}}}\" }}), or as the seed of the experiment",
                    variable_of(name)
                ),
            };
            Mistake::at(span.clone(), title).help(help).help(silence(Lint::UnusedAxis))
        }));
    }
    Warnings::new(manifest.sources.clone(), list)
}

/// The program of a stage, where it is one.
pub(crate) fn command_of(declaration: &Stage) -> Option<&Command> {
    match &declaration.stage {
        KindConfig::Prepare(PrepareStage::Command(command)) => Some(command),
        _ => None,
    }
}

/// The files in the manifest's folder that a command names in `run`, and not in `files`. `files` is what was found out before:
/// instances name the same.
fn undeclared_files(
    declaration: &Stage,
    folder: &Path,
    files: &mut HashMap<PathBuf, bool>,
) -> Vec<Mistake> {
    let Some(command) = command_of(declaration) else { return Vec::new() };
    let is_declared = |path: &Path| {
        command.files.iter().any(|file| plain(path).starts_with(plain(Path::new(file))))
    };
    let paths = command.local_arguments().into_iter();
    let mut is_file =
        |path: &str| *files.entry(folder.join(path)).or_insert_with_key(|whole| whole.is_file());
    let found = paths.filter(|(_, path)| !is_declared(Path::new(path)) && is_file(path));
    found
        .map(|(place, path)| {
            let title = format!("'{path}' is not in 'files', so an edit of it reruns nothing");
            Mistake::at(declaration.places.find("run", Some(place)), title)
                .help(format!("add it: files = [{path:?}]"))
                .help(silence(Lint::UndeclaredFile))
        })
        .collect()
}

/// The axes that a command names in `shell` as if they were put in there, and their fields.
fn axes_in_shell(manifest: &Manifest, declaration: &Stage, axes: &BTreeSet<&str>) -> Vec<Mistake> {
    let Some(command) = command_of(declaration) else { return Vec::new() };
    let Some(shell) = &command.shell else { return Vec::new() };
    let is_set = |variable: &str| {
        command.environment.contains_key(variable)
            || command.pass_environment.iter().any(|name| name == variable)
            || is_set_in(shell, variable)
    };
    let names = shell.split("${").skip(1).filter_map(|rest| Some(rest.split_once('}')?.0));
    let names: BTreeSet<&str> = names.collect();
    let mistakes = names.into_iter().filter_map(|name| {
        let axis = name.split_once('.').map_or(name, |(axis, _)| axis);
        let (variable, rest) =
            name.split_at(name.find(|letter| !is_in_name(letter)).unwrap_or(name.len()));
        let what = match rest.strip_prefix('-') {
            _ if !axes.contains(axis) => return None,
            // A dot: the shell cannot read this, whatever is set.
            None if !rest.is_empty() => "is an error".to_owned(),
            _ if !is_variable(variable) => "is an argument of the shell, or an error".to_owned(),
            _ if is_set(variable) => return None,
            None => "is a variable of the shell".to_owned(),
            Some(text) => format!("is the variable '{variable}', or else the text '{text}'"),
        };
        let title =
            format!("in a shell, '${{{name}}}' {what}, not the axis '{axis}' of the matrix");
        let mistake = Mistake::at(declaration.places.find("shell", None), title);
        let is_field = name != axis;
        let Some(name) = placeholder_of(manifest, name) else { return Some(mistake) };
        let handed = |variable: &str| {
            format!("hand it over: environment = {{ {variable} = \"${{{name}}}\" }}")
        };
        let variable = variable_of(name);
        let mut known = command.environment.keys().filter(|known| is_variable(known));
        let help = match known.find(|known| has_value(manifest, declaration, known, name)) {
            Some(known) => format!("write ${{{known}}}, which has this value"),
            None if is_field && command.environment.contains_key(&variable) => {
                format!("write ${{{variable}}}")
            }
            None if is_variable(name) && !TAKEN.contains(&name) => handed(name),
            None => format!("{}, and write ${{{variable}}} in the shell", handed(&variable)),
        };
        Some(mistake.help(help).help(silence(Lint::AxisInShell)))
    });
    mistakes.collect()
}

/// What a manifest replaces, of what a shell has between `${` and `}`: `m.rate` of `m.rate:-3`. `None` if the axis does not have such a
/// field, or one that cannot be in a text.
fn placeholder_of<'n>(manifest: &Manifest, name: &'n str) -> Option<&'n str> {
    let Some((axis, rest)) = name.split_once('.') else { return Some(name) };
    let is_in_field = |letter: char| is_in_name(letter) || letter == '-' || letter == '.';
    let field = rest.find(|letter| !is_in_field(letter)).map_or(rest, |end| &rest[..end]);
    let fields = manifest.placeholders.fields.get(axis)?;
    fields.contains(field).then(|| &name[..axis.len() + 1 + field.len()])
}

/// Whether a variable in the `environment` of a stage has the value of an axis, in all its instances.
fn has_value(manifest: &Manifest, declaration: &Stage, variable: &str, axis: &str) -> bool {
    let template = declaration.name.template();
    let mut instances = manifest.stages.iter().filter(|stage| stage.name.template() == template);
    instances.all(|stage| {
        let value = command_of(stage).and_then(|command| command.environment.get(variable));
        value.is_some_and(|value| stage.name.point().any(|point| point == (axis, value)))
    })
}

/// Variables that have a meaning for programs or the shell.
const TAKEN: [&str; 28] = [
    "BASH_ENV",
    "COLUMNS",
    "DISPLAY",
    "EDITOR",
    "ENV",
    "HOME",
    "HOSTNAME",
    "IFS",
    "LANG",
    "LD_LIBRARY_PATH",
    "LINES",
    "LOGNAME",
    "MAIL",
    "OPTIND",
    "PAGER",
    "PATH",
    "PPID",
    "PWD",
    "PYTHONPATH",
    "RANDOM",
    "SECONDS",
    "SHELL",
    "TERM",
    "TMPDIR",
    "TZ",
    "UID",
    "USER",
    "_",
];

/// The name of an environment variable for an axis: `LEARNING_RATE`. `AXIS_PATH` where the shorter one has another meaning, or is not
/// the name of a variable.
fn variable_of(axis: &str) -> String {
    let name = axis.to_uppercase().replace(|letter| !is_in_name(letter), "_");
    match is_variable(&name) && !TAKEN.contains(&name.as_str()) {
        true => name,
        false => format!("AXIS_{name}"),
    }
}

/// Whether a shell can have a variable of this name.
fn is_variable(name: &str) -> bool {
    name.chars().all(is_in_name)
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && !name.is_empty()
}

/// Whether a letter can be in the name of a variable.
fn is_in_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

/// Whether a text for a shell seems to give a variable a value itself: `NAME=`, but not with its own value, `for NAME`, `select NAME`,
/// `-v NAME`, `${NAME:=...}`, or NAME anywhere beside a command that reads into variables. A guess: no warning is better than a wrong
/// one.
fn is_set_in(shell: &str, variable: &str) -> bool {
    let between = |letter: char| letter.is_whitespace() || ";&|()`".contains(letter);
    let words: Vec<&str> =
        shell.split(between).map(|word| word.trim_matches(['"', '\''])).collect();
    let names_itself = |value: &str| {
        let name = value.trim_matches('"').strip_prefix('$');
        name.is_some_and(|name| name == variable || name == format!("{{{variable}}}"))
    };
    let assigns = words.iter().any(|word| {
        let value = word.strip_prefix(variable).and_then(|rest| rest.strip_prefix('='));
        value.is_some_and(|value| !names_itself(value))
    });
    let follows = ["for", "select", "-v"]
        .iter()
        .any(|before| words.windows(2).any(|pair| pair == [*before, variable]));
    let reads = ["read", "mapfile", "readarray", "getopts"].iter().any(|word| words.contains(word));
    let is_default = [":=", "="].iter().any(|sign| shell.contains(&format!("${{{variable}{sign}")));
    assigns || follows || is_default || (reads && words.contains(&variable))
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
            ("shell = 'learning=1; echo ${learning-rate}'", 0),
            ("shell = 'echo ${seed:-3} ${seed}'", 1),
            ("shell = 'echo ${seed:?} ${seed}'", 1),
            ("shell = 'echo ${seed=3} ${seed}'", 0),
            ("shell = 'seed=$seed python train.py ${seed}'", 1),
            ("shell = 'seed=$seed_file; echo ${seed}'", 0),
            ("shell = 'seed=${seed:-3}; echo ${seed}'", 0),
            ("shell = 'seed=${X:-$seed}; echo ${seed}'", 0),
            ("shell = 'seed=${X:-${seed}}; echo ${seed}'", 0),
            ("shell = 'seed=\"$seed\" python train.py ${seed}'", 1),
            ("shell = 'seed=\"${seed}\" python train.py'", 1),
            ("shell = 'export \"seed=3\"; echo ${seed}'", 0),
            ("shell = 'select seed in 1 2; do echo ${seed}; done'", 0),
            ("shell = 'mapfile -t \"seed\" < file; echo ${seed}'", 0),
            ("shell = 'while getopts s seed; do echo ${seed}; done'", 0),
            ("shell = 'echo ${m.rate}'\nenvironment = { m = '1' }", 1),
            ("shell = 'echo ${n.rate} ${m%.*} ${m.rate'", 0),
            ("shell = 'echo ${2nd}'", 1),
            ("with = ['texts']", 1),
            ("shell = 'for seed in 1 2; do echo ${seed}; done'", 0),
            ("shell = 'echo ${seed}'\nenvironment = { seed = '${seed}' }", 0),
            ("shell = 'echo ${seed}'\n[lint]\nallow = ['axis-in-shell']", 0),
        ] {
            let shown = of_matrix(stage);
            assert_eq!(shown.matches("not the axis").count(), expected, "{stage}\n{shown}");
        }
    }

    #[test]
    fn what_a_shell_takes_an_axis_for() {
        for (stage, title, help) in [
            (
                "shell = 'echo ${seed}'",
                "'${seed}' is a variable of the shell, not the axis 'seed' of the matrix",
                "hand it over: environment = { seed = \"${seed}\" }\n",
            ),
            (
                "shell = 'echo ${seed}'\nenvironment = { X = '1', NUMBER = '${seed}' }",
                "'${seed}' is a variable of the shell, not",
                "write ${NUMBER}, which has this value\n",
            ),
            (
                "shell = 'echo ${learning-rate}'",
                "'${learning-rate}' is the variable 'learning', or else the text 'rate', not",
                "environment = { LEARNING_RATE = \"${learning-rate}\" }, and write ${LEARNING_RATE} in the shell\n",
            ),
            (
                "shell = 'echo ${learning-rate}'\nenvironment = { learning-rate = '${learning-rate}' }",
                "'${learning-rate}' is the variable",
                "and write ${LEARNING_RATE} in the shell\n",
            ),
            (
                "shell = 'echo ${m.rate}'",
                "'${m.rate}' is an error, not the axis 'm' of the matrix",
                "environment = { M_RATE = \"${m.rate}\" }, and write ${M_RATE} in the shell\n",
            ),
            (
                "shell = 'echo ${m.rate:-3}'",
                "'${m.rate:-3}' is an error, not the axis 'm' of the matrix",
                "environment = { M_RATE = \"${m.rate}\" }, and write ${M_RATE} in the shell\n",
            ),
            (
                "shell = 'echo ${m.rate}'\nenvironment = { M_RATE = '${m.rate}' }",
                "'${m.rate}' is an error, not",
                "= help: write ${M_RATE}\n",
            ),
            (
                "shell = 'echo ${PATH}'",
                "'${PATH}' is a variable of the shell, not the axis 'PATH' of the matrix",
                "environment = { AXIS_PATH = \"${PATH}\" }, and write ${AXIS_PATH} in the shell\n",
            ),
            (
                "shell = 'echo ${2nd}'",
                "'${2nd}' is an argument of the shell, or an error, not the axis '2nd' of the matrix",
                "environment = { AXIS_2ND = \"${2nd}\" }, and write ${AXIS_2ND} in the shell\n",
            ),
        ] {
            let shown = of_matrix(stage);
            assert!(shown.contains(title) && shown.contains(help), "{shown}");
        }
    }

    #[test]
    fn what_a_manifest_does_not_replace_is_not_proposed() {
        for name in ["m.nofield", "m.", "m.list", "m.rate-3", "m.:-3", "seed.x", "seed."] {
            let shown = of_matrix(&format!("shell = 'echo ${{{name}}}'"));
            assert!(shown.contains(&format!("'${{{name}}}' is an error, not the axis")), "{shown}");
            assert!(!shown.contains("help"), "{shown}");
        }
    }

    #[test]
    fn a_sweep_alone_replaces_nothing_but_its_own_value() {
        let shown = |sweep: &str, stages: &str| {
            let text = format!(
                "[experiment]\nname = 'x'\n[stages.a]\nkind = 'command'\nshell = 'true'\n{stages}"
            );
            let sweep = crate::manifest::Override::sweep(sweep).expect("a sweep");
            let (manifest, graph) = crate::manifest::parse(Path::new("x.toml"), &text, &[sweep])
                .unwrap_or_else(|mistakes| panic!("{}", mistakes.render(Colour::Never)));
            let selected: Vec<_> = graph.order().cloned().collect();
            warnings(&manifest, &selected).render(Colour::Never)
        };
        let reader = "environment = { epochs = '1' }\n[stages.b]\nkind = 'command'\ninputs = { a = 'a' }\nshell = 'echo ${epochs}'\n";
        assert_eq!(shown("stages.a.environment.epochs=\"1\",\"2\"", reader), "");
        let unused =
            shown("defaults.command.environment.E=\"1\",\"2\"", "environment = { E = '1' }\n");
        assert!(unused.contains("no stage uses the axis 'E'"), "{unused}");
        assert!(unused.contains("sweep over the value of a stage"), "{unused}");
        assert!(!unused.contains("${"), "{unused}");
    }

    #[test]
    fn an_unused_axis_does_not_become_a_variable_with_a_meaning() {
        for (axis, variable) in [
            ("learning-rate", "LEARNING_RATE"),
            ("path", "AXIS_PATH"),
            ("tmpdir", "AXIS_TMPDIR"),
            ("pythonpath", "AXIS_PYTHONPATH"),
            ("_", "AXIS__"),
            ("3d", "AXIS_3D"),
        ] {
            assert_eq!(variable_of(axis), variable);
        }
    }

    /// The warnings of a manifest with a matrix and this stage.
    fn of_matrix(stage: &str) -> String {
        let text = format!(
            "[experiment]\nname = 'x'\n[matrix]\nseed = [1, 2]\nlearning-rate = [1, 2]\n2nd = [1, 2]\nPATH = [1, 2]\nm = {{ a = {{ rate = 1, list = ['true'] }}, b = {{ rate = 2, list = ['true'] }} }}\ntexts = {{ a = {{ shell = 'true' }}, b = {{ shell = 'echo ${{seed}}' }} }}\n[stages.b]\nkind = 'command'\nshell = 'true'\nenvironment = {{ SEED = '${{seed}}', RATE = '${{learning-rate}}', A = '${{2nd}}', B = '${{m.rate}}', D = '${{PATH}}', C = '${{texts.shell}}' }}\n[stages.c]\nkind = 'command'\nrun = '${{m.list}}'\n[stages.a]\nkind = 'command'\n{stage}\n"
        );
        let (manifest, graph) = crate::manifest::parse(Path::new("x.toml"), &text, &[])
            .unwrap_or_else(|mistakes| panic!("{}", mistakes.render(Colour::Never)));
        let selected: Vec<_> = graph.order().cloned().collect();
        warnings(&manifest, &selected).render(Colour::Never)
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
