//! The checksums of a file: computed while it is written, and compared with those of the stage.

use md5::Md5;
use pipeline_stages::kinds::Download;
use sha2::{Digest as _, Sha256};

use crate::web_page::is_web_page;

/// The running checksums of the bytes so far.
#[derive(Default)]
pub(super) struct Hashes {
    blake3: blake3::Hasher,
    sha256: Sha256,
    md5: Md5,
}

impl Hashes {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.blake3.update(bytes);
        self.sha256.update(bytes);
        self.md5.update(bytes);
    }

    /// The checksums of the bytes so far.
    pub(super) fn digests(&self) -> Digests {
        Digests {
            blake3: self.blake3.finalize().to_hex().to_string(),
            sha256: hexadecimal(&self.sha256.clone().finalize()),
            md5: hexadecimal(&self.md5.clone().finalize()),
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The checksums of a file, in lower-case hexadecimal digits.
#[derive(Debug)]
pub(super) struct Digests {
    pub(super) blake3: String,
    pub(super) sha256: String,
    pub(super) md5: String,
}

/// The expected checksums of the stage.
pub(super) struct Checksums<'a>(&'a Download);

impl<'a> Checksums<'a> {
    pub(super) fn of(stage: &'a Download) -> Self {
        Self(stage)
    }

    /// Compares every checksum of the stage.
    ///
    /// # Errors
    /// When one differs, with its name, the expected and the actual value, and the size of the file.
    pub(super) fn check(
        &self,
        digests: &Digests,
        size: u64,
        beginning: &[u8],
    ) -> Result<(), String> {
        for (algorithm, expected, got) in [
            ("blake3", &self.0.blake3, &digests.blake3),
            ("sha256", &self.0.sha256, &digests.sha256),
            ("md5", &self.0.md5, &digests.md5),
        ] {
            let Some(expected) = expected.as_deref() else { continue };
            if expected.eq_ignore_ascii_case(got) {
                continue;
            }
            let hint = match beginning {
                [] => "; the file is empty",
                bytes if is_web_page(bytes) => "; it is a web page: a login page, or an error?",
                _ => "",
            };
            let expected = expected.to_ascii_lowercase();
            return Err(format!(
                "wrong {algorithm}: expected {expected}, got {got} ({size} bytes){hint}"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_standards() {
        let mut hashes = Hashes::default();
        hashes.update(b"a");
        hashes.update(b"bc");
        let digests = hashes.digests();
        // RFC 1321; FIPS 180-4; the test vector of the BLAKE3 reference implementation's `b3sum`.
        assert_eq!(digests.md5, "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(
            digests.sha256,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(
            digests.blake3,
            "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"
        );
    }
}
