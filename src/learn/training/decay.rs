//! Which parameters are decayed, by their names in a state dict: the rules of the reference code.
//!
//! Does not depend on any optimizer. Two of the rules look for `bn` anywhere in a name, so the batch norm inside a shortcut, whose name is
//! `downsample.1`, counts as any other layer. That is how the published numbers were made.

/// Supervised training: all but what has `bn` in its name. The classifier's bias is decayed, and
/// so are `downsample.1.weight` and `downsample.1.bias`.
pub fn supervised(name: &str) -> bool {
    !name.contains("bn")
}

/// SimCLR: all but what has `bn` or `bias` in its name; LARS adapts the same ones.
/// `downsample.1.weight` is decayed and adapted.
pub fn contrastive(name: &str) -> bool {
    !name.contains("bn") && !name.contains("bias")
}

/// All: a linear probe's weight and bias, and supervised pre-training, where batch norm is decayed too.
pub fn all(_name: &str) -> bool {
    true
}
