//! Where the values of a stage are in the text, for mistakes that are found later.

use toml::de::{DeTable, DeValue};

use crate::diagnostic::{Sources, Span};

/// The places of a stage's values. They are not part of what a stage is: all places are equal.
#[derive(Debug, Clone, Default)]
pub(crate) struct ValuePlaces {
    header: Span,
    /// By the keys.
    values: Vec<(String, Place)>,
}

#[derive(Debug, Clone)]
struct Place {
    whole: Span,
    items: Vec<Span>,
}

impl PartialEq for ValuePlaces {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl ValuePlaces {
    pub(super) fn new(header: Span, table: Option<&DeTable<'_>>) -> Self {
        let place = |value: &super::values::Value<'_>| {
            let items = match value.get_ref() {
                DeValue::Array(items) => items.iter().map(toml::Spanned::span).collect(),
                _ => Vec::new(),
            };
            Place { whole: value.span(), items }
        };
        let entries = table.into_iter().flatten();
        let values = entries.map(|(key, value)| (key.get_ref().to_string(), place(value)));
        let mut values: Vec<(String, Place)> = values.collect();
        // Whether a machine has what a stage takes is only known when it runs.
        let execution = table.and_then(|table| table.get("execution")?.get_ref().as_table());
        for (key, value) in execution.into_iter().flatten() {
            let key = format!("execution.{}", key.get_ref());
            for (name, _) in value.get_ref().as_table().into_iter().flatten() {
                let place = Place { whole: name.span(), items: Vec::new() };
                values.push((format!("{key}.{}", name.get_ref()), place));
            }
            values.push((key, place(value)));
        }
        Self { header, values }
    }

    /// Whether a key is written there.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    fn get(&self, key: &str) -> Option<&Place> {
        self.values.iter().find(|(name, _)| name == key).map(|(_, place)| place)
    }

    /// The place of one item of a list, or of the whole value, or of the stage's name where it has no
    /// such key.
    pub(crate) fn find(&self, key: &str, item: Option<usize>) -> Span {
        let Some(place) = self.get(key) else { return self.header.clone() };
        let item = item.and_then(|item| place.items.get(item));
        item.unwrap_or(&place.whole).clone()
    }

    /// The place of the item of a list that has this text in it, else as [`Self::find`].
    pub(crate) fn find_text(&self, key: &str, text: &str, sources: &Sources) -> Span {
        let items = self.get(key).into_iter().flat_map(|place| &place.items);
        let item = items.enumerate().find(|(_, span)| sources.text(span).contains(text));
        self.find(key, item.map(|(item, _)| item))
    }
}
