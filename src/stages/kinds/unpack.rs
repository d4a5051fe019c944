//! `unpack`: an archive into a folder.

use crate::kind::Rules;

choices! {
    /// The format of an archive.
    pub enum ArchiveFormat {
        /// By the file's first bytes.
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

crate::kind! {
    /// Unpacks an archive into a folder.
    ///
    /// Nothing gets out of the folder: absolute paths, `..`, links that leave it and device files are refused.
    Unpack = "unpack", version 1, seeded false, output Directory;
    ports {
        /// The archive.
        archive: One[File];
    }
    parameters {
        /// The format of the archive.
        format: ArchiveFormat = ArchiveFormat::Auto;
        /// How many leading folders to drop from every path.
        strip: u32 = 0, in crate::parameter::NOT_NEGATIVE;
        /// Globs over the paths in the archive (after `strip`); only what matches one is unpacked. Empty for all.
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

impl Rules for Unpack {}
