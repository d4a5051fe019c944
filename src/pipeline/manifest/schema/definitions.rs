//! What definitions are called.

/// A reference to a definition.
pub(super) fn definition(name: &str) -> String {
    format!("#/$defs/{name}")
}

/// The name of the definition of a stage of a kind.
pub(super) fn kind_definition(kind: &str) -> String {
    format!("stage-{kind}")
}
