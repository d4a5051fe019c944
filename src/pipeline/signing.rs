//! Signatures of records: who signs, and what is signed.

#![allow(clippy::disallowed_methods, reason = "the key of a user is not in a cache")]

use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use tempfile::NamedTempFile;

use crate::digest::Digest;
use crate::key::StageKey;
use crate::trust::{KEY_BYTES, PRIVATE, PublicKey, Trust};

/// What every signed text begins with: a signature of a record is one of nothing else.
const DOMAIN: &[u8] = b"pipeline 2026-11 signed record\0";

/// The bytes of a signature (RFC 8032).
const SIGNATURE_BYTES: usize = 64;

/// The most bytes of the text of a signature.
pub(crate) const MOST_SIGNATURE_BYTES: u64 = 128;

/// That these bytes are the record of this key.
pub(crate) struct Statement(Vec<u8>);

impl Statement {
    pub(crate) fn new(key: &StageKey, record: &[u8]) -> Self {
        // The key has a fixed length, so that no two statements have the same bytes.
        Self([DOMAIN, key.to_string().as_bytes(), record].concat())
    }

    /// What it is called.
    pub(crate) fn digest(&self) -> Digest {
        blake3::hash(&self.0).into()
    }
}

impl PublicKey {
    /// Whether this is the text of a signature of a statement by this key.
    pub(crate) fn has_signed(&self, statement: &Statement, signature: &[u8]) -> bool {
        let signature = STANDARD.decode(signature.trim_ascii());
        let key = UnparsedPublicKey::new(&ED25519, self.0);
        signature.is_ok_and(|signature| {
            signature.len() == SIGNATURE_BYTES && key.verify(&statement.0, &signature).is_ok()
        })
    }
}

/// Signs records.
pub(crate) struct Signer(Ed25519KeyPair);

impl Signer {
    /// The one whose key is in a file; nobody if there is none.
    ///
    /// # Errors
    /// When the file cannot be read, others can read it, or it is not a key. It is not repeated.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Option<Self>> {
        let what = || format!("cannot read the key {}", path.display());
        let mut file = match File::open(path) {
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                return Ok(None);
            }
            other => other.with_context(what)?,
        };
        let mode = file.metadata().with_context(what)?.mode();
        let shown = path.display();
        ensure!(mode & 0o077 == 0, "others can read the key {shown}: chmod 600 {shown}");
        let text = io::read_to_string(&mut file).with_context(what)?;
        let seed = text.trim().strip_prefix(PRIVATE).and_then(|text| STANDARD.decode(text).ok());
        let pair = seed.and_then(|seed| Ed25519KeyPair::from_seed_unchecked(&seed).ok());
        let pair = pair.ok_or_else(|| anyhow!("{shown} is not a key of `pipeline key new`"))?;
        Ok(Some(Self(pair)))
    }

    /// Makes a key, in a file that only this user can read.
    ///
    /// # Errors
    /// When there is a file, or it cannot be written.
    pub(crate) fn create(path: &Path) -> anyhow::Result<Self> {
        let mut seed = [0; KEY_BYTES];
        SystemRandom::new()
            .fill(&mut seed)
            .map_err(|_| anyhow!("the system has no random numbers"))?;
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed);
        let pair = pair.map_err(|_| anyhow!("internal error: a seed has {KEY_BYTES} bytes"))?;
        let what = || format!("cannot write the key {}", path.display());
        let folder = path.parent().with_context(what)?;
        DirBuilder::new().recursive(true).mode(0o700).create(folder).with_context(what)?;
        // Whole under a name of its own, as another process may make one, too: only its owner can read it.
        let mut new = NamedTempFile::with_prefix_in(".key-", folder).with_context(what)?;
        writeln!(new, "{PRIVATE}{}", STANDARD.encode(seed)).with_context(what)?;
        new.as_file().sync_all().with_context(what)?;
        match new.persist_noclobber(path) {
            Err(error) if error.error.kind() == ErrorKind::AlreadyExists => {
                bail!("there is a key in {}: `pipeline key show` prints its line", path.display())
            }
            other => drop(other.map_err(|error| error.error).with_context(what)?),
        }
        // Not every file system can make the name last.
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
        Ok(Self(pair))
    }

    /// What others check its signatures with.
    pub(crate) fn public(&self) -> PublicKey {
        let mut bytes = [0; KEY_BYTES];
        bytes.copy_from_slice(self.0.public_key().as_ref());
        PublicKey(bytes)
    }

    /// The text of its signature of a statement.
    pub(crate) fn sign(&self, statement: &Statement) -> String {
        format!("{}\n", STANDARD.encode(self.0.sign(&statement.0)))
    }
}

/// Whose results count, and where the key is of who signs what is sent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Signing {
    pub(crate) trust: Trust,
    pub(crate) key_file: Option<PathBuf>,
}

impl Signing {
    /// Who signs what is sent, if anybody does.
    ///
    /// # Errors
    /// Those of [`Signer::read`].
    pub(crate) fn signer(&self) -> anyhow::Result<Option<Signer>> {
        self.key_file.as_deref().map_or(Ok(None), Signer::read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_those_who_make_a_key_at_once_one_does_whatever_another_has_left() {
        let folder = tempfile::tempdir().expect("a folder");
        // Of one with our number that was killed, on this or another machine.
        let left = folder.path().join(format!(".key-{}", std::process::id()));
        std::fs::write(&left, "").expect("ours");
        let path = folder.path().join("key");
        let made: Vec<_> = std::thread::scope(|scope| {
            let all: Vec<_> = (0..8).map(|_| scope.spawn(|| Signer::create(&path))).collect();
            all.into_iter().map(|one| one.join().expect("no panic")).collect()
        });
        let key = Signer::read(&path).expect("readable").expect("there is one").public();
        let (mine, others): (Vec<_>, Vec<_>) = made.into_iter().partition(Result::is_ok);
        assert_eq!(mine.len(), 1);
        assert!(mine.into_iter().flatten().all(|signer| signer.public() == key));
        for error in others.into_iter().filter_map(Result::err) {
            assert!(error.to_string().starts_with("there is a key in "), "{error:#}");
        }
        let names = std::fs::read_dir(folder.path()).expect("ours").flatten();
        let mut names: Vec<_> = names.map(|entry| entry.path()).collect();
        names.sort();
        assert_eq!(names, [left, path]);
    }
}
