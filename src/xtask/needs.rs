//! What the machine must have before libtorch can be installed and built against, and the messages that name what to
//! install. Does not depend on libtorch's own files.

use crate::platform::{Glibc, LIBTORCH_VERSION};
use anyhow::{Context, Result, bail};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// A program that is missing or does not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// No `python3` on the PATH.
    Python,
    /// A `python3` without pip; holds its message.
    Pip(String),
    /// None of the usual C++ compilers on the PATH.
    Compiler,
    /// A C++ compiler that cannot compile; holds its command and its message.
    BrokenCompiler(String, String),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (debian, fedora) = match self {
            Self::Python => {
                writeln!(f, "python3 is not on your PATH; its pip installs libtorch. Install it:")?;
                ("sudo apt install python3 python3-pip", "sudo dnf install python3 python3-pip")
            }
            Self::Pip(said) => {
                writeln!(
                    f,
                    "your python3 has no pip, which installs libtorch ({said}). Install it:"
                )?;
                ("sudo apt install python3-pip", "sudo dnf install python3-pip")
            }
            Self::Compiler => {
                writeln!(f, "no C++ compiler: tried $CXX, c++, g++ and clang++. Install one:")?;
                ("sudo apt install g++", "sudo dnf install gcc-c++")
            }
            Self::BrokenCompiler(command, said) => {
                writeln!(f, "the C++ compiler `{command}` cannot compile a C++17 program:")?;
                for line in said.lines().take(4) {
                    writeln!(f, "    {line}")?;
                }
                writeln!(
                    f,
                    "If it lacks the standard library, install that (or set CXX to another compiler):"
                )?;
                ("sudo apt install g++", "sudo dnf install gcc-c++")
            }
        };
        write!(f, "    Debian, Ubuntu   {debian}\n    Fedora           {fedora}")?;
        match self {
            Self::Python | Self::Pip(_) => {
                write!(
                    f,
                    "\nOr set LIBTORCH to a libtorch {LIBTORCH_VERSION} that you have (docs/setup.md)."
                )
            }
            Self::Compiler | Self::BrokenCompiler(..) => Ok(()),
        }
    }
}

impl std::error::Error for Missing {}

/// A Python that has pip.
#[derive(Debug, Clone)]
pub struct Python {
    program: OsString,
}

impl Python {
    /// Looks for `python3` and its pip.
    ///
    /// # Errors
    /// If one of them is missing.
    pub fn find() -> Result<Self> {
        Self::at("python3".into())
    }

    /// Checks that a certain Python has pip.
    ///
    /// # Errors
    /// If it does not run, or does not have one.
    pub fn at(program: OsString) -> Result<Self> {
        let output = match Command::new(&program)
            .args(["-m", "pip", "--version"])
            .stdin(Stdio::null())
            .output()
        {
            Err(_) => bail!(Missing::Python),
            Ok(output) => output,
        };
        if !output.status.success() {
            bail!(Missing::Pip(
                last_line(&output.stderr).unwrap_or_else(|| output.status.to_string())
            ));
        }
        Ok(Self { program })
    }

    /// A `python3 -m pip` to which arguments can be added.
    pub fn pip(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["-m", "pip"]);
        command
    }
}

/// A C++ compiler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiler {
    /// The program, then arguments that always come first (`CXX="ccache g++"`).
    words: Vec<String>,
    /// Whether torch-sys finds it without CXX.
    pub found_by_cargo: bool,
}

impl Compiler {
    /// `$CXX` if it is set, else the first of c++, g++ and clang++ on the PATH.
    ///
    /// # Errors
    /// If there is none.
    pub fn find() -> Result<Self> {
        Self::choose(std::env::var("CXX").ok(), &std::env::var_os("PATH").unwrap_or_default())
    }

    fn choose(from_user: Option<String>, path: &OsStr) -> Result<Self> {
        let words: Vec<String> =
            from_user.iter().flat_map(|text| text.split_whitespace()).map(str::to_owned).collect();
        if let Some(program) = words.first() {
            return match on_path(program, path) {
                true => Ok(Self { words, found_by_cargo: true }),
                false => bail!(
                    "CXX is set to {program:?}, which does not exist. Unset CXX, or set it to a C++ compiler."
                ),
            };
        }
        match ["c++", "g++", "clang++"].into_iter().find(|program| on_path(program, path)) {
            Some(program) => {
                Ok(Self { words: vec![program.to_owned()], found_by_cargo: program == "c++" })
            }
            None => bail!(Missing::Compiler),
        }
    }

    /// The command as a user would type it.
    pub fn name(&self) -> String {
        self.words.join(" ")
    }

    /// The compiler as a process to which arguments can be added.
    pub fn command(&self) -> Command {
        let mut words = self.words.iter();
        let mut command = Command::new(words.next().map_or("c++", String::as_str));
        command.args(words);
        command
    }

    /// Compiles a small program: a compiler without a C++ standard library is found now, not after the download.
    ///
    /// # Errors
    /// If it fails, with the message of the compiler.
    pub fn check(&self) -> Result<()> {
        let mut child = self
            .command()
            .args(["-std=c++17", "-fsyntax-only", "-x", "c++", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("the C++ compiler `{}` does not start", self.name()))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A compiler that fails at once has closed its end; its message is in the output.
            let _ = stdin.write_all(
                b"#include <optional>\n#include <string>\nstd::optional<std::string> probe;\n",
            );
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            bail!(Missing::BrokenCompiler(self.name(), said));
        }
        Ok(())
    }
}

fn on_path(program: &str, path: &OsStr) -> bool {
    if program.contains('/') {
        return is_program(Path::new(program));
    }
    std::env::split_paths(path).any(|folder| is_program(&folder.join(program)))
}

fn is_program(file: &Path) -> bool {
    file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok()
}

/// The last line of a program's output that is not blank.
pub fn last_line(output: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(output);
    text.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}

/// Checks that the machine's glibc is not too old for the wheels. Passes if its version cannot be found out.
///
/// # Errors
/// If it is.
pub fn check_glibc(oldest: Option<Glibc>) -> Result<()> {
    let Some(oldest) = oldest else { return Ok(()) };
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").stdin(Stdio::null()).output();
    let found =
        output.ok().and_then(|output| parse_glibc(&String::from_utf8_lossy(&output.stdout)));
    match found {
        Some(found) if found < oldest => bail!(
            "this system's glibc is {found}, and the ready-made libtorch needs {oldest} or newer \
             (Debian 10, Ubuntu 20.04, RHEL 8)\n\
             Use a newer system or container, or set LIBTORCH to a libtorch {LIBTORCH_VERSION} built for this one."
        ),
        _ => Ok(()),
    }
}

fn parse_glibc(text: &str) -> Option<Glibc> {
    let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    let minor = minor.split('.').next()?;
    Some(Glibc(major.parse().ok()?, minor.parse().ok()?))
}

/// Checks that a folder's file system has room.
///
/// # Errors
/// If it does not, with both numbers.
pub fn check_space(folder: &Path, bytes: u64) -> Result<()> {
    let system = rustix::fs::statvfs(folder)
        .with_context(|| format!("cannot ask {} for free space", folder.display()))?;
    let free = system.f_bavail.saturating_mul(system.f_frsize);
    if free < bytes {
        bail!(
            "not enough free space in {}: libtorch needs {} for a moment, and {} are free\n\
             Free some, or set LIBTORCH to a libtorch {LIBTORCH_VERSION} elsewhere.",
            folder.display(),
            megabytes(bytes),
            megabytes(free)
        );
    }
    Ok(())
}

/// A size for people, in units of a million bytes.
pub fn megabytes(bytes: u64) -> String {
    let rounded = bytes / 1_000_000 + u64::from(bytes % 1_000_000 >= 500_000);
    format!("{rounded} MB")
}

/// Removes a file, a link or a folder with all that is in it, if it exists.
///
/// # Errors
/// If it cannot be removed.
pub fn remove(path: &Path) -> Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(data) if data.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    removed.with_context(|| format!("cannot remove {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{alone, program};

    #[test]
    fn every_missing_program_names_what_to_install() {
        for missing in [
            Missing::Python,
            Missing::Pip("No module named pip".into()),
            Missing::Compiler,
            Missing::BrokenCompiler(
                "clang++".into(),
                "fatal error: 'optional' file not found".into(),
            ),
        ] {
            let text = missing.to_string();
            for word in ["sudo apt install ", "sudo dnf install "] {
                assert!(text.contains(word), "{missing:?} lacks {word}: {text}");
            }
        }
    }

    #[test]
    fn a_python_without_pip_is_another_error_than_no_python() {
        let _alone = alone();
        let folder = tempfile::tempdir().unwrap();
        program(
            &folder.path().join("python3"),
            "echo '/usr/bin/python3: No module named pip' >&2; exit 1",
        );
        let error = Python::at(folder.path().join("python3").into()).unwrap_err();
        assert_eq!(
            error.downcast_ref::<Missing>(),
            Some(&Missing::Pip("/usr/bin/python3: No module named pip".into()))
        );
        let error = Python::at(folder.path().join("absent").into()).unwrap_err();
        assert_eq!(error.downcast_ref::<Missing>(), Some(&Missing::Python));
    }

    #[test]
    fn the_compiler_is_the_users_or_the_first_usual_one() {
        let _alone = alone();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().as_os_str();
        assert_eq!(
            Compiler::choose(None, path).unwrap_err().downcast_ref::<Missing>(),
            Some(&Missing::Compiler)
        );
        program(&folder.path().join("clang++"), "");
        let clang = Compiler::choose(None, path).unwrap();
        assert_eq!((clang.name().as_str(), clang.found_by_cargo), ("clang++", false));
        program(&folder.path().join("c++"), "");
        assert!(Compiler::choose(None, path).unwrap().found_by_cargo);
        assert_eq!(Compiler::choose(Some("clang++ -v".into()), path).unwrap().name(), "clang++ -v");
        // An empty CXX is one that is not set.
        assert_eq!(Compiler::choose(Some(String::new()), path).unwrap().name(), "c++");
        let message = Compiler::choose(Some("icpc".into()), path).unwrap_err().to_string();
        assert!(message.contains("\"icpc\"") && message.contains("CXX"), "{message}");
    }

    #[test]
    fn a_compiler_that_fails_is_quoted() {
        let _alone = alone();
        let folder = tempfile::tempdir().unwrap();
        program(
            &folder.path().join("c++"),
            "cat > /dev/null; echo \"fatal error: 'optional' file not found\" >&2; exit 1",
        );
        let name = folder.path().join("c++").display().to_string();
        let compiler = Compiler::choose(Some(name), OsStr::new("")).unwrap();
        let message = compiler.check().unwrap_err().to_string();
        assert!(
            message.contains("'optional' file not found")
                && message.contains("sudo apt install g++"),
            "{message}"
        );
    }

    #[test]
    fn glibc_versions_compare_as_numbers() {
        let _alone = alone();
        assert_eq!(parse_glibc("glibc 2.36\n"), Some(Glibc(2, 36)));
        assert_eq!(parse_glibc("glibc 2.5.1"), Some(Glibc(2, 5)));
        assert_eq!(parse_glibc("musl"), None);
        assert!(Glibc(2, 5) < Glibc(2, 28));
        check_glibc(None).unwrap();
        check_glibc(Some(Glibc(2, 0))).unwrap();
        assert!(!cfg!(target_env = "gnu") || check_glibc(Some(Glibc(99, 0))).is_err());
    }

    #[test]
    fn the_error_of_a_full_disk_has_both_numbers() {
        let folder = tempfile::tempdir().unwrap();
        check_space(folder.path(), 1).unwrap();
        let message = check_space(folder.path(), u64::MAX).unwrap_err().to_string();
        assert!(
            message.starts_with("not enough free space in ")
                && message.contains("18446744073710 MB"),
            "{message}"
        );
    }
}
