//! A zip archive, unpacked.

use super::tar::unpack;

pub(crate) fn read(bytes: &[u8]) -> bool {
    unpack("zip", bytes)
}
