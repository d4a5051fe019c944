//! NumPy's arrays and scalars as NumPy pickles them: inline, with their type, shape and order.
//!
//! Source: `array_reduce`, `array_setstate` and `arraydescr_setstate` of NumPy, whose tuples these are.

use std::borrow::Cow;

use super::parts::{Bytes, Items};
use super::value::Value;

/// The modules that NumPy 1 and 2 keep their helpers in.
const MULTIARRAY: &[&str] = &["numpy.core.multiarray", "numpy._core.multiarray"];
const NUMERIC: &[&str] = &["numpy.core.numeric", "numpy._core.numeric"];
/// At least as many as NumPy allows, and few enough for the loops here.
const MOST_DIMENSIONS: usize = 64;

/// An array of numbers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Array<'p> {
    /// The length of each dimension.
    pub shape: Vec<usize>,
    element: Element,
    /// As many elements as the shape has, in the order of `fortran`. For bytes that are text in the pickle, only its
    /// length was checked.
    bytes: Bytes<'p>,
    /// Whether the order is column-major.
    fortran: bool,
}

/// The type of an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Element {
    number: Number,
    /// Bytes of one.
    size: usize,
    big_endian: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    Bool,
    Signed,
    Unsigned,
    Float,
}

impl<'p> Array<'p> {
    /// The array that a value represents; `None` for a value that is not an array.
    ///
    /// # Errors
    /// With a message for people, when it is an array but not of numbers, or its bytes do not fit its
    /// shape.
    pub(crate) fn of(value: Value<'p>) -> Option<Result<Self, String>> {
        let call = value.call()?;
        if call.is(MULTIARRAY, "_reconstruct") {
            return Some(Self::from_state(call.state));
        }
        if call.is(NUMERIC, "_frombuffer") {
            return Some(Self::from_buffer(call.arguments));
        }
        None
    }

    /// The scalar that a value represents, as an array without dimensions.
    pub(super) fn scalar(value: Value<'p>) -> Option<Self> {
        let call = value.call().filter(|call| call.is(MULTIARRAY, "scalar"))?;
        let [dtype, bytes] = call.arguments.items()?.exactly()?;
        let element = Element::of(dtype).ok()?;
        Self { shape: Vec::new(), element, bytes: bytes.bytes()?, fortran: false }.checked().ok()
    }

    /// From `(version, shape, dtype, is_fortran, bytes)`; the oldest have no version.
    fn from_state(state: Option<Value<'p>>) -> Result<Self, String> {
        let state = state.and_then(Value::items).and_then(Items::last_many);
        let [shape, dtype, fortran, bytes] = state.ok_or("a NumPy array without its state")?;
        let element = Element::of(dtype)?;
        let fortran = fortran.boolean().ok_or("a NumPy array without its order")?;
        Self::new(shape, element, bytes, fortran)
    }

    /// From `(bytes, dtype, shape, order)`, as protocol 5 has them.
    fn from_buffer(arguments: Value<'p>) -> Result<Self, String> {
        let parts = arguments.items().and_then(Items::exactly);
        let [bytes, dtype, shape, order] = parts.ok_or("a NumPy array without its four parts")?;
        let fortran = match order.text() {
            Some("C") => false,
            Some("F") => true,
            _ => return Err("a NumPy array without its order".to_owned()),
        };
        Self::new(shape, Element::of(dtype)?, bytes, fortran)
    }

    fn new(
        shape: Value<'p>,
        element: Element,
        bytes: Value<'p>,
        fortran: bool,
    ) -> Result<Self, String> {
        let sizes = shape.items().ok_or("a NumPy array without its shape")?;
        if sizes.len() > MOST_DIMENSIONS {
            return Err(format!("a NumPy array of {} dimensions", sizes.len()));
        }
        let shape: Option<Vec<usize>> = sizes.iter().map(Value::size).collect();
        let shape = shape.ok_or("a NumPy array without its shape")?;
        let bytes = bytes.bytes().ok_or("a NumPy array without its bytes")?;
        Self { shape, element, bytes, fortran }.checked()
    }

    fn checked(self) -> Result<Self, String> {
        match self.byte_count() {
            Some(count) if self.bytes.can_be(count) => Ok(self),
            _ => Err(self.misfit(self.bytes.most())),
        }
    }

    /// The number of bytes of all elements, if it does not overflow.
    fn byte_count(&self) -> Option<usize> {
        let sizes = self.shape.iter().chain([&self.element.size]);
        sizes.copied().try_fold(1, usize::checked_mul)
    }

    fn misfit(&self, bytes: usize) -> String {
        let Self { shape, element: Element { size, .. }, .. } = self;
        format!(
            "a NumPy array of the shape {shape:?} with elements of {size} bytes, but {bytes} bytes of content"
        )
    }

    /// Whether the elements are floats.
    pub(crate) fn is_float(&self) -> bool {
        self.element.number == Number::Float
    }

    /// Bytes of one element.
    pub(crate) fn element_size(&self) -> usize {
        self.element.size
    }

    /// The elements of an array of unsigned bytes in row-major order.
    ///
    /// # Errors
    /// When the elements are of another type, or their number does not match the shape.
    pub(crate) fn unsigned_bytes(&self) -> Result<Cow<'p, [u8]>, String> {
        match self.element {
            Element { number: Number::Unsigned, size: 1, .. } => self.in_order(),
            _ => Err(format!("a NumPy array of {}, not of unsigned bytes", self.element.words())),
        }
    }

    /// The elements of an array of integers in row-major order.
    ///
    /// # Errors
    /// When they are not integers, one does not fit in 64 bits, or their number does not match the shape.
    pub(crate) fn integers(&self) -> Result<Vec<i64>, String> {
        let element = self.element;
        if matches!(element.number, Number::Bool | Number::Float) {
            return Err(format!("a NumPy array of {}, not of integers", element.words()));
        }
        let elements = self.in_order()?;
        let integers = elements.chunks_exact(element.size).map(|bytes| element.integer(bytes));
        integers
            .collect::<Option<_>>()
            .ok_or_else(|| "an integer does not fit in 64 bits".to_owned())
    }

    /// The elements of an array of integers or floats in row-major order.
    ///
    /// # Errors
    /// When they are not numbers, or their number does not match the shape.
    pub(crate) fn floats(&self) -> Result<Vec<f64>, String> {
        let element = self.element;
        match element.number {
            Number::Bool => Err("a NumPy array of booleans, not of numbers".to_owned()),
            Number::Float => {
                let elements = self.in_order()?;
                Ok(elements.chunks_exact(element.size).map(|bytes| element.float(bytes)).collect())
            }
            _ => Ok(self.integers()?.into_iter().map(|integer| integer as f64).collect()),
        }
    }

    /// The bytes of the elements in row-major order. Bytes that are text in the pickle are decoded here, on
    /// every call: a name of the array alone costs nothing.
    fn in_order(&self) -> Result<Cow<'p, [u8]>, String> {
        let bytes = self.bytes.decoded().ok_or("a NumPy array without its bytes")?;
        if self.byte_count() != Some(bytes.len()) {
            return Err(self.misfit(bytes.len()));
        }
        if !self.fortran || self.shape.len() < 2 || bytes.is_empty() {
            return Ok(bytes);
        }
        let size = self.element.size;
        let mut strides = Vec::with_capacity(self.shape.len());
        let mut stride = size;
        for length in &self.shape {
            strides.push(stride);
            stride *= length;
        }
        let mut ordered = Vec::with_capacity(bytes.len());
        let mut index = vec![0; self.shape.len()];
        while ordered.len() < bytes.len() {
            let start: usize =
                index.iter().zip(&strides).map(|(index, stride)| index * stride).sum();
            ordered.extend_from_slice(bytes.get(start..start + size).unwrap_or_default());
            for (index, length) in index.iter_mut().zip(&self.shape).rev() {
                *index += 1;
                if *index < *length {
                    break;
                }
                *index = 0;
            }
        }
        Ok(Cow::Owned(ordered))
    }
}

impl Element {
    /// From `dtype(text, ...)` with the state `(version, byte order, ...)`.
    fn of(dtype: Value<'_>) -> Result<Self, String> {
        let no_numbers = || "a NumPy array whose elements are not plain numbers".to_owned();
        let call =
            dtype.call().filter(|call| call.is(&["numpy"], "dtype")).ok_or_else(no_numbers)?;
        let code = call.arguments.items().and_then(|arguments| arguments.get(0));
        let code = code.and_then(Value::text).unwrap_or_default();
        let order = call.state.and_then(Value::items).and_then(|state| state.get(1));
        let order = order.and_then(Value::text);
        let big_endian = order == Some(">") || code.starts_with('>');
        let (number, size) = match code.trim_start_matches(['<', '>', '|', '=']) {
            "b1" | "?" => (Number::Bool, 1),
            "i1" => (Number::Signed, 1),
            "i2" => (Number::Signed, 2),
            "i4" => (Number::Signed, 4),
            "i8" => (Number::Signed, 8),
            "u1" => (Number::Unsigned, 1),
            "u2" => (Number::Unsigned, 2),
            "u4" => (Number::Unsigned, 4),
            "u8" => (Number::Unsigned, 8),
            "f4" => (Number::Float, 4),
            "f8" => (Number::Float, 8),
            _ => return Err(no_numbers()),
        };
        Ok(Self { number, size, big_endian })
    }

    fn words(self) -> String {
        let bits = self.size * 8;
        match self.number {
            Number::Bool => "booleans".to_owned(),
            Number::Signed => format!("integers of {bits} bits"),
            Number::Unsigned => format!("unsigned integers of {bits} bits"),
            Number::Float => format!("floats of {bits} bits"),
        }
    }

    /// The bytes of one element, little-endian, widened with zeros.
    fn widened(self, bytes: &[u8]) -> [u8; 8] {
        let mut wide = [0; 8];
        for (index, slot) in wide.iter_mut().enumerate().take(bytes.len()) {
            let from = if self.big_endian { bytes.len() - 1 - index } else { index };
            *slot = bytes.get(from).copied().unwrap_or_default();
        }
        wide
    }

    fn integer(self, bytes: &[u8]) -> Option<i64> {
        let wide = u64::from_le_bytes(self.widened(bytes));
        if self.number == Number::Unsigned {
            return i64::try_from(wide).ok();
        }
        let unused = 64 - 8 * self.size as u32;
        Some((wide as i64) << unused >> unused)
    }

    fn float(self, bytes: &[u8]) -> f64 {
        let wide = self.widened(bytes);
        if self.size == 8 {
            return f64::from_le_bytes(wide);
        }
        let [first, second, third, fourth, ..] = wide;
        f64::from(f32::from_le_bytes([first, second, third, fourth]))
    }
}
