//! What the rules of a kind ask of values as they are written, for what sees only the text of a stage: a schema.
//!
//! `Rules::check` decides. A form says what of it one text shows, and never refuses what it accepts; the tests of the schema
//! compare both.

/// What is asked of a parameter. A pattern is a regular expression that JavaScript and Rust read alike, and is looked for anywhere in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The text of this parameter, or each in its list, has the pattern.
    Text(&'static str, &'static str),
    /// It does not have the pattern.
    NotText(&'static str, &'static str),
    /// Each name in the table of this parameter has the pattern.
    Name(&'static str, &'static str),
    /// It does not have the pattern.
    NotName(&'static str, &'static str),
    /// The list of this parameter has an item.
    NotEmpty(&'static str),
    /// Either one of these parameters and ports is set, or the last one. `false` counts as not set.
    Either(&'static [&'static str], &'static str),
}

impl Form {
    /// The parameter whose values it is about.
    pub fn parameter(&self) -> Option<&'static str> {
        match *self {
            Self::Text(name, _)
            | Self::NotText(name, _)
            | Self::Name(name, _)
            | Self::NotName(name, _)
            | Self::NotEmpty(name) => Some(name),
            Self::Either(..) => None,
        }
    }

    /// The parameters and ports of [`Form::Either`].
    pub fn either(&self) -> Option<(&'static [&'static str], &'static str)> {
        match *self {
            Self::Either(one, other) => Some((one, other)),
            _ => None,
        }
    }
}
