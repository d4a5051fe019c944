//! The content of a pickle: values in one table, which refer to each other by index.
//!
//! [`Value`] is a handle to one of them, and interprets the few calls that represent plain data.
//! Does not depend on instructions or tensors.

use std::borrow::Cow;

use pipeline_stages::text::{in_short, shortened};

use super::numpy::Array;
use super::parts::{Bytes, Entries, Items};

/// The index of a value in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Id(u32);

impl Id {
    pub(super) fn new(index: usize) -> Option<Self> {
        u32::try_from(index).ok().map(Self)
    }

    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// One value.
#[derive(Debug)]
pub(super) enum Node<'data> {
    None,
    Bool(bool),
    Integer(i128),
    /// An integer of more than 128 bits.
    HugeInteger,
    Float(f64),
    /// Python 3's bytes and Python 2's strings.
    Bytes(Cow<'data, [u8]>),
    Text(Cow<'data, str>),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Set(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A class or function by its name, both texts.
    Global {
        module: Id,
        name: Id,
    },
    Object(Box<Object>),
    /// A value outside the pickle, by its identifier.
    Persistent(Id),
}

/// A call that was not made, and the changes to its result.
#[derive(Debug)]
pub(super) struct Object {
    constructor: Id,
    arguments: Id,
    pub(super) state: Option<Id>,
    pub(super) items: Vec<Id>,
    pub(super) entries: Vec<(Id, Id)>,
}

impl Object {
    pub(super) fn new(constructor: Id, arguments: Id) -> Self {
        Self { constructor, arguments, state: None, items: Vec::new(), entries: Vec::new() }
    }
}

/// A pickle that was read.
#[derive(Debug)]
pub(crate) struct Pickle<'data> {
    nodes: Vec<Node<'data>>,
    root: Id,
    length: usize,
    /// The number of values that were read, and of bytes that were decoded for them.
    #[cfg(test)]
    steps: std::cell::Cell<usize>,
}

impl<'data> Pickle<'data> {
    pub(super) fn new(nodes: Vec<Node<'data>>, root: Id, length: usize) -> Self {
        Self {
            nodes,
            root,
            length,
            #[cfg(test)]
            steps: std::cell::Cell::default(),
        }
    }

    /// The value of the pickle.
    pub(crate) fn root(&self) -> Value<'_> {
        Value { pickle: self, id: self.root }
    }

    /// All values outside the pickle; see [`Value::persistent`].
    pub(crate) fn outside(&self) -> impl Iterator<Item = Value<'_>> {
        let values = (0..self.nodes.len()).filter_map(Id::new).map(|id| Value { pickle: self, id });
        values.filter(|value| matches!(value.node(), Node::Persistent(_)))
    }

    /// Objects, the outer ones first: Python makes an object before what is in it.
    pub(crate) fn objects(&self) -> impl Iterator<Item = Value<'_>> {
        let values = (0..self.nodes.len()).filter_map(Id::new).map(|id| Value { pickle: self, id });
        values.filter(|value| matches!(value.node(), Node::Object(_)))
    }

    /// Bytes that its values take.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        let parts = |node: &Node<'_>| match node {
            Node::List(ids) | Node::Tuple(ids) | Node::Set(ids) => {
                16 + size_of::<Id>() * ids.capacity()
            }
            Node::Dict(entries) => 16 + 2 * size_of::<Id>() * entries.capacity(),
            Node::Object(object) => {
                let Object { items, entries, .. } = &**object;
                let ids = items.capacity() + 2 * entries.capacity();
                64 + size_of::<Object>() + size_of::<Id>() * ids
            }
            Node::Bytes(Cow::Owned(bytes)) => bytes.capacity(),
            Node::Text(Cow::Owned(text)) => text.capacity(),
            _ => 0,
        };
        let nodes = self.nodes.capacity() * size_of::<Node<'_>>();
        nodes + self.nodes.iter().map(parts).sum::<usize>()
    }

    /// How much work was done to read its values.
    #[cfg(test)]
    pub(crate) fn steps(&self) -> usize {
        self.steps.get()
    }

    pub(super) fn count_steps(&self, _steps: usize) {
        #[cfg(test)]
        self.steps.set(self.steps.get() + _steps);
    }

    /// How many bytes the pickle takes.
    pub(crate) fn length(&self) -> usize {
        self.length
    }
}

/// A value of a pickle.
#[derive(Clone, Copy)]
pub(crate) struct Value<'p> {
    pub(super) pickle: &'p Pickle<'p>,
    pub(super) id: Id,
}

/// A call that was not made: `module.name(*arguments)`.
#[derive(Clone, Copy)]
pub(crate) struct Call<'p> {
    /// The module of the class or function.
    pub module: &'p str,
    /// Its name in the module.
    pub name: &'p str,
    /// The arguments of the call: a tuple.
    pub arguments: Value<'p>,
    /// The state that the result would have been set to.
    pub state: Option<Value<'p>>,
}

impl Call<'_> {
    /// Whether it is `name` of `module` or, where the two differ, of Python 2's or NumPy 1's module.
    pub(crate) fn is(&self, modules: &[&str], name: &str) -> bool {
        self.name == name && modules.contains(&self.module)
    }
}

impl<'p> Value<'p> {
    /// Whether it is `None`.
    pub(crate) fn is_none(self) -> bool {
        matches!(self.node(), Node::None)
    }

    /// A boolean; also NumPy's, and 0 and 1 of protocol 0 and 1.
    pub(crate) fn boolean(self) -> Option<bool> {
        match self.node() {
            Node::Bool(value) => Some(*value),
            _ => match self.integer()? {
                0 => Some(false),
                1 => Some(true),
                _ => None,
            },
        }
    }

    /// An integer of at most 64 bits, also one of NumPy's. Not a boolean.
    pub(crate) fn integer(self) -> Option<i64> {
        match self.node() {
            Node::Integer(value) => i64::try_from(*value).ok(),
            Node::Object(_) => self.numpy_scalar()?.integers().ok()?.first().copied(),
            _ => None,
        }
    }

    /// An integer of at most 128 bits.
    pub(crate) fn wide_integer(self) -> Option<i128> {
        match self.node() {
            Node::Integer(value) => Some(*value),
            _ => self.integer().map(i128::from),
        }
    }

    /// An index or a size: an integer that is not negative.
    pub(crate) fn size(self) -> Option<usize> {
        usize::try_from(self.integer()?).ok()
    }

    /// A float or an integer, also one of NumPy's.
    pub(crate) fn float(self) -> Option<f64> {
        match self.node() {
            Node::Float(value) => Some(*value),
            Node::Integer(value) => Some(*value as f64),
            Node::Object(_) => self.numpy_scalar()?.floats().ok()?.first().copied(),
            _ => None,
        }
    }

    /// Text: also Python 2's strings, and bytes of any protocol if they are UTF-8 and not longer than names and paths:
    /// longer ones would have to be checked again for each name that refers to them. Bytes that protocol 2 and below
    /// write as encoded text must be ASCII here; see [`Value::owned_text`].
    pub(crate) fn text(self) -> Option<&'p str> {
        self.plain_text().or_else(|| match self.bytes()? {
            Bytes::Plain(bytes) => short_text(bytes),
            Bytes::Latin1(text) => {
                (text.len() <= MOST_BYTES_OF_TEXT && text.is_ascii()).then_some(text)
            }
        })
    }

    /// As [`Value::text`], for all bytes that are UTF-8.
    pub(crate) fn owned_text(self) -> Option<String> {
        let encoded = || {
            let bytes = self.bytes().filter(|bytes| bytes.most() <= MOST_BYTES_OF_TEXT)?;
            String::from_utf8(bytes.decoded()?.into_owned()).ok()
        };
        self.text().map(str::to_owned).or_else(encoded)
    }

    /// Bytes: also Python 2's strings, and those that protocol 2 and below write as encoded text. They are
    /// not decoded yet.
    pub(crate) fn bytes(self) -> Option<Bytes<'p>> {
        if let Some(bytes) = self.plain_bytes() {
            return Some(bytes);
        }
        let call = self.call()?;
        let array = call.is(BUILTINS, "bytearray");
        let arguments = call.arguments.plain_items()?;
        match arguments.exactly() {
            Some([content]) if array => content.plain_bytes(),
            None if arguments.len() == 0 && (array || call.is(BUILTINS, "bytes")) => {
                Some(Bytes::Plain(&[]))
            }
            _ => None,
        }
    }

    /// The items of a list, tuple or set.
    pub(crate) fn items(self) -> Option<Items<'p>> {
        let Node::Object(object) = self.node() else { return self.plain_items() };
        let call = self.call()?;
        let container = ["list", "tuple", "set", "frozenset"];
        if !container.iter().any(|name| call.is(BUILTINS, name)) {
            return None;
        }
        let initial = call.initial_items()?;
        Some(Items { added: &object.items, ..initial })
    }

    /// Keys and values of a dictionary, or of an object that behaves as one.
    pub(crate) fn entries(self) -> Option<Entries<'p>> {
        match self.node() {
            Node::Dict(entries) => {
                Some(Entries { pickle: self.pickle, initial: &[], added: entries })
            }
            Node::Object(object) => {
                let ordered = self.call().filter(|call| call.is(&["collections"], "OrderedDict"));
                let initial = match ordered {
                    Some(call) => call.initial_items()?.initial,
                    None => &[],
                };
                let entries = Entries { pickle: self.pickle, initial, added: &object.entries };
                (ordered.is_some() || !entries.is_empty()).then_some(entries)
            }
            _ => None,
        }
    }

    /// The value of a key in a dictionary.
    pub(crate) fn get(self, key: &str) -> Option<Value<'p>> {
        let mut entries = self.entries()?.iter().rev();
        entries.find(|(name, _)| name.text() == Some(key)).map(|(_, value)| value)
    }

    /// The identifier of a value outside the pickle.
    pub(crate) fn persistent(self) -> Option<Value<'p>> {
        match self.node() {
            Node::Persistent(id) => Some(self.at(*id)),
            _ => None,
        }
    }

    /// A class or function, by its module and its name in it.
    pub(crate) fn global(self) -> Option<(&'p str, &'p str)> {
        match self.node() {
            Node::Global { module, name } => {
                Some((self.at(*module).plain_text()?, self.at(*name).plain_text()?))
            }
            _ => None,
        }
    }

    /// A class by itself or, in PyTorch's format before 1.6, with its source: `("module", class, file, source)`, outside
    /// the pickle.
    fn class(self) -> Option<(&'p str, &'p str)> {
        let with_source = || {
            let [kind, class] = self.persistent()?.plain_items()?.first_many()?;
            class.global().filter(|_| kind.plain_text() == Some("module"))
        };
        self.global().or_else(with_source)
    }

    /// The class of an object that protocols 0 and 1 make by a function: `copyreg._reconstructor(class, base, state)`.
    fn reconstructed(call: Call<'p>) -> Option<(&'p str, &'p str)> {
        let makes_objects = |name: &str| call.is(&["copyreg", "copy_reg"], name);
        let arguments = call.arguments.plain_items()?;
        let class = arguments
            .get(0)
            .filter(|_| makes_objects("_reconstructor") || makes_objects("__newobj__"));
        class?.class()
    }

    /// The call that would have made this object.
    pub(crate) fn call(self) -> Option<Call<'p>> {
        let Node::Object(object) = self.node() else { return None };
        let (module, name) = self.at(object.constructor).class()?;
        let arguments = self.at(object.arguments);
        Some(Call { module, name, arguments, state: object.state.map(|id| self.at(id)) })
    }

    /// The keys of a dictionary that are text, shortened for people; `None` if there are none.
    pub(crate) fn keys_in_short(self) -> Option<String> {
        let entries = self.entries()?;
        let mut keys = entries.iter().filter_map(|(key, _)| key.text()).map(shortened).peekable();
        keys.peek().is_some().then(|| in_short(keys, NAMED))
    }

    /// A short description for people.
    pub(crate) fn describe(self) -> String {
        match self.node() {
            Node::None => "None".to_owned(),
            Node::Bool(value) => format!("the boolean {value}"),
            Node::Integer(value) => format!("the integer {value}"),
            Node::HugeInteger => "an integer".to_owned(),
            Node::Float(value) => format!("the float {value:?}"),
            Node::Bytes(bytes) => format!("{} bytes", bytes.len()),
            Node::Text(text) => format!("the text '{}'", shortened(text)),
            Node::List(ids) => format!("a list of {}", ids.len()),
            Node::Tuple(ids) => format!("a tuple of {}", ids.len()),
            Node::Set(ids) => format!("a set of {}", ids.len()),
            Node::Dict(entries) => format!("a dictionary of {}", entries.len()),
            Node::Global { .. } => match self.global() {
                Some((module, name)) => {
                    format!("the class {}.{}", shortened(module), shortened(name))
                }
                None => "a class".to_owned(),
            },
            Node::Object(_) => match (self.integer(), self.float(), self.call()) {
                (Some(integer), ..) => format!("the integer {integer}"),
                (None, Some(float), _) => format!("the float {float:?}"),
                (None, None, Some(call)) => {
                    let function = (call.module, call.name);
                    let (module, name) = Self::reconstructed(call).unwrap_or(function);
                    format!("an object of {}.{}", shortened(module), shortened(name))
                }
                (None, None, None) => "an object".to_owned(),
            },
            Node::Persistent(_) => "a value outside the pickle".to_owned(),
        }
    }

    /// Whether both are the same value, not only equal.
    pub(crate) fn is(self, other: Self) -> bool {
        self.id == other.id
    }

    fn node(self) -> &'p Node<'p> {
        self.pickle.count_steps(1);
        // An index is always within the table: the machine makes them.
        self.pickle.nodes.get(self.id.index()).unwrap_or(&Node::None)
    }

    fn at(self, id: Id) -> Value<'p> {
        Value { pickle: self.pickle, id }
    }

    /// As [`Value::items`], but not through a call, which could contain itself.
    pub(super) fn plain_items(self) -> Option<Items<'p>> {
        match self.node() {
            Node::List(ids) | Node::Tuple(ids) | Node::Set(ids) => {
                Some(Items { pickle: self.pickle, initial: ids, added: &[] })
            }
            _ => None,
        }
    }

    /// As [`Value::text`], but not through a call, which could be nested in others.
    fn plain_text(self) -> Option<&'p str> {
        match self.node() {
            Node::Text(text) => Some(text),
            Node::Bytes(bytes) => short_text(bytes),
            _ => None,
        }
    }

    /// As [`Value::bytes`], but not those of a byte array, which could contain itself.
    fn plain_bytes(self) -> Option<Bytes<'p>> {
        if let Node::Bytes(bytes) = self.node() {
            return Some(Bytes::Plain(bytes));
        }
        let call = self.call().filter(|call| call.is(&["_codecs"], "encode"))?;
        let [text, encoding] = call.arguments.plain_items()?.exactly()?;
        let known = ["latin1", "latin-1", "iso-8859-1"].contains(&encoding.plain_text()?);
        match text.node() {
            Node::Text(text) if known => Some(Bytes::Latin1(text)),
            _ => None,
        }
    }

    /// The one element of `numpy.core.multiarray.scalar(dtype, bytes)`.
    fn numpy_scalar(self) -> Option<Array<'p>> {
        Array::scalar(self)
    }
}

impl<'p> Call<'p> {
    /// The items of a container that were passed to its class.
    fn initial_items(&self) -> Option<Items<'p>> {
        let arguments = self.arguments.plain_items()?;
        match arguments.get(0) {
            Some(items) => items.plain_items(),
            None => Some(Items { initial: &[], ..arguments }),
        }
    }
}

/// Bytes as text, if they are not too long.
fn short_text(bytes: &[u8]) -> Option<&str> {
    (bytes.len() <= MOST_BYTES_OF_TEXT).then(|| std::str::from_utf8(bytes).ok()).flatten()
}

/// The module of Python's own functions, in version 3 and 2.
const BUILTINS: &[&str] = &["builtins", "__builtin__"];

/// The longest text: paths on Linux and all names are shorter.
const MOST_BYTES_OF_TEXT: usize = 4096;

/// The most keys that a message names.
const NAMED: usize = 10;
