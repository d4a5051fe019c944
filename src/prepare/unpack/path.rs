//! The path of an entry of an archive: checked, and with `strip` applied.
//!
//! Pure. Does not depend on archives or the disk.

use std::ffi::OsStr;

use anyhow::bail;
use pipeline_stages::left_out::is_of_a_file_manager;
use pipeline_stages::text::shortened;

/// The longest path, and the longest target of a link: the limit of Linux (PATH_MAX). Otherwise a small
/// archive could fill the memory with them.
pub(super) const MOST_PATH_BYTES: usize = 4096;

/// The most parts of a path. Deeply nested folders cost every later program time, and no data set has this
/// many.
const MOST_PARTS: usize = 128;

/// A relative path in the output folder, without `..`, `.` and empty parts. Parts are joined with `/`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct InnerPath(String);

impl InnerPath {
    /// Checks the name of an entry. `None` if `strip` leaves nothing of it.
    ///
    /// # Errors
    /// When it is absolute, goes up, is too long or too deep, or is not UTF-8.
    pub(super) fn new(raw: &[u8], strip: usize) -> anyhow::Result<Option<Self>> {
        if raw.len() > MOST_PATH_BYTES {
            let start = String::from_utf8_lossy(raw.get(..40).unwrap_or_default()).into_owned();
            bail!(
                "refused a path of {} bytes, '{}...': the longest has {MOST_PATH_BYTES}",
                raw.len(),
                start.escape_debug()
            );
        }
        let Ok(name) = std::str::from_utf8(raw) else {
            bail!(
                "the name '{}' is not UTF-8: pack the archive again with UTF-8 names",
                String::from_utf8_lossy(raw).escape_debug()
            );
        };
        let shown = name.escape_debug();
        if name.contains('\0') {
            bail!("the name '{shown}' has a NUL character");
        }
        if name.starts_with('/') {
            bail!("refused '{shown}': an absolute path would leave the output folder");
        }
        if name.split('/').any(|part| part == "..") {
            bail!("refused '{shown}': a path with '..' could leave the output folder");
        }
        let parts = name.split('/').filter(|part| !part.is_empty() && *part != ".");
        let parts: Vec<_> = parts.collect();
        if parts.len() > MOST_PARTS {
            bail!(
                "refused a path of {} parts, '{}...': the deepest has {MOST_PARTS}",
                parts.len(),
                shortened(name)
            );
        }
        let kept = parts.get(strip..).unwrap_or_default();
        Ok((!kept.is_empty()).then(|| Self(kept.join("/"))))
    }

    /// As text.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it, or a folder above it, is of a file manager.
    pub(super) fn is_of_a_file_manager(&self) -> bool {
        self.0.split('/').any(|part| is_of_a_file_manager(OsStr::new(part)))
    }

    /// The folders above it, from the outermost.
    pub(super) fn ancestors(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('/').map(|(at, _)| &self.0[..at])
    }

    /// For messages: quoted, with control characters escaped.
    pub(super) fn shown(&self) -> String {
        format!("'{}'", self.0.escape_debug())
    }
}

/// Whether a symbolic link at `link` stays in the folder, one step and by the names alone.
///
/// Parts of the target that are links themselves are not followed:
/// [`Destination`](super::destination::Destination), which has the links, refuses `..` after one.
pub(super) fn points_inside(link: &InnerPath, target: &str) -> bool {
    if target.is_empty() || target.starts_with('/') || target.contains('\0') {
        return false;
    }
    let mut depth = link.ancestors().count();
    target.split('/').all(|part| {
        match part {
            "" | "." => {}
            ".." => match depth.checked_sub(1) {
                Some(above) => depth = above,
                None => return false,
            },
            _ => depth += 1,
        }
        true
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_cleaned_and_stripped() {
        for (raw, strip, expected) in [
            ("a/b", 0, Some("a/b")),
            ("./a//b/", 0, Some("a/b")),
            ("./a/b", 1, Some("b")),
            ("a/b", 2, None),
            ("a", 7, None),
            ("./", 0, None),
            ("", 0, None),
            ("a..b/...", 0, Some("a..b/...")),
            ("C:\\a", 0, Some("C:\\a")),
        ] {
            let path = InnerPath::new(raw.as_bytes(), strip).expect("a good name");
            assert_eq!(path.as_ref().map(InnerPath::as_str), expected, "{raw}");
        }
    }

    #[test]
    fn bad_names_are_refused() {
        for raw in
            [&b"/etc/passwd"[..], b"..", b"../a", b"a/../b", b"a/..", b"\xff", b"a\0b", b"//a"]
        {
            InnerPath::new(raw, 0).expect_err(&String::from_utf8_lossy(raw));
        }
        assert!(InnerPath::new(b"x/../../a", 1).is_err(), "strip does not hide it");
    }

    #[test]
    fn a_path_with_too_many_parts_is_refused() {
        let deep = |parts: usize| InnerPath::new("a/".repeat(parts).as_bytes(), 0);
        assert!(deep(128).is_ok());
        let error = deep(129).expect_err("it is too deep").to_string();
        assert!(error.contains("refused a path of 129 parts, 'a/a/a/"), "{error}");
        assert!(InnerPath::new("a/".repeat(129).as_bytes(), 5).is_err(), "strip does not hide it");
    }

    #[test]
    fn links_stay_within_the_folder() {
        for (link, target, inside) in [
            ("a/b", "c", true),
            ("a/b", "../c", true),
            ("a/b", "./c/./d", true),
            ("a", ".", true),
            ("a/b", "../../c", false),
            ("a", "..", false),
            ("a", "../a", false),
            ("a", "/a", false),
            ("a", "", false),
            ("a", "b/../..", false),
        ] {
            let link = InnerPath::new(link.as_bytes(), 0).expect("a good name").expect("not empty");
            assert_eq!(points_inside(&link, target), inside, "{target}");
        }
    }

    proptest! {
        #[test]
        fn an_accepted_name_stays_inside(raw in proptest::collection::vec(prop_oneof![
            Just(b'/'), Just(b'.'), Just(b'a'), any::<u8>()], 0..20), strip in 0usize..3)
        {
            if let Ok(Some(path)) = InnerPath::new(&raw, strip) {
                let components = std::path::Path::new(path.as_str()).components();
                for component in components {
                    prop_assert!(matches!(component, std::path::Component::Normal(_)));
                }
            }
        }
    }
}
