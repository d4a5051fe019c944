//! Files of a policy under other names: a rule of Landlock is on what is at its path, and so on every hard link to a file, and on every
//! place where a folder is mounted too.

use std::cell::OnceCell;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::policy::{Access, Policy, Use};

/// What a file or a folder is, regardless of its names.
type Identity = (u64, u64);

/// What the rules of a policy are on.
#[derive(Default)]
pub(super) struct SameFiles(OnceCell<Vec<(Access, Identity)>>);

impl SameFiles {
    /// Whether the kernel lets a program do this, as the policy allows it at another path of the same file or folder. Looked at only when it
    /// is first asked: few programs need it.
    pub(super) fn permit(&self, policy: &Policy, usage: Use, path: &Path) -> bool {
        let Some((access, place)) = usage.needs(path) else { return false };
        let rules = self.0.get_or_init(|| {
            let rules = policy.rules();
            rules.filter_map(|(access, path)| Some((access, identity(path)?))).collect()
        });
        place.ancestors().filter_map(identity).any(|above| {
            rules.iter().any(|(allowed, rule)| *rule == above && allowed.includes(access))
        })
    }
}

fn identity(path: &Path) -> Option<Identity> {
    path.symlink_metadata().ok().map(|found| (found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_name_of_a_file_is_allowed_what_the_file_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        for name in ["read", "written", "other"] {
            std::fs::write(at(name), name).expect("a file");
            std::fs::hard_link(at(name), at(&format!("{name}2"))).expect("a link");
        }
        std::fs::create_dir(at("d")).expect("a folder");
        std::fs::hard_link(at("other"), at("d/x")).expect("a link");
        let mut policy = Policy::default();
        policy.allow(Access::Read, at("read"));
        policy.allow(Access::Write, at("written"));
        policy.allow(Access::Read, at("d"));
        for (usage, name, expected) in [
            (Use::Read, "read2", true),
            (Use::Write, "read2", false),
            (Use::Read, "written2", true),
            (Use::Write, "written2", true),
            // The names in a folder are not those of its file.
            (Use::Name, "written2", false),
            // The rule is on the folder that has another name of it.
            (Use::Read, "other2", false),
            (Use::Read, "missing", false),
        ] {
            let found = SameFiles::default().permit(&policy, usage, &at(name));
            assert_eq!(found, expected, "{usage:?} {name}");
        }
    }
}
