//! Checking artifacts while a bar shows how far it is: what `verify` and `verify --rerun` share.

use super::metered::metered;
use crate::cache::{Check, Checked, Watch};

/// Reads the artifacts while a meter shows how far it is.
pub(crate) fn with_meter(check: Check<'_>) -> Checked {
    let watch = Watch::default();
    let bytes = check.bytes();
    metered("verify", bytes, &watch, || check.run(&watch))
}
