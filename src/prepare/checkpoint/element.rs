//! The types of elements in checkpoints, and their conversion to f32 and i64.

/// The type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    Bool,
    U8,
    I8,
    I16,
    I32,
    I64,
    F16,
    Bf16,
    F32,
    F64,
}

/// The numbers of a tensor in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Values {
    /// Of floats of any width.
    Floats(Vec<f32>),
    /// Of integers of any width, and of booleans.
    Integers(Vec<i64>),
}

impl Element {
    /// Bytes of one.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::Bool | Self::U8 | Self::I8 => 1,
            Self::I16 | Self::F16 | Self::Bf16 => 2,
            Self::I32 | Self::F32 => 4,
            Self::I64 | Self::F64 => 8,
        }
    }

    /// Such as `f32`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::I16 => "i16",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
            Self::F64 => "f64",
        }
    }

    /// Whether it is a float of any width.
    pub(crate) fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::Bf16 | Self::F32 | Self::F64)
    }

    /// The type of PyTorch's storage of this name: `FloatStorage`.
    pub(super) fn of_storage(name: &str) -> Option<Self> {
        Some(match name {
            "BoolStorage" => Self::Bool,
            "ByteStorage" => Self::U8,
            "CharStorage" => Self::I8,
            "ShortStorage" => Self::I16,
            "IntStorage" => Self::I32,
            "LongStorage" => Self::I64,
            "HalfStorage" => Self::F16,
            "BFloat16Storage" => Self::Bf16,
            "FloatStorage" => Self::F32,
            "DoubleStorage" => Self::F64,
            _ => return None,
        })
    }

    /// The numbers of little-endian bytes.
    pub(super) fn values(self, bytes: &[u8]) -> Values {
        match self {
            Self::Bool => integers(bytes, |[byte]| i64::from(byte != 0)),
            Self::U8 => integers(bytes, |[byte]| byte.into()),
            Self::I8 => integers(bytes, |bytes| i8::from_le_bytes(bytes).into()),
            Self::I16 => integers(bytes, |bytes| i16::from_le_bytes(bytes).into()),
            Self::I32 => integers(bytes, |bytes| i32::from_le_bytes(bytes).into()),
            Self::I64 => integers(bytes, i64::from_le_bytes),
            Self::F16 => floats(bytes, |bytes| half(u16::from_le_bytes(bytes))),
            Self::Bf16 => {
                floats(bytes, |bytes| f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16))
            }
            Self::F32 => floats(bytes, f32::from_le_bytes),
            Self::F64 => floats(bytes, |bytes| f64::from_le_bytes(bytes) as f32),
        }
    }
}

impl TryFrom<safetensors::Dtype> for Element {
    type Error = String;

    fn try_from(dtype: safetensors::Dtype) -> Result<Self, String> {
        use safetensors::Dtype;
        Ok(match dtype {
            Dtype::BOOL => Self::Bool,
            Dtype::U8 => Self::U8,
            Dtype::I8 => Self::I8,
            Dtype::I16 => Self::I16,
            Dtype::I32 => Self::I32,
            Dtype::I64 => Self::I64,
            Dtype::F16 => Self::F16,
            Dtype::BF16 => Self::Bf16,
            Dtype::F32 => Self::F32,
            Dtype::F64 => Self::F64,
            other => return Err(format!("elements of the type {other} are not supported")),
        })
    }
}

fn integers<const N: usize>(bytes: &[u8], integer: impl Fn([u8; N]) -> i64) -> Values {
    Values::Integers(bytes.as_chunks().0.iter().map(|bytes| integer(*bytes)).collect())
}

fn floats<const N: usize>(bytes: &[u8], float: impl Fn([u8; N]) -> f32) -> Values {
    Values::Floats(bytes.as_chunks().0.iter().map(|bytes| float(*bytes)).collect())
}

/// A half-precision float (IEEE 754 binary16), exactly.
fn half(bits: u16) -> f32 {
    let sign = u32::from(bits >> 15) << 31;
    let (exponent, fraction) = (u32::from((bits >> 10) & 0x1f), u32::from(bits & 0x3ff));
    let magnitude = match exponent {
        // Subnormal: multiples of 2^-24.
        0 => (fraction as f32 * (1.0 / 16_777_216.0)).to_bits(),
        0x1f => 0x7f80_0000 | (fraction << 13),
        // The bias of the exponent is 15 there and 127 here.
        _ => (exponent + 127 - 15) << 23 | (fraction << 13),
    };
    f32::from_bits(sign | magnitude)
}
