//! Reads Python's pickles, protocols 0 to 5, without Python and without running anything in them.
//!
//! A pickle is a program for a small stack machine, and some of its instructions call Python. Here they
//! call nothing: a call becomes a record of the call (its class, arguments and state), and [`Value`]
//! interprets the few calls that represent plain data (NumPy arrays and numbers, ordered dictionaries,
//! encoded bytes). All others are not interpreted.
//!
//! Memory is linear in the bytes that are read, and bounded by [`PickleLimits`]. A value that a pickle refers to
//! many times exists once: values refer to each other by index, so sharing cannot multiply them, and
//! depth does not use the stack. A value can contain itself: a caller that walks through values must limit
//! the walk. Access to one value costs the same for any content, until its items or its numbers are read.
//!
//! Does not depend on files or on a format around a pickle.
//!
//! Source of the instructions: the comments of CPython's `Lib/pickletools.py`.

mod cursor;
mod error;
mod limits;
mod literal;
mod machine;
mod numpy;
mod opcode;
mod parts;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
mod value;

pub(crate) use error::PickleError;
pub(crate) use limits::PickleLimits;
pub(crate) use numpy::Array;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use parts::Entries;
pub(crate) use parts::Items;
pub(crate) use value::{Pickle, Value};

/// Reads the pickle at the start of `data`. What follows it is not read: [`Pickle::length`] is where
/// it ends.
///
/// # Errors
/// With the offset, when the pickle is cut off, damaged, beyond the limits, or keeps data outside
/// itself (buffers of protocol 5, codes of the extension registry).
pub(crate) fn read<'data>(
    data: &'data [u8],
    limits: &PickleLimits,
) -> Result<Pickle<'data>, PickleError> {
    machine::Machine::new(data, *limits).run()
}
