//! `unpack`: an archive into a folder.

use crate::form::Form;
use crate::kind::{Problem, Rules, WithoutEffect};

choices! {
    /// The format of an archive.
    pub enum ArchiveFormat {
        /// Detected from the first bytes of the file.
        Auto,
        /// A zip archive.
        Zip,
        /// A tar archive.
        Tar,
        /// A tar archive, compressed with gzip.
        TarGz,
        /// A tar archive, compressed with xz.
        TarXz,
        /// A tar archive, compressed with Zstandard.
        TarZst,
        /// One file, compressed with gzip.
        Gz,
    }
}

kind! {
    /// Unpacks an archive into a folder.
    ///
    /// Nothing is written outside the folder: absolute paths, `..`, links that leave it and device files are
    /// refused, and so are a path that occurs twice with different content, a name that is not UTF-8, and an
    /// encrypted archive. Files of file managers (`__MACOSX`, `._*`, `.DS_Store`, `Thumbs.db`,
    /// `desktop.ini`) are left out. Only the executable bit of a file's mode is kept; its times are not.
    Unpack = "unpack", version 2, seeded false, output Directory;
    ports {
        /// The archive.
        archive: One[File];
    }
    parameters {
        /// The format of the archive.
        format: ArchiveFormat = ArchiveFormat::Auto;
        /// How many leading folders to drop from every path. A path with no more folders than these is left out.
        strip: u32 = 0, in crate::parameter::NOT_NEGATIVE;
        /// Globs over the paths in the archive (after `strip`); only what matches one is unpacked. Empty for all.
        /// `*` stays within one folder, `**` matches any number of folders; a glob that matches a folder takes all that is in it.
        include: Vec<String> = Vec::new();
    }
    execution {
        /// The most bytes that it may unpack to.
        max_bytes: u64 = 256 << 30, in crate::parameter::AT_LEAST_ONE;
        /// The most files and folders that it may hold.
        max_files: u64 = 4_000_000, in crate::parameter::AT_LEAST_ONE;
    }
    headline []
}

impl Rules for Unpack {
    fn forms() -> &'static [Form] {
        &[Form::NotText("include", r"^$|^[/\\]|(^|/)\.\.?(/|$)")]
    }

    fn without_effect(&self) -> Vec<WithoutEffect> {
        if self.format != ArchiveFormat::Gz {
            return Vec::new();
        }
        let reason = "format = \"gz\", which is one file without folders";
        ["strip", "include", "max-files"].map(|name| WithoutEffect::with(name, reason)).into()
    }

    fn check(&self, _connected: &[&str]) -> Vec<Problem> {
        let never_matches = |(_, glob): &(usize, &String)| {
            glob.is_empty()
                || glob.starts_with(['/', '\\'])
                || glob.split('/').any(|part| part == "." || part == "..")
        };
        self.include
            .iter()
            .enumerate()
            .filter(never_matches)
            .map(|(item, glob)| {
                let message = format!(
                    "the glob '{glob}' cannot match anything: paths in an archive do not start with '/', and do not have '.' or '..'"
                );
                Problem::new("include", message).with_item(item)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_that_can_match_nothing_is_a_problem() {
        for (glob, count) in [
            ("", 1),
            ("/data/*", 1),
            ("./data", 1),
            ("data/../*", 1),
            ("data/*.bin", 0),
            ("**/.git", 0),
        ] {
            let unpack: Unpack = serde_json::from_value(serde_json::json!({"include": [glob]}))
                .expect("valid parameters");
            assert_eq!(unpack.check(&[]).len(), count, "{glob}");
        }
    }
}
