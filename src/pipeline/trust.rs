//! Whose results count, and the keys with which that is checked.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// How the line of a public key begins, and the file of a private one.
const PUBLIC: &str = "ed25519:";
pub(crate) const PRIVATE: &str = "ed25519-private:";

/// The bytes of a key (RFC 8032).
pub(crate) const KEY_BYTES: usize = 32;

/// Whose results count.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Trust {
    /// Those of everybody who can write to a remote.
    #[default]
    Everybody,
    /// Those that one of these has signed.
    Signed(Vec<PublicKey>),
}

/// A key that signatures are checked with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct PublicKey(pub(crate) [u8; KEY_BYTES]);

impl PublicKey {
    /// Reads the line of a key; what follows a space is a name for people.
    ///
    /// # Errors
    /// When it is not one. A private key is not repeated.
    pub(crate) fn read(line: &str) -> Result<Self, &'static str> {
        let key = line.split_whitespace().next().unwrap_or_default();
        if key.starts_with(PRIVATE) {
            return Err("it is a private key: whoever has it can sign");
        }
        let bytes = key.strip_prefix(PUBLIC).and_then(|text| STANDARD.decode(text).ok());
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or("it is not a line that `pipeline key new` prints")
    }

    /// What it is called in the name of a signature.
    pub(crate) fn id(&self) -> String {
        blake3::hash(&self.0).to_hex()[..16].to_owned()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PUBLIC}{}", STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
