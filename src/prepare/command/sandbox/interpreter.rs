//! What a program needs around it: the interpreter of a script, and the environment that a Python belongs to.
//!
//! Does not depend on stages.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// How many interpreters of interpreters the kernel follows.
const DEEPEST: usize = 5;

/// How many links are followed from a program to its file.
const MOST_LINKS: usize = 40;

/// A program, the interpreter of its first line, the interpreter of that, and so on.
pub(super) fn chain(program: &Path) -> Vec<PathBuf> {
    let mut chain = vec![program.to_owned()];
    while let Some((interpreter, _)) = chain.last().and_then(|last| first_line(last)) {
        if chain.len() > DEEPEST || !interpreter.is_absolute() {
            break;
        }
        chain.push(interpreter);
    }
    chain
}

/// The program and its argument in the first line (`#!`) of a script.
fn first_line(script: &Path) -> Option<(PathBuf, Option<OsString>)> {
    // A named pipe would wait for a writer.
    if !script.metadata().ok()?.is_file() {
        return None;
    }
    let mut beginning = Vec::new();
    File::open(script).and_then(|file| file.take(256).read_to_end(&mut beginning)).ok()?;
    let line = beginning.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    let line = line.trim_ascii();
    let space = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
    let (interpreter, argument) = line.split_at(space);
    let argument = Some(argument.trim_ascii()).filter(|argument| !argument.is_empty());
    let text = |bytes| OsStr::from_bytes(bytes).to_owned();
    (!interpreter.is_empty()).then(|| (text(interpreter).into(), argument.map(text)))
}

/// What a program needs to start: its files, those of its interpreters, and the environments that these belong to.
/// `search_path` is for a first line with `env`.
pub(super) fn needed_by(program: &Path, search_path: &[PathBuf]) -> Vec<PathBuf> {
    let mut needed = Vec::new();
    let mut next = Some(program.to_owned());
    for _ in 0..DEEPEST {
        let Some(program) = next.take() else { break };
        for step in steps(&program) {
            needed.extend(environment(&step));
            needed.push(step);
        }
        next = first_line(&program).and_then(|(interpreter, argument)| {
            if interpreter.file_name() != Some(OsStr::new("env")) {
                return Some(interpreter);
            }
            needed.push(interpreter);
            let words = argument?;
            let words = words.to_string_lossy();
            let is_name = |word: &&str| !word.starts_with('-') && !word.contains('=');
            let name = words.split_whitespace().find(is_name)?.to_owned();
            search_path.iter().map(|folder| folder.join(&name)).find(|path| path.is_file())
        });
    }
    needed
}

/// A program, and every file that links lead to from it.
fn steps(program: &Path) -> Vec<PathBuf> {
    let mut steps = vec![program.to_owned()];
    while let Some(last) = steps.last().filter(|_| steps.len() < MOST_LINKS) {
        let Ok(target) = last.read_link() else { break };
        let target = last.parent().map_or_else(|| target.clone(), |folder| folder.join(&target));
        steps.push(target);
    }
    steps
}

/// The environments that a program belongs to, by its folder: a virtual environment (`pyvenv.cfg`) with the Python that it
/// was made from, one of conda, the folder that a Python is installed in, or that of pyenv or another tool whose programs are
/// in `shims`.
pub(super) fn environment(program: &Path) -> Vec<PathBuf> {
    let Some(folder) = program.parent() else { return Vec::new() };
    let Some(prefix) = folder.parent().filter(|prefix| prefix.parent().is_some()) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for around in [folder, prefix] {
        if let Ok(text) = std::fs::read_to_string(around.join("pyvenv.cfg")) {
            found.push(around.to_owned());
            let home = home_of(&text).map(PathBuf::from).filter(|home| home.is_absolute());
            // What it was made from has no file of this kind itself, or the search ends there.
            found.extend(home.iter().flat_map(|home| installation(home)));
        }
    }
    found.extend(installation(folder));
    found.extend((folder.file_name() == Some(OsStr::new("shims"))).then(|| prefix.to_owned()));
    found
}

/// The value of `home` in a `pyvenv.cfg`: the folder with the Python that it was made from.
fn home_of(text: &str) -> Option<&str> {
    let entries = text.lines().filter_map(|line| line.split_once('='));
    entries
        .map(|(key, value)| (key.trim(), value.trim()))
        .find(|(key, _)| *key == "home")
        .map(|(_, home)| home)
}

/// The installation whose programs are in a folder, if it is one of conda or of Python. Python itself finds its own by the
/// same file.
fn installation(folder: &Path) -> Option<PathBuf> {
    let folder = folder.canonicalize().ok()?;
    let prefix = folder.parent().filter(|prefix| prefix.parent().is_some())?;
    let is_python = || {
        let entries = prefix.join("lib").read_dir().into_iter().flatten().flatten();
        let mut libraries =
            entries.filter(|entry| entry.file_name().as_bytes().starts_with(b"python"));
        libraries.any(|entry| entry.path().join("os.py").is_file())
    };
    (prefix.join("conda-meta").is_dir() || is_python()).then(|| prefix.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_a_python_needs() {
        let top = tempfile::tempdir().expect("a folder");
        let path = |name: &str| top.path().join(name);
        let write = |name: &str, text: &str| {
            fs::create_dir_all(path(name).parent().expect("a folder")).expect("a folder");
            fs::write(path(name), text).expect("a file");
        };
        write("base/bin/python3.12", "");
        write("base/lib/python3.12/os.py", "");
        write(
            "venv/pyvenv.cfg",
            &format!("home = {}\nversion = 3.12\n", path("base/bin").display()),
        );
        fs::create_dir(path("venv/bin")).expect("a folder");
        symlink(path("base/bin/python3.12"), path("venv/bin/python3")).expect("a link");
        symlink("python3", path("venv/bin/python")).expect("a link");
        write("venv/bin/torchrun", &format!("#!{}\n", path("venv/bin/python").display()));
        write("conda/conda-meta/history", "");
        write("conda/bin/python", "");
        write("pyenv/shims/python3", "#!/usr/bin/env bash\n");
        write("user/bin/tool", "#!/usr/bin/env -S python3 -u\n");
        write("user/lib/python3.12/site-packages/x.py", "");
        write("plain/bin/tool", "\x7fELF");

        let venv = ["venv", "base"];
        for (program, environments, others) in [
            ("venv/bin/python", &venv as &[_], &["plain", "conda"] as &[_]),
            ("venv/bin/torchrun", &venv, &["plain"]),
            ("conda/bin/python", &["conda"], &["venv"]),
            ("pyenv/shims/python3", &["pyenv"], &["venv"]),
            ("user/bin/tool", &venv, &["user", "user/lib"]),
            ("plain/bin/tool", &[], &["plain", "plain/bin"]),
        ] {
            let needed = needed_by(&path(program), &[path("plain/bin"), path("venv/bin")]);
            assert!(needed.contains(&path(program)), "{needed:?}");
            for environment in environments {
                assert!(needed.contains(&path(environment)), "{program} {environment} {needed:?}");
            }
            for other in others {
                assert!(!needed.contains(&path(other)), "{program} {other} {needed:?}");
            }
        }
    }

    #[test]
    fn a_chain_of_interpreters_ends() {
        let top = tempfile::tempdir().expect("a folder");
        let path = top.path().join("a");
        fs::write(&path, format!("#!{}\n", path.display())).expect("a file");
        assert!(chain(&path).len() <= DEEPEST + 2);
        assert!(needed_by(&path, &[]).len() <= DEEPEST + 1);
        assert_eq!(home_of("a = b\nhome = /x/bin \n"), Some("/x/bin"));
        assert_eq!(home_of("homes = /x"), None);
    }
}
