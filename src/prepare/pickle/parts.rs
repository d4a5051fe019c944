//! The parts of a value without a copy: any name can refer to a list of a million items, or to bytes that must be
//! decoded first.
//!
//! Does not depend on classes.

use std::borrow::Cow;

use super::value::{Id, Pickle, Value};

/// The items of a list, tuple or set.
#[derive(Clone, Copy)]
pub(crate) struct Items<'p> {
    pub(super) pickle: &'p Pickle<'p>,
    /// The items that the container was made from.
    pub(super) initial: &'p [Id],
    /// The items that were added later.
    pub(super) added: &'p [Id],
}

impl<'p> Items<'p> {
    /// The number of items.
    pub(crate) fn len(self) -> usize {
        self.initial.len() + self.added.len()
    }

    /// The item at an index.
    pub(crate) fn get(self, index: usize) -> Option<Value<'p>> {
        let id = match index.checked_sub(self.initial.len()) {
            None => self.initial.get(index),
            Some(index) => self.added.get(index),
        };
        Some(Value { pickle: self.pickle, id: *id? })
    }

    /// All items, if there are `COUNT`.
    pub(crate) fn exactly<const COUNT: usize>(self) -> Option<[Value<'p>; COUNT]> {
        if self.len() == COUNT { self.first_many() } else { None }
    }

    /// The first `COUNT` items, if there are enough.
    pub(crate) fn first_many<const COUNT: usize>(self) -> Option<[Value<'p>; COUNT]> {
        self.many_from(0)
    }

    /// The last `COUNT` items, if there are enough.
    pub(crate) fn last_many<const COUNT: usize>(self) -> Option<[Value<'p>; COUNT]> {
        self.many_from(self.len().checked_sub(COUNT)?)
    }

    fn many_from<const COUNT: usize>(self, start: usize) -> Option<[Value<'p>; COUNT]> {
        let taken: Vec<Value<'p>> =
            (start..start + COUNT).map(|index| self.get(index)).collect::<Option<_>>()?;
        taken.try_into().ok()
    }

    /// The items in order.
    pub(crate) fn iter(self) -> impl DoubleEndedIterator<Item = Value<'p>> {
        self.initial.iter().chain(self.added).map(move |id| {
            self.pickle.count_steps(1);
            Value { pickle: self.pickle, id: *id }
        })
    }
}

/// Keys and values of a dictionary, in the order in which they were set. A key that was set twice occurs
/// twice; the last one counts.
#[derive(Clone, Copy)]
pub(crate) struct Entries<'p> {
    pub(super) pickle: &'p Pickle<'p>,
    /// The pairs that the dictionary was made from.
    pub(super) initial: &'p [Id],
    /// The entries that were set later.
    pub(super) added: &'p [(Id, Id)],
}

impl<'p> Entries<'p> {
    /// Whether it has no entries.
    pub(crate) fn is_empty(self) -> bool {
        self.initial.is_empty() && self.added.is_empty()
    }

    /// The entries in order. An item that should be a pair and is not is both key and value: so it counts
    /// as one entry, and cannot be found by a key.
    pub(crate) fn iter(self) -> impl DoubleEndedIterator<Item = (Value<'p>, Value<'p>)> {
        let value = move |id| {
            self.pickle.count_steps(1);
            Value { pickle: self.pickle, id }
        };
        let initial = self.initial.iter().map(move |id| {
            let item = value(*id);
            match item.plain_items().and_then(Items::exactly) {
                Some([key, value]) => (key, value),
                None => (item, item),
            }
        });
        initial.chain(self.added.iter().map(move |(key, item)| (value(*key), value(*item))))
    }
}

/// Bytes as they are in a pickle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bytes<'p> {
    /// Raw bytes.
    Plain(&'p [u8]),
    /// As the text whose code points they are, as protocol 2 and below write them.
    Latin1(&'p str),
}

impl<'p> Bytes<'p> {
    /// Whether the number of bytes can be `count`. Decodes nothing: one or two bytes of a text are one decoded
    /// byte.
    pub(crate) fn can_be(self, count: usize) -> bool {
        match self {
            Self::Plain(bytes) => bytes.len() == count,
            Self::Latin1(text) => count <= text.len() && text.len().div_ceil(2) <= count,
        }
    }

    /// The number of bytes; an upper bound for encoded text.
    pub(crate) fn most(self) -> usize {
        match self {
            Self::Plain(bytes) => bytes.len(),
            Self::Latin1(text) => text.len(),
        }
    }

    /// The bytes themselves; `None` for text with code points above 255.
    pub(crate) fn decoded(self) -> Option<Cow<'p, [u8]>> {
        match self {
            Self::Plain(bytes) => Some(Cow::Borrowed(bytes)),
            Self::Latin1(text) => {
                let byte = |character| u8::try_from(u32::from(character)).ok();
                text.chars().map(byte).collect::<Option<_>>().map(Cow::Owned)
            }
        }
    }
}
