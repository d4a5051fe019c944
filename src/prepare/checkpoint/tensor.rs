//! A tensor in a checkpoint: a part of a storage, with strides.
//!
//! Source of the calls and their arguments: `torch/_utils.py` and `torch/_tensor.py`.

use std::borrow::Cow;

use super::element::Element;
use crate::pickle::{Array, Items, Value};

/// The most that PyTorch and NumPy allow.
const MOST_DIMENSIONS: usize = 64;

/// A tensor that is not read yet.
#[derive(Debug, Clone)]
pub(crate) struct Tensor<'c> {
    /// The type of its elements.
    pub element: Element,
    /// The length of each dimension.
    pub shape: Vec<usize>,
    /// Elements from one index to the next, per dimension.
    pub(super) strides: Vec<usize>,
    /// Elements before the first one.
    pub(super) offset: usize,
    pub(super) source: ElementSource<'c>,
}

/// Where the elements are.
#[derive(Debug, Clone)]
pub(super) enum ElementSource<'c> {
    Storage(Storage<'c>),
    Array(Array<'c>),
    Bytes(&'c [u8]),
}

/// Numbers outside the pickle, which tensors share.
#[derive(Debug, Clone)]
pub(super) struct Storage<'c> {
    pub(super) key: &'c str,
    pub(super) element: Element,
    /// How many elements it has.
    pub(super) count: usize,
}

impl<'c> Tensor<'c> {
    /// The tensor that a value represents; `None` for a value that is not a tensor.
    ///
    /// # Errors
    /// With a message for people, when the tensor is invalid.
    pub(super) fn of(value: Value<'c>) -> Option<Result<Self, String>> {
        // A parameter is a tensor with a few marks.
        let mut value = value;
        for wrapper in ["_rebuild_parameter", "_rebuild_parameter_with_state"] {
            if let Some(call) = value.call().filter(|call| call.is(&["torch._utils"], wrapper)) {
                value = call.arguments.items()?.get(0)?;
            }
        }
        if let Some(array) = Array::of(value) {
            return Some(array.and_then(Self::of_array));
        }
        let call = value.call()?;
        let mut arguments = call.arguments.items()?;
        if call.is(&["torch._tensor"], "_rebuild_from_type_v2") {
            let [function, _class, inner] = arguments.first_many()?;
            if function.global() != Some(("torch._utils", "_rebuild_tensor_v2")) {
                return None;
            }
            arguments = inner.items()?;
        } else if !["_rebuild_tensor", "_rebuild_tensor_v2"]
            .iter()
            .any(|name| call.is(&["torch._utils"], name))
        {
            return None;
        }
        Some(Self::rebuilt(arguments))
    }

    /// From `(storage, offset, size, stride, ...)`.
    fn rebuilt(arguments: Items<'c>) -> Result<Self, String> {
        let parts = arguments.first_many();
        let [storage, offset, shape, strides] = parts.ok_or("a tensor without its parts")?;
        let storage = Storage::of(storage)?;
        let sizes = |value: Value<'_>, what: &str| -> Result<Vec<usize>, String> {
            let wrong = || format!("a tensor whose {what} are negative or not integers");
            let items = value.items().ok_or_else(wrong)?;
            check_dimensions(items.len())?;
            items.iter().map(Value::size).collect::<Option<_>>().ok_or_else(wrong)
        };
        let tensor = Self {
            element: storage.element,
            shape: sizes(shape, "sizes")?,
            strides: sizes(strides, "strides")?,
            offset: offset.size().ok_or("a tensor whose offset is negative or not an integer")?,
            source: ElementSource::Storage(storage.clone()),
        };
        tensor.checked(storage.count)
    }

    fn of_array(array: Array<'c>) -> Result<Self, String> {
        let element = match (array.is_float(), array.element_size()) {
            (true, 4) => Element::F32,
            (true, _) => Element::F64,
            (false, _) => Element::I64,
        };
        let shape = array.shape.clone();
        Ok(Self {
            element,
            shape,
            strides: Vec::new(),
            offset: 0,
            source: ElementSource::Array(array),
        })
    }

    pub(super) fn of_view(view: &safetensors::tensor::TensorView<'c>) -> Result<Self, String> {
        let element = Element::try_from(view.dtype())?;
        let (shape, source) = (view.shape().to_vec(), ElementSource::Bytes(view.data()));
        check_dimensions(shape.len())?;
        Ok(Self { element, shape, strides: Vec::new(), offset: 0, source })
    }

    /// For tests of what looks at shapes alone: a tensor without numbers.
    #[cfg(test)]
    pub(crate) fn without_numbers(element: Element, shape: Vec<usize>) -> Self {
        Self { element, shape, strides: Vec::new(), offset: 0, source: ElementSource::Bytes(&[]) }
    }

    /// How many elements it has.
    pub(crate) fn count(&self) -> usize {
        // The other sizes of a tensor without elements are arbitrary.
        if self.shape.contains(&0) { 0 } else { self.shape.iter().product() }
    }

    /// Checks that it is within a storage of `available` elements, and that its elements do not overlap.
    fn checked(self, available: usize) -> Result<Self, String> {
        let shown = format!(
            "a tensor of the shape {} with the strides {} at the offset {}",
            shortened(&self.shape),
            shortened(&self.strides),
            self.offset
        );
        if self.shape.len() != self.strides.len() {
            return Err(shown + ": the numbers of strides and dimensions differ");
        }
        if self.shape.contains(&0) {
            return Ok(Self { strides: Vec::new(), shape: self.shape, offset: 0, ..self });
        }
        let outside = format!("{shown}: it is outside its storage of {available} elements");
        let mut dimensions: Vec<(usize, usize)> =
            self.strides.iter().copied().zip(self.shape.iter().copied()).collect();
        dimensions.retain(|(_, size)| *size > 1);
        dimensions.sort_unstable();
        // From the smallest stride to the largest: the extent of the elements.
        let mut reach: usize = 1;
        for (stride, size) in dimensions {
            if stride < reach {
                return Err(shown + ": its elements overlap");
            }
            let farther = stride.checked_mul(size - 1).and_then(|far| far.checked_add(reach));
            reach = farther.ok_or_else(|| outside.clone())?;
        }
        match self.offset.checked_add(reach) {
            Some(end) if end <= available => Ok(self),
            _ => Err(outside),
        }
    }

    /// The bytes of its elements in row-major order, from those of its storage.
    pub(super) fn gathered<'s>(&self, storage: &'s [u8]) -> Option<Cow<'s, [u8]>> {
        let size = self.element.size();
        let count = self.count();
        let mut contiguous = 1;
        let mut in_order = true;
        for (length, stride) in self.shape.iter().zip(&self.strides).rev() {
            in_order &= *length == 1 || *stride == contiguous;
            contiguous *= length;
        }
        if in_order || count == 0 {
            let start = self.offset.checked_mul(size)?;
            return storage.get(start..start.checked_add(count * size)?).map(Cow::Borrowed);
        }
        let mut ordered = Vec::with_capacity(count * size);
        let mut index = vec![0; self.shape.len()];
        for _ in 0..count {
            let place: usize = index.iter().zip(&self.strides).map(|(i, stride)| i * stride).sum();
            let start = (self.offset + place) * size;
            ordered.extend_from_slice(storage.get(start..start + size)?);
            for (index, length) in index.iter_mut().zip(&self.shape).rev() {
                *index += 1;
                if *index < *length {
                    break;
                }
                *index = 0;
            }
        }
        Some(Cow::Owned(ordered))
    }
}

impl<'c> Storage<'c> {
    /// From `("storage", class, key, location, count)`; the legacy format has a sixth part, a view, which
    /// no version has written since 2017.
    pub(super) fn of(value: Value<'c>) -> Result<Self, String> {
        let none = || "a tensor without a storage".to_owned();
        let parts = value.persistent().and_then(Value::items).ok_or_else(none)?;
        let [kind, class, key, _location, count] = parts.first_many().ok_or_else(none)?;
        let plain = match parts.get(5) {
            None => true,
            Some(view) => view.is_none() && parts.len() == 6,
        };
        if kind.text() != Some("storage") || !plain {
            return Err("a tensor whose storage is of an unknown kind".to_owned());
        }
        let (_, name) = class.global().ok_or("a storage without a class")?;
        let element = Element::of_storage(name).ok_or_else(|| {
            let name: String = name.escape_debug().take(40).collect();
            format!("elements of the type {name} are not supported")
        })?;
        let key = key.text().ok_or("a storage without a key")?;
        let count = count.size().ok_or("a storage whose size is negative or not an integer")?;
        Ok(Self { key, element, count })
    }
}

/// A tensor in a few words: `f32 [64, 3, 3, 3]`.
impl std::fmt::Display for Tensor<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.element.name(), self.shape)
    }
}

fn check_dimensions(count: usize) -> Result<(), String> {
    if count > MOST_DIMENSIONS {
        return Err(format!("a tensor of {count} dimensions"));
    }
    Ok(())
}

/// Sizes for a message, which a damaged file must not fill.
fn shortened(sizes: &[usize]) -> String {
    match sizes.get(..8) {
        Some(first) if sizes.len() > 8 => format!("{first:?} and {} more", sizes.len() - 8),
        _ => format!("{sizes:?}"),
    }
}
