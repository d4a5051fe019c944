//! What labels that are known to be right do for a result. Depends on nothing.

/// What labels that are known to be right do for a result: each of these includes those before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum CleanLabels {
    /// Nothing: it is only compared with them.
    #[default]
    Unused,
    /// They judge a training on its way, so that figures at its best step are chosen by them.
    Judge,
    /// It has learned from them, or was chosen by them.
    Decide,
}
