//! Fuzzing of the readers of bytes from elsewhere: a file for each target, and the one list of them.
//!
//! A target takes any bytes and calls what a stage or a command calls, with the bounds of production. It fails when that
//! panics, takes more memory than [docs/architecture.md](../../docs/architecture.md) promises, does not end, has an
//! effect that it must not have, or when what was read is not the same after it was written.
//!
//! `cargo xtask fuzz` looks for new inputs (`main.rs`); the test `corpora` reads those that are kept, without libFuzzer.

pub mod memory;
mod scratch;
#[path = "targets"]
mod targets {
    pub(crate) mod answers;
    pub(crate) mod cache_indexes;
    pub(crate) mod checkpoint;
    pub(crate) mod cifar;
    pub(crate) mod idx;
    pub(crate) mod images;
    pub(crate) mod listings;
    pub(crate) mod manifest;
    pub(crate) mod messages;
    pub(crate) mod npz;
    pub(crate) mod pickle;
    pub(crate) mod profiles;
    pub(crate) mod records;
    pub(crate) mod remote_listings;
    pub(crate) mod safetensors;
    pub(crate) mod sftp;
    pub(crate) mod tar;
    pub(crate) mod text_files;
    pub(crate) mod trackers;
    pub(crate) mod zip;
}

use targets::{
    answers, cache_indexes, checkpoint, cifar, idx, images, listings, manifest, messages, npz,
    pickle, profiles, records, remote_listings, safetensors, sftp, tar, text_files, trackers, zip,
};

/// What is fuzzed together.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, also that of its folder under `corpus/`.
    pub name: &'static str,
    read: fn(&[u8]) -> bool,
    /// The most bytes of memory for an input.
    most_memory: fn(&[u8]) -> usize,
}

const MIB: usize = 1 << 20;

/// All targets.
pub const TARGETS: [Target; 20] = [
    Target { name: "manifest", read: manifest::read, most_memory: |_| 1024 * MIB },
    // As JSON, a value takes at most a few hundred times its bytes.
    Target { name: "records", read: records::read, most_memory: |bytes| 256 * bytes.len() + MIB },
    Target { name: "listings", read: listings::read, most_memory: |bytes| 256 * bytes.len() + MIB },
    // What a compressor takes is in this, too.
    Target {
        name: "remote-listings",
        read: remote_listings::read,
        most_memory: |bytes| 256 * bytes.len() + 4 * MIB,
    },
    Target { name: "answers", read: answers::read, most_memory: |bytes| 256 * bytes.len() + MIB },
    Target { name: "profiles", read: profiles::read, most_memory: |bytes| 256 * bytes.len() + MIB },
    Target { name: "trackers", read: trackers::read, most_memory: |bytes| 256 * bytes.len() + MIB },
    // As JSON, several times over, and what a folder of a cache takes.
    Target { name: "messages", read: messages::read, most_memory: |bytes| 256 * bytes.len() + MIB },
    // What a number claims that is not there takes at most 1 MiB.
    Target {
        name: "cache-indexes",
        read: cache_indexes::read,
        most_memory: |bytes| 256 * bytes.len() + 4 * MIB,
    },
    // A packet that is claimed, and the buffers of a connection.
    Target { name: "sftp", read: sftp::read, most_memory: |bytes| 64 * bytes.len() + 4 * MIB },
    // A megabyte is read of names at once.
    Target {
        name: "text-files",
        read: text_files::read,
        most_memory: |bytes| 64 * bytes.len() + 2 * MIB,
    },
    // The buffers of decoders, a header, and the paths of the files that the target allows.
    Target { name: "zip", read: zip::read, most_memory: |_| 32 * MIB },
    Target { name: "tar", read: tar::read, most_memory: |_| 64 * MIB },
    Target {
        name: "pickle",
        read: pickle::read,
        most_memory: |bytes| 250 * bytes.len() + 64 * MIB,
    },
    Target {
        name: "checkpoint",
        read: checkpoint::read,
        most_memory: |bytes| 250 * bytes.len() + 64 * MIB,
    },
    // Twice the pixels. Deflate packs at most 1,032 bytes into one.
    Target {
        name: "npz",
        read: npz::read,
        most_memory: |bytes| 2 * 1_032 * bytes.len() + 16 * MIB,
    },
    Target {
        name: "idx",
        read: idx::read,
        most_memory: |bytes| 2 * 1_032 * bytes.len() + 16 * MIB,
    },
    Target { name: "cifar", read: cifar::read, most_memory: |bytes| 250 * bytes.len() + 64 * MIB },
    Target { name: "images", read: images::read, most_memory: images::most_memory },
    Target {
        name: "safetensors",
        read: safetensors::read,
        most_memory: |bytes| 64 * bytes.len() + MIB,
    },
];

impl Target {
    /// The target of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        TARGETS.iter().find(|target| target.name == name)
    }

    /// Reads the bytes; whether they are valid. The process ends with a message when that takes too much memory.
    pub fn run(&self, bytes: &[u8]) -> bool {
        memory::within((self.most_memory)(bytes), || (self.read)(bytes))
    }
}
