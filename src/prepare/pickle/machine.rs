//! The stack machine: turns instructions into values.
//!
//! Does not depend on classes: a call is recorded, never made.

use std::borrow::Cow;
use std::collections::HashMap;

use super::cursor::Cursor;
use super::error::PickleError;
use super::limits::PickleLimits;
use super::value::{Id, Node, Object, Pickle};
use super::{literal, opcode as op};

/// The highest protocol that exists.
const PROTOCOL: u8 = 5;

type Step<T = ()> = Result<T, String>;

/// A pickle while it is read.
pub(super) struct Machine<'data> {
    cursor: Cursor<'data>,
    limits: PickleLimits,
    nodes: Vec<Node<'data>>,
    stack: Vec<Id>,
    /// The height of the stack at each mark.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'data> Machine<'data> {
    pub(super) fn new(data: &'data [u8], limits: PickleLimits) -> Self {
        Self {
            cursor: Cursor::new(data),
            limits,
            nodes: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
        }
    }

    /// Reads up to the end of the pickle.
    pub(super) fn run(mut self) -> Result<Pickle<'data>, PickleError> {
        for _ in 0..self.limits.instructions {
            let offset = self.cursor.offset();
            let at = |problem| PickleError { offset, problem };
            let opcode = self.cursor.byte().map_err(at)?;
            if opcode == op::STOP {
                let root = self.pop().map_err(at)?;
                return Ok(Pickle::new(self.nodes, root, self.cursor.offset()));
            }
            self.step(opcode).map_err(at)?;
        }
        let problem = format!("it has more than {} instructions", self.limits.instructions);
        Err(PickleError { offset: self.cursor.offset(), problem })
    }

    fn step(&mut self, opcode: u8) -> Step {
        match opcode {
            op::PROTO => self.protocol(),
            op::FRAME => self.frame(),
            op::MARK => self.mark(),
            op::POP => self.discard(),
            op::POP_MARK => self.above_mark().map(drop),
            op::DUP => {
                let top = self.top()?;
                self.push(top)
            }
            op::PUT | op::BINPUT | op::LONG_BINPUT | op::MEMOIZE => self.put(opcode),
            op::GET | op::BINGET | op::LONG_BINGET => self.get(opcode),
            op::APPEND | op::APPENDS | op::ADDITEMS => self.append(opcode),
            op::SETITEM | op::SETITEMS => self.set_items(opcode),
            op::BUILD => self.build(),
            op::EXT1 | op::EXT2 | op::EXT4 => {
                Err("a class by its number in Python's extension registry".to_owned())
            }
            op::NEXT_BUFFER => Err("its data are in a buffer outside of it".to_owned()),
            op::READONLY_BUFFER => self.top().map(drop),
            _ => match self.scalar(opcode)? {
                Some(node) => self.push_node(node),
                None => {
                    let node = self.compound(opcode)?;
                    self.push_node(node)
                }
            },
        }
    }

    /// The instructions that push a number, text or bytes; `None` for any other.
    fn scalar(&mut self, opcode: u8) -> Step<Option<Node<'data>>> {
        let cursor = &mut self.cursor;
        Ok(Some(match opcode {
            op::NONE => Node::None,
            op::NEWTRUE => Node::Bool(true),
            op::NEWFALSE => Node::Bool(false),
            op::BININT => Node::Integer(i32::from_le_bytes(cursor.array()?).into()),
            op::BININT1 => Node::Integer(cursor.byte()?.into()),
            op::BININT2 => Node::Integer(u16::from_le_bytes(cursor.array()?).into()),
            op::INT => match cursor.line()? {
                b"00" => Node::Bool(false),
                b"01" => Node::Bool(true),
                line => literal::decimal(line)?.map_or(Node::HugeInteger, Node::Integer),
            },
            op::LONG => literal::decimal(cursor.line()?)?.map_or(Node::HugeInteger, Node::Integer),
            op::LONG1 | op::LONG4 => {
                let count = if opcode == op::LONG1 {
                    cursor.byte()?.into()
                } else {
                    cursor.signed_count()?
                };
                literal::long(cursor.take(count)?).map_or(Node::HugeInteger, Node::Integer)
            }
            op::FLOAT => Node::Float(literal::float(cursor.line()?)?),
            op::BINFLOAT => Node::Float(f64::from_be_bytes(cursor.array()?)),
            op::STRING => Node::Bytes(literal::quoted(cursor.line()?)?),
            op::BINSTRING => Node::Bytes(signed_length(cursor)?),
            op::SHORT_BINSTRING | op::SHORT_BINBYTES => Node::Bytes(byte_length(cursor)?),
            op::BINBYTES => Node::Bytes(word_length(cursor)?),
            op::BINBYTES8 | op::BYTEARRAY8 => Node::Bytes(long_length(cursor)?),
            op::UNICODE => Node::Text(Cow::Owned(literal::raw_unicode(cursor.line()?)?)),
            op::SHORT_BINUNICODE => text(byte_length(cursor)?),
            op::BINUNICODE => text(word_length(cursor)?),
            op::BINUNICODE8 => text(long_length(cursor)?),
            _ => return Ok(None),
        }))
    }

    /// The instructions that push a container, a global or an object.
    fn compound(&mut self, opcode: u8) -> Step<Node<'data>> {
        Ok(match opcode {
            op::EMPTY_LIST => Node::List(Vec::new()),
            op::LIST => Node::List(self.above_mark()?),
            op::EMPTY_TUPLE => Node::Tuple(Vec::new()),
            op::TUPLE => Node::Tuple(self.above_mark()?),
            op::TUPLE1 => Node::Tuple(self.top_many(1)?),
            op::TUPLE2 => Node::Tuple(self.top_many(2)?),
            op::TUPLE3 => Node::Tuple(self.top_many(3)?),
            op::EMPTY_SET => Node::Set(Vec::new()),
            op::FROZENSET => Node::Set(self.above_mark()?),
            op::EMPTY_DICT => Node::Dict(Vec::new()),
            op::DICT => Node::Dict(pairs(&self.above_mark()?)?),
            op::PERSID => {
                let line = self.cursor.line()?;
                Node::Persistent(self.add(Node::Text(literal::utf8(line)))?)
            }
            op::BINPERSID => Node::Persistent(self.pop()?),
            op::GLOBAL => self.global()?,
            op::STACK_GLOBAL => {
                let (name, module) = (self.pop()?, self.pop()?);
                for id in [name, module] {
                    if !matches!(self.nodes.get(id.index()), Some(Node::Text(_))) {
                        return Err("the name of a class is not text".to_owned());
                    }
                }
                Node::Global { module, name }
            }
            op::REDUCE | op::NEWOBJ => {
                let (arguments, constructor) = (self.pop()?, self.pop()?);
                self.object(constructor, arguments)?
            }
            op::NEWOBJ_EX => {
                let _keywords = self.pop()?;
                let (arguments, constructor) = (self.pop()?, self.pop()?);
                self.object(constructor, arguments)?
            }
            op::INST => {
                let constructor = self.global()?;
                let constructor = self.add(constructor)?;
                let arguments = Node::Tuple(self.above_mark()?);
                let arguments = self.add(arguments)?;
                self.object(constructor, arguments)?
            }
            op::OBJ => {
                let mut arguments = self.above_mark()?.into_iter();
                let constructor = arguments.next().ok_or("an object without a class")?;
                let arguments = self.add(Node::Tuple(arguments.collect()))?;
                self.object(constructor, arguments)?
            }
            _ if opcode.is_ascii_graphic() => {
                return Err(format!("unknown instruction '{}'", char::from(opcode)));
            }
            _ => return Err(format!("unknown instruction {opcode:#04x}")),
        })
    }

    fn protocol(&mut self) -> Step {
        match self.cursor.byte()? {
            0..=PROTOCOL => Ok(()),
            other => Err(format!("protocol {other}; the highest known is {PROTOCOL}")),
        }
    }

    /// Frames are for readers of streams; only their length is checked.
    fn frame(&mut self) -> Step {
        let length = u64::from_le_bytes(self.cursor.array()?);
        let remaining = self.cursor.remaining() as u64;
        if length > remaining {
            return Err(format!(
                "it ends too early: {length} bytes should follow, but {remaining} are left"
            ));
        }
        Ok(())
    }

    fn mark(&mut self) -> Step {
        if self.marks.len() >= self.limits.marks {
            return Err(format!("it is nested deeper than {}", self.limits.marks));
        }
        self.marks.push(self.stack.len());
        Ok(())
    }

    /// Drops the top of the stack, which can be a mark.
    fn discard(&mut self) -> Step {
        if self.marks.last() == Some(&self.stack.len()) {
            self.marks.pop();
            return Ok(());
        }
        self.pop().map(drop)
    }

    fn put(&mut self, opcode: u8) -> Step {
        let index = match opcode {
            op::PUT => literal::index(self.cursor.line()?)?,
            op::BINPUT => self.cursor.byte()?.into(),
            op::LONG_BINPUT => u32::from_le_bytes(self.cursor.array()?),
            _ => u32::try_from(self.memo.len()).map_err(|_| "too many memo entries")?,
        };
        let top = self.top()?;
        if self.memo.len() >= self.limits.values && !self.memo.contains_key(&index) {
            return Err(format!("it has more than {} memo entries", self.limits.values));
        }
        self.memo.insert(index, top);
        Ok(())
    }

    fn get(&mut self, opcode: u8) -> Step {
        let index = match opcode {
            op::GET => literal::index(self.cursor.line()?)?,
            op::BINGET => self.cursor.byte()?.into(),
            _ => u32::from_le_bytes(self.cursor.array()?),
        };
        let id = self.memo.get(&index).copied();
        self.push(id.ok_or_else(|| format!("the memo has no entry {index}"))?)
    }

    fn append(&mut self, opcode: u8) -> Step {
        let added = if opcode == op::APPEND { self.top_many(1)? } else { self.above_mark()? };
        match self.top_node()? {
            Node::List(items) if opcode != op::ADDITEMS => items.extend(added),
            Node::Set(items) if opcode == op::ADDITEMS => items.extend(added),
            Node::Object(object) => object.items.extend(added),
            _ => return Err("it adds an item to a value that is not a container".to_owned()),
        }
        Ok(())
    }

    fn set_items(&mut self, opcode: u8) -> Step {
        let added = if opcode == op::SETITEM { self.top_many(2)? } else { self.above_mark()? };
        let added = pairs(&added)?;
        match self.top_node()? {
            Node::Dict(entries) => entries.extend(added),
            Node::Object(object) => object.entries.extend(added),
            _ => return Err("it sets an entry of a value that is not a dictionary".to_owned()),
        }
        Ok(())
    }

    fn build(&mut self) -> Step {
        let state = self.pop()?;
        match self.top_node()? {
            Node::Object(object) => {
                object.state = Some(state);
                Ok(())
            }
            _ => Err("it sets the state of a value that is not an object".to_owned()),
        }
    }

    fn global(&mut self) -> Step<Node<'data>> {
        let module = Node::Text(literal::utf8(self.cursor.line()?));
        let name = Node::Text(literal::utf8(self.cursor.line()?));
        Ok(Node::Global { module: self.add(module)?, name: self.add(name)? })
    }

    fn object(&self, constructor: Id, arguments: Id) -> Step<Node<'data>> {
        match self.nodes.get(arguments.index()) {
            Some(Node::Tuple(_)) => Ok(Node::Object(Box::new(Object::new(constructor, arguments)))),
            _ => Err("the arguments of a call are not a tuple".to_owned()),
        }
    }

    /// The lowest position of the stack above the last mark.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn add(&mut self, node: Node<'data>) -> Step<Id> {
        if self.nodes.len() >= self.limits.values {
            return Err(format!("it has more than {} values", self.limits.values));
        }
        let id = Id::new(self.nodes.len()).ok_or("it has too many values")?;
        self.nodes.push(node);
        Ok(id)
    }

    fn push(&mut self, id: Id) -> Step {
        self.stack.push(id);
        Ok(())
    }

    fn push_node(&mut self, node: Node<'data>) -> Step {
        let id = self.add(node)?;
        self.push(id)
    }

    fn top(&self) -> Step<Id> {
        let above = self.stack.get(self.floor()..).unwrap_or_default();
        above.last().copied().ok_or_else(empty_stack)
    }

    fn top_node(&mut self) -> Step<&mut Node<'data>> {
        let top = self.top()?;
        self.nodes.get_mut(top.index()).ok_or_else(empty_stack)
    }

    fn pop(&mut self) -> Step<Id> {
        self.top()?;
        self.stack.pop().ok_or_else(empty_stack)
    }

    /// The topmost `count` values, taken off the stack, the lowest first.
    fn top_many(&mut self, count: usize) -> Step<Vec<Id>> {
        let start = self.stack.len().checked_sub(count).filter(|start| *start >= self.floor());
        Ok(self.stack.drain(start.ok_or_else(empty_stack)?..).collect())
    }

    /// All values above the last mark, taken off the stack with it.
    fn above_mark(&mut self) -> Step<Vec<Id>> {
        let height = self.marks.pop().ok_or("it uses a mark that does not exist")?;
        Ok(self.stack.drain(height.min(self.stack.len())..).collect())
    }
}

fn empty_stack() -> String {
    "it uses a value that does not exist".to_owned()
}

/// Keys and values, one after the other, as entries.
fn pairs(ids: &[Id]) -> Step<Vec<(Id, Id)>> {
    let (pairs, rest) = ids.as_chunks::<2>();
    if !rest.is_empty() {
        return Err("a dictionary has a key without a value".to_owned());
    }
    Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect())
}

fn text(bytes: Cow<'_, [u8]>) -> Node<'_> {
    Node::Text(match bytes {
        Cow::Borrowed(bytes) => literal::utf8(bytes),
        Cow::Owned(bytes) => Cow::Owned(literal::utf8(&bytes).into_owned()),
    })
}

fn byte_length<'data>(cursor: &mut Cursor<'data>) -> Step<Cow<'data, [u8]>> {
    let count = cursor.byte()?;
    Ok(Cow::Borrowed(cursor.take(count.into())?))
}

fn signed_length<'data>(cursor: &mut Cursor<'data>) -> Step<Cow<'data, [u8]>> {
    let count = cursor.signed_count()?;
    Ok(Cow::Borrowed(cursor.take(count)?))
}

fn word_length<'data>(cursor: &mut Cursor<'data>) -> Step<Cow<'data, [u8]>> {
    let count = u32::from_le_bytes(cursor.array()?);
    Ok(Cow::Borrowed(cursor.take(count.into())?))
}

fn long_length<'data>(cursor: &mut Cursor<'data>) -> Step<Cow<'data, [u8]>> {
    let count = u64::from_le_bytes(cursor.array()?);
    Ok(Cow::Borrowed(cursor.take(count)?))
}
