//! The parts of a value, without a copy of them: any name can refer to a list of a million, and to bytes
//! that must be decoded first.
//!
//! Knows no class.

use std::borrow::Cow;

use super::value::{Id, Pickle, Value};

/// What is in a list, tuple or set.
#[derive(Clone, Copy)]
pub(crate) struct Items<'p> {
    pub(super) pickle: &'p Pickle<'p>,
    /// What the container was made from.
    pub(super) initial: &'p [Id],
    /// What was added to it later.
    pub(super) added: &'p [Id],
}

impl<'p> Items<'p> {
    /// How many there are.
    pub(crate) fn len(self) -> usize {
        self.initial.len() + self.added.len()
    }

    /// The one at a place.
    pub(crate) fn get(self, index: usize) -> Option<Value<'p>> {
        let id = match index.checked_sub(self.initial.len()) {
            None => self.initial.get(index),
            Some(index) => self.added.get(index),
        };
        Some(Value { pickle: self.pickle, id: *id? })
    }

    /// All of them, if there are as many.
    pub(crate) fn exactly<const COUNT: usize>(self) -> Option<[Value<'p>; COUNT]> {
        if self.len() == COUNT { self.first_many() } else { None }
    }

    /// The first few, if there are as many.
    pub(crate) fn first_many<const COUNT: usize>(self) -> Option<[Value<'p>; COUNT]> {
        self.many_from(0)
    }

    /// The last few, if there are as many.
    pub(crate) fn last_many<const COUNT: usize>(self) -> Option<[Value<'p>; COUNT]> {
        self.many_from(self.len().checked_sub(COUNT)?)
    }

    fn many_from<const COUNT: usize>(self, start: usize) -> Option<[Value<'p>; COUNT]> {
        let taken: Vec<Value<'p>> =
            (start..start + COUNT).map(|index| self.get(index)).collect::<Option<_>>()?;
        taken.try_into().ok()
    }

    /// One after the other.
    pub(crate) fn iter(self) -> impl DoubleEndedIterator<Item = Value<'p>> {
        self.initial.iter().chain(self.added).map(move |id| {
            self.pickle.count_steps(1);
            Value { pickle: self.pickle, id: *id }
        })
    }
}

/// Keys and values of a dictionary, in the order in which they were set. A key that was set twice comes
/// twice; the last one counts.
#[derive(Clone, Copy)]
pub(crate) struct Entries<'p> {
    pub(super) pickle: &'p Pickle<'p>,
    /// The pairs that the dictionary was made from.
    pub(super) initial: &'p [Id],
    /// What was set in it later.
    pub(super) added: &'p [(Id, Id)],
}

impl<'p> Entries<'p> {
    /// Whether there are none.
    pub(crate) fn is_empty(self) -> bool {
        self.initial.is_empty() && self.added.is_empty()
    }

    /// One after the other. What should be a pair and is none stands for itself, as key and as value: so
    /// it counts as one entry, as all others do, and nothing is found by it.
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

/// Bytes as they stand in a pickle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bytes<'p> {
    /// As they are.
    Plain(&'p [u8]),
    /// As the text whose code points they are, as protocol 2 and below write them.
    Latin1(&'p str),
}

impl<'p> Bytes<'p> {
    /// Whether there can be so many. Decodes nothing: of a text only its own bytes are counted, and those
    /// give one byte or are two for one.
    pub(crate) fn can_be(self, count: usize) -> bool {
        match self {
            Self::Plain(bytes) => bytes.len() == count,
            Self::Latin1(text) => count <= text.len() && text.len().div_ceil(2) <= count,
        }
    }

    /// How many there are, of an encoded text at most.
    pub(crate) fn most(self) -> usize {
        match self {
            Self::Plain(bytes) => bytes.len(),
            Self::Latin1(text) => text.len(),
        }
    }

    /// The bytes themselves; `None` for a text of other code points than bytes have.
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
