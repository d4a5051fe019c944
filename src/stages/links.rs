//! Links on the way to a file.

use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

/// The number of links that Linux follows before it reports a loop.
const MOST_HOPS: usize = 40;
/// The longest name of a file, in bytes.
const LONGEST_NAME: usize = 255;

/// The last link on the way to a folder that was found to contain itself; where there is none (a folder that is mounted in itself), the
/// folder.
pub fn last_link(path: &Path) -> &Path {
    path.ancestors().find(|above| above.is_symlink()).unwrap_or(path)
}

/// Whether a link stays in its folder on the way to its end, through other links: `false` if a step leads above the folder or to an
/// absolute path, or if there are too many links, as in a loop. What does not exist is followed by its name.
///
/// `path` is where the link is, and `link_at` is what a link leads to, if there is one; both below the folder.
///
/// # Errors
/// Those of `link_at`.
pub fn stays_inside(
    path: &Path,
    target: &Path,
    mut link_at: impl FnMut(&Path) -> std::io::Result<Option<PathBuf>>,
) -> std::io::Result<bool> {
    // The folder that the link is in can be behind links, too.
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut place = PathBuf::new();
    let mut ahead: Vec<Step> = steps(target).chain(steps(folder)).collect();
    let mut hops = 0;
    while let Some(step) = ahead.pop() {
        match step {
            Step::Root => return Ok(false),
            Step::Up => {
                if !place.pop() {
                    return Ok(false);
                }
            }
            Step::Down(name) => {
                place.push(name);
                if let Some(next) = link_at(&place)? {
                    hops += 1;
                    if hops > MOST_HOPS {
                        return Ok(false);
                    }
                    place.pop();
                    ahead.extend(steps(&next));
                }
            }
        }
    }
    Ok(true)
}

/// What is passed on the way to a file or folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// The links. The folders of their paths are not links.
    pub links: Vec<PathBuf>,
    /// Folders that are left again by `..` and do not exist.
    pub missing: Vec<PathBuf>,
    /// Where it leads to: a path without links, whether it exists or not, or one of the links where they are a loop.
    pub end: PathBuf,
}

impl Way {
    /// The way to an absolute path, as far as it can be seen.
    pub fn to(path: &Path) -> Self {
        let (mut links, mut missing, mut end) = (Vec::new(), Vec::new(), PathBuf::new());
        let mut ahead: Vec<Step> = steps(path).collect();
        while let Some(step) = ahead.pop() {
            match step {
                Step::Root => end = Path::new("/").to_owned(),
                Step::Up => {
                    if !end.is_dir() {
                        missing.push(end.clone());
                    }
                    end.pop();
                }
                Step::Down(name) => {
                    end.push(name);
                    if let Ok(Some(next)) = read_if_link(&end) {
                        links.push(end.clone());
                        if links.len() > MOST_HOPS {
                            break;
                        }
                        end.pop();
                        ahead.extend(steps(&next));
                    }
                }
            }
        }
        Self { links, missing, end }
    }
}

/// What a link on the disk leads to. `None` for anything else, and for what does not exist.
///
/// # Errors
/// When that cannot be found out.
pub fn read_if_link(path: &Path) -> std::io::Result<Option<PathBuf>> {
    match path.read_link() {
        Ok(target) => Ok(Some(target)),
        Err(error) => match error.kind() {
            ErrorKind::InvalidInput | ErrorKind::NotFound | ErrorKind::NotADirectory => Ok(None),
            // No file can have such a name. A path that is too long as a whole may lead to a link.
            ErrorKind::InvalidFilename
                if path.iter().any(|name| name.as_encoded_bytes().len() > LONGEST_NAME) =>
            {
                Ok(None)
            }
            _ => Err(error),
        },
    }
}

/// A part of a path.
enum Step {
    Root,
    Up,
    Down(OsString),
}

/// The parts of a path, the last one first.
fn steps(path: &Path) -> impl Iterator<Item = Step> {
    path.components().rev().filter_map(|part| match part {
        Component::CurDir => None,
        Component::ParentDir => Some(Step::Up),
        Component::Normal(name) => Some(Step::Down(OsStr::to_owned(name))),
        Component::RootDir | Component::Prefix(_) => Some(Step::Root),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_link_is_named_and_not_what_is_behind_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let class = folder.path().join("train/cat");
        std::fs::create_dir_all(&class).expect("a folder");
        symlink("..", class.join("up")).expect("a link");
        assert_eq!(last_link(&class.join("up/cat")), class.join("up"));
        assert_eq!(last_link(&class), class);
    }

    #[test]
    fn a_link_is_followed_through_others() {
        let links = [
            ("p/q/up", "../.."),
            ("folder", "p/q"),
            ("one", "two"),
            ("two", "one"),
            ("self", "self/a"),
            ("root", "/"),
        ];
        let link_at = |place: &Path| {
            let found = links.iter().find(|(path, _)| Path::new(path) == place);
            Ok(found.map(|(_, target)| PathBuf::from(target)))
        };
        for (path, target, stays) in [
            ("x", "p/q/file", true),
            ("p/x", "../p/./q//missing", true),
            ("p/q/x", "../..", true),
            ("x", "missing/../p", true),
            ("x", "..", false),
            ("p/x", "../../p/x", false),
            ("x", "/p", false),
            ("x", "root/p", false),
            ("x", "p/q/up", true),
            ("x", "p/q/up/p/q/up", true),
            // By the names alone, it stays.
            ("x", "p/q/up/../../../secret", false),
            ("p/x", "q/up/../secret", false),
            ("x", "folder/up/..", false),
            ("folder/x", "../../p", true),
            ("folder/x", "../../../p", false),
            ("one", "two", false),
            ("self", "self/a", false),
        ] {
            let found = stays_inside(Path::new(path), Path::new(target), link_at);
            assert_eq!(found.ok(), Some(stays), "{path} {target}");
        }
        let broken = |_: &Path| Err(ErrorKind::PermissionDenied.into());
        assert!(stays_inside(Path::new("x"), Path::new("a"), broken).is_err());
    }

    #[test]
    fn every_link_on_the_way_is_passed() {
        let top = tempfile::tempdir().expect("a folder");
        let top = top.path().canonicalize().expect("it exists");
        let at = |name: &str| top.join(name);
        for folder in ["p/q", "o"] {
            std::fs::create_dir_all(at(folder)).expect("a folder");
        }
        for (link, target) in [
            ("l1", "p/l2"),
            ("p/l2", "../o/b1"),
            ("cur", "p"),
            ("root", "/"),
            ("one", "two"),
            ("two", "one"),
        ] {
            symlink(target, at(link)).expect("a link");
        }
        let ways: [(&str, &[&str], &[&str], &str); 6] = [
            ("p/q", &[], &[], "p/q"),
            ("l1", &["l1", "p/l2"], &[], "o/b1"),
            ("cur/x/y", &["cur"], &[], "p/x/y"),
            ("o/../cur/../cur/l2", &["cur", "cur", "p/l2"], &[], "o/b1"),
            ("sub/deep/../../cur/q", &["cur"], &["sub/deep", "sub"], "p/q"),
            ("cur/q/..", &["cur"], &[], "p"),
        ];
        for (path, links, missing, end) in ways {
            let all = |names: &[&str]| names.iter().map(|name| at(name)).collect();
            let way = Way { links: all(links), missing: all(missing), end: at(end) };
            assert_eq!(Way::to(&at(path)), way, "{path}");
        }
        assert_eq!(Way::to(&at("root/../missing")).end, Path::new("/missing"));
        let round = Way::to(&at("one/x"));
        assert!(round.links.contains(&at("one")) && round.links.contains(&at("two")), "{round:?}");
    }

    #[test]
    fn what_is_not_a_link_leads_nowhere() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("file"), "").expect("a file");
        symlink("missing/..", path("link")).expect("a link");
        let read = |name: &str| read_if_link(&path(name)).ok();
        assert_eq!(read("link"), Some(Some("missing/..".into())));
        let long = "x".repeat(LONGEST_NAME + 1);
        for name in ["", "file", "missing", "file/below", &long, &format!("{long}/below")] {
            assert_eq!(read(name), Some(None), "{name}");
        }
        assert_eq!(read(&"x/".repeat(3000)), None, "too long as a whole");
    }
}
