//! BLAKE3 digests, and the canonical encoding that is hashed: tagged, length-prefixed, so that no two
//! different inputs have the same bytes.
//!
//! Does not depend on files or stages.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A BLAKE3 digest of content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Digest([u8; 32]);

impl Digest {
    /// How many hexadecimal digits are shown to people.
    const SHORT: usize = 12;

    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first digits: enough to distinguish digests by eye.
    pub(crate) fn short(&self) -> String {
        self.to_string()[..Self::SHORT].to_owned()
    }

    /// Whether a text may be the first digits of one.
    pub(crate) fn is_short(text: &str) -> bool {
        let is_digit = |letter: u8| matches!(letter, b'0'..=b'9' | b'a'..=b'f');
        text.len() == Self::SHORT && text.bytes().all(is_digit)
    }
}

impl From<blake3::Hash> for Digest {
    fn from(hash: blake3::Hash) -> Self {
        Self(*hash.as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({})", self.short())
    }
}

impl FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        from_hex(text.as_bytes())
            .map(Self)
            .ok_or_else(|| format!("'{text}' is not a digest: 64 hexadecimal digits are expected"))
    }
}

/// Reads hexadecimal digits by a table: an index has thousands of digests.
fn from_hex(text: &[u8]) -> Option<[u8; 32]> {
    const NONE: u8 = 0xff;
    const VALUES: [u8; 256] = {
        let mut values = [NONE; 256];
        let mut value = 0;
        while value < 16 {
            let digit = b"0123456789abcdef"[value];
            values[digit as usize] = value as u8;
            values[digit.to_ascii_uppercase() as usize] = value as u8;
            value += 1;
        }
        values
    };
    let digits: &[u8; 64] = text.try_into().ok()?;
    let mut bytes = [0; 32];
    let mut any = 0;
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let (high, low) = (VALUES[pair[0] as usize], VALUES[pair[1] as usize]);
        any |= high | low;
        *byte = high << 4 | low & 0xf;
    }
    (any < 16).then_some(bytes)
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serializer.is_human_readable() {
            true => serializer.serialize_str(&blake3::Hash::from_bytes(self.0).to_hex()),
            false => serializer.serialize_bytes(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// Reads the text where it is: indexes have many.
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Digest;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("64 hexadecimal digits")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Digest, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Digest, E> {
                let bytes = bytes.try_into().map_err(|_| E::invalid_length(bytes.len(), &self))?;
                Ok(Digest(bytes))
            }
        }

        match deserializer.is_human_readable() {
            true => deserializer.deserialize_str(Text),
            false => deserializer.deserialize_bytes(Text),
        }
    }
}

/// Hashes a sequence of fields, each with its length before it, under a domain of its own.
pub(crate) struct FieldHasher(blake3::Hasher);

impl FieldHasher {
    /// A hasher for one purpose. The domain is a sentence that no other purpose uses.
    pub(crate) fn new(domain: &str) -> Self {
        Self(blake3::Hasher::new_derive_key(domain))
    }

    /// Appends a field.
    pub(crate) fn bytes(&mut self, field: &[u8]) -> &mut Self {
        self.0.update(&(field.len() as u64).to_le_bytes());
        self.0.update(field);
        self
    }

    pub(crate) fn text(&mut self, field: &str) -> &mut Self {
        self.bytes(field.as_bytes())
    }

    pub(crate) fn number(&mut self, field: u64) -> &mut Self {
        self.bytes(&field.to_le_bytes())
    }

    pub(crate) fn digest(&mut self, field: &Digest) -> &mut Self {
        self.bytes(field.as_bytes())
    }

    /// The digest of all fields.
    pub(crate) fn finish(&self) -> Digest {
        self.0.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(fields: &[&str]) -> Digest {
        let mut hasher = FieldHasher::new("test");
        for field in fields {
            hasher.text(field);
        }
        hasher.finish()
    }

    #[test]
    fn fields_keep_their_boundaries() {
        assert_ne!(hash(&["ab", "c"]), hash(&["a", "bc"]));
        assert_ne!(hash(&["a", ""]), hash(&["a"]));
        assert_ne!(FieldHasher::new("one").finish(), FieldHasher::new("two").finish());
    }

    #[test]
    fn a_digest_reads_back_as_it_was_written() {
        let digest = hash(&["x"]);
        assert_eq!(digest.to_string().parse(), Ok(digest));
        let json = serde_json::to_string(&digest).expect("plain data");
        assert_eq!(serde_json::from_str::<Digest>(&json).expect("a digest"), digest);
        assert!("abc".parse::<Digest>().is_err());
    }
}
