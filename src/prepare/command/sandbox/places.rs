//! What a stage may use on this machine: what it declares, what every program needs, and what its interpreter does.
//!
//! Looks at the file system, and changes nothing.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::interpreter;
use super::policy::{Access, Policy};

/// What every program may read: itself, libraries, locales, certificates, what the system says of itself.
const SYSTEM: [&str; 20] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc",
    "/opt",
    "/sys",
    "/snap",
    "/nix/store",
    "/gnu/store",
    "/run/current-system",
    "/run/opengl-driver",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager",
    "/var/cache/fontconfig",
    "/var/lib/ca-certificates",
];

/// What every program may read and write: processes (which the system protects), devices without content, shared memory,
/// and the devices of GPUs and fast networks.
const DEVICES: [&str; 15] = [
    "/proc",
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/ptmx",
    "/dev/pts",
    "/dev/shm",
    "/dev/dri",
    "/dev/kfd",
    "/dev/dxg",
    "/dev/accel",
    "/dev/infiniband",
];

/// What a stage declares. All paths are absolute.
#[derive(Debug, Clone, Default)]
pub(super) struct Declared {
    /// The folder of the manifest, where the program starts.
    pub(super) folder: PathBuf,
    /// The home folder of the user.
    pub(super) home: Option<PathBuf>,
    /// The folders of its inputs.
    pub(super) inputs: Vec<PathBuf>,
    /// Its files and folders, whose content is in its key.
    pub(super) files: Vec<PathBuf>,
    /// What it may read too.
    pub(super) read: Vec<PathBuf>,
    /// Its output and checkpoint, its folder for temporary files, and what it may write too.
    pub(super) write: Vec<PathBuf>,
    /// The folders in PATH.
    pub(super) search_path: Vec<PathBuf>,
    /// The folders in LD_LIBRARY_PATH.
    pub(super) library_path: Vec<PathBuf>,
}

/// What a stage may use that runs this program. What does not exist is left out: it cannot be read, and Landlock has no rule for it.
pub(super) fn policy(declared: &Declared, program: &Path) -> Policy {
    let mut policy = Policy::default();
    let mut allow = |access, path: &Path| {
        if let Ok(real) = path.canonicalize() {
            policy.allow(access, real);
        }
    };
    SYSTEM.iter().for_each(|path| allow(Access::Read, Path::new(path)));
    DEVICES.iter().for_each(|path| allow(Access::Write, Path::new(path)));
    allow(Access::List, Path::new("/dev"));
    gpus().iter().for_each(|path| allow(Access::Write, path));

    for path in interpreter::needed_by(program, &declared.search_path) {
        allow(Access::Read, &path);
    }
    for folder in declared.search_path.iter().filter(|folder| is_of_programs(folder, declared)) {
        allow(Access::Read, folder);
        // A line for a shell can start any of them; of these, Python needs more than its file.
        for python in ["python3", "python"] {
            for path in interpreter::needed_by(&folder.join(python), &[]) {
                allow(Access::Read, &path);
            }
        }
    }
    for folder in declared.library_path.iter().filter(|folder| is_of_programs(folder, declared)) {
        allow(Access::Read, folder);
    }

    // Programs list the folder that they start in, and Python that of a script, to find modules beside it.
    allow(Access::List, &declared.folder);
    for file in &declared.files {
        allow(Access::Read, file);
        allow(Access::List, file.parent().unwrap_or(file));
        link_targets(file).iter().for_each(|target| allow(Access::Read, target));
    }
    declared.inputs.iter().chain(&declared.read).for_each(|path| allow(Access::Read, path));
    declared.write.iter().for_each(|path| allow(Access::Write, path));
    policy
}

/// Whether a folder of PATH has programs and nothing else: it is absolute, and does not hold the files of a user or of
/// the manifest.
fn is_of_programs(folder: &Path, declared: &Declared) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let folder_itself = real(folder);
    let holds = |path: &Path| real(path).starts_with(&folder_itself);
    folder.is_absolute() && !holds(&declared.folder) && !declared.home.as_deref().is_some_and(holds)
}

/// The devices of NVIDIA's GPUs.
fn gpus() -> Vec<PathBuf> {
    let entries = Path::new("/dev").read_dir().into_iter().flatten().flatten();
    let is_gpu = |name: &OsStr| name.as_encoded_bytes().starts_with(b"nvidia");
    entries.filter(|entry| is_gpu(&entry.file_name())).map(|entry| entry.path()).collect()
}

/// Where the links in a folder lead: what is there is among its files, as it is in its digest.
fn link_targets(folder: &Path) -> Vec<PathBuf> {
    let mut targets = Vec::new();
    let mut visited = HashSet::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        let Ok(real) = folder.canonicalize() else { continue };
        if !visited.insert(real.clone()) {
            continue;
        }
        for entry in real.read_dir().into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                Ok(kind) if kind.is_symlink() => {
                    if entry.path().is_dir() {
                        open.push(entry.path());
                    }
                    targets.push(entry.path());
                }
                _ => {}
            }
        }
    }
    targets
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_a_stage_may_use() {
        let top = tempfile::tempdir().expect("a folder");
        let top = top.path().canonicalize().expect("it exists");
        let path = |name: &str| top.join(name);
        for folder in ["home/bin", "exp/src/deep", "exp/bin", "store/aa", "out", "else/inner"] {
            fs::create_dir_all(path(folder)).expect("a folder");
        }
        for file in [
            "exp/train.py",
            "exp/data.csv",
            "exp/src/a.py",
            "home/bin/tool",
            "else/b",
            "else/inner/c",
        ] {
            fs::write(path(file), "").expect("a file");
        }
        symlink(path("else/inner"), path("exp/src/link")).expect("a link");
        symlink(path("exp/src"), path("exp/src/deep/circle")).expect("a link");
        let declared = Declared {
            folder: path("exp"),
            home: Some(path("home")),
            inputs: vec![path("store/aa")],
            files: vec![path("exp/train.py"), path("exp/src"), path("exp/missing")],
            read: vec![],
            write: vec![path("out")],
            search_path: vec![
                path("home/bin"),
                path("exp"),
                path("home"),
                "bin".into(),
                "/".into(),
            ],
            library_path: vec![],
        };
        let policy = policy(&declared, &path("home/bin/tool"));
        for (access, name, expected) in [
            (Access::Read, "exp/train.py", true),
            (Access::Read, "exp/src/a.py", true),
            (Access::Read, "exp/data.csv", false),
            (Access::List, "exp", true),
            (Access::List, "home", false),
            (Access::Read, "else/inner/c", true),
            (Access::Read, "else/b", false),
            (Access::Read, "home/bin/tool", true),
            (Access::Read, "home/.profile", false),
            (Access::Read, "store/aa/x", true),
            (Access::Write, "store/aa/x", false),
            (Access::Write, "out/x", true),
            (Access::Write, "exp/x", false),
        ] {
            assert_eq!(policy.allows(access, &path(name)), expected, "{access:?} {name}");
        }
        assert!(
            policy
                .allows(Access::Read, &Path::new("/etc/passwd").canonicalize().expect("it exists"))
        );
        assert!(policy.allows(Access::Write, Path::new("/dev/null")));
        assert!(!policy.allows(Access::Write, Path::new("/etc/passwd")));
    }
}
