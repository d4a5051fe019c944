//! Variables of the environment that a program may have failed for want of: it sees only those that its stage names.

use crate::lint::command_of;
use crate::manifest::Stage;

/// Variables, and what programs say that miss what they name.
const VARIABLES: [(&str, &str); 2] = [
    ("PYTHONPATH", "ModuleNotFoundError: "),
    ("LD_LIBRARY_PATH", "cannot open shared object file"),
];

/// What to do about a variable that is set here, that the program of a stage did not see, and whose content it may have missed, by
/// the end of its log.
pub(super) fn hint(stage: &Stage, log: &[String], is_set: impl Fn(&str) -> bool) -> Option<String> {
    let command = command_of(stage)?;
    let sees = |name: &str| {
        command.environment.contains_key(name)
            || command.pass_environment.iter().any(|passed| passed == name)
    };
    let is_missed = |words: &str| log.iter().any(|line| line.contains(words));
    let (name, _) =
        VARIABLES.iter().find(|(name, words)| is_missed(words) && is_set(name) && !sees(name))?;
    Some(format!(
        "\n{name} is set here, but the program does not see it: pass-environment = [\"{name}\"]"
    ))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::manifest;

    #[test]
    fn a_variable_is_named_that_is_set_missed_and_not_passed() {
        let hint = |more: &str, line: &str, set: &str| {
            let text = format!(
                "[experiment]\nname = 'a'\n[stages.a]\nkind = 'command'\nrun = ['python3']\n{more}"
            );
            let (manifest, _) = manifest::parse(Path::new("test.toml"), &text, &[]).expect("right");
            hint(&manifest.stages[0], &["Traceback".to_owned(), line.to_owned()], |name| {
                name == set
            })
        };
        let missing = "ModuleNotFoundError: No module named 'torch'";
        let found = hint("", missing, "PYTHONPATH").expect("a hint");
        assert!(found.ends_with("pass-environment = [\"PYTHONPATH\"]"), "{found}");
        let library =
            "a: error while loading shared libraries: b.so: cannot open shared object file";
        assert!(hint("", library, "LD_LIBRARY_PATH").is_some());
        for (more, line, set) in [
            ("", missing, "LD_LIBRARY_PATH"),
            ("", "KeyError: 'torch'", "PYTHONPATH"),
            ("pass-environment = ['PYTHONPATH']", missing, "PYTHONPATH"),
            ("environment = { PYTHONPATH = '/a' }", missing, "PYTHONPATH"),
        ] {
            assert_eq!(hint(more, line, set), None, "{more} {line} {set}");
        }
    }
}
