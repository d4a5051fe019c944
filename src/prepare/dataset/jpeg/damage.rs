//! How files are damaged.

/// What is wrong with a file, as a message.
pub(super) type Damage = &'static str;

pub(super) const CUT_OFF: Damage = "it is cut off";
pub(super) const NO_MARK: Damage = "it is damaged: data where a marker should be";
pub(super) const BAD_HEADER: Damage = "a part of its header is damaged";
