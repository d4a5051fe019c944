//! Numbers and text as pickles write them: little-endian, or as text in protocol 0.
//!
//! Every function takes the bytes of one literal; errors are messages for people.

use std::borrow::Cow;

/// An integer in two's complement, little-endian, of any length. `None` beyond 128 bits.
pub(super) fn long(bytes: &[u8]) -> Option<i128> {
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut wide = [if negative { 0xff } else { 0 }; 16];
    wide.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(i128::from_le_bytes(wide))
}

/// An integer in decimal digits, with or without Python 2's `L` at its end. `Ok(None)` beyond 128 bits.
pub(super) fn decimal(line: &[u8]) -> Result<Option<i128>, String> {
    let text = ascii(line)?.trim();
    let text = text.strip_suffix('L').unwrap_or(text);
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("the text of an integer is invalid".to_owned());
    }
    Ok(text.parse().ok())
}

/// A float as text.
pub(super) fn float(line: &[u8]) -> Result<f64, String> {
    ascii(line)?.trim().parse().map_err(|_| "the text of a float is invalid".to_owned())
}

/// An index of the memo, in decimal digits.
pub(super) fn index(line: &[u8]) -> Result<u32, String> {
    ascii(line)?.trim().parse().map_err(|_| "the text of a memo index is invalid".to_owned())
}

/// Text in UTF-8. Python also writes halves of surrogate pairs; they become U+FFFD.
pub(super) fn utf8(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// Bytes between quotes, with escapes, as Python 2's `repr` writes a string.
pub(super) fn quoted(line: &[u8]) -> Result<Cow<'_, [u8]>, String> {
    let unquoted = match line.trim_ascii() {
        [b'\'', inner @ .., b'\''] | [b'"', inner @ .., b'"'] => inner,
        _ => return Err("a string without quotes around it".to_owned()),
    };
    if !unquoted.contains(&b'\\') {
        return Ok(Cow::Borrowed(unquoted));
    }
    let mut bytes = Vec::with_capacity(unquoted.len());
    let mut rest = unquoted;
    while let [first, behind @ ..] = rest {
        rest = behind;
        if *first == b'\\' {
            bytes.push(escaped_byte(&mut rest)?);
        } else {
            bytes.push(*first);
        }
    }
    Ok(Cow::Owned(bytes))
}

/// The byte after a backslash in `repr`.
fn escaped_byte(rest: &mut &[u8]) -> Result<u8, String> {
    let (byte, used) = match rest {
        [b'x', high, low, ..] => (hexadecimal(&[*high, *low])? as u8, 3),
        [b'n', ..] => (b'\n', 1),
        [b'r', ..] => (b'\r', 1),
        [b't', ..] => (b'\t', 1),
        [quote @ (b'\\' | b'\'' | b'"'), ..] => (*quote, 1),
        _ => return Err("an unknown escape in a string".to_owned()),
    };
    *rest = rest.get(used..).unwrap_or_default();
    Ok(byte)
}

/// Text in Python's `raw-unicode-escape`: Latin-1, with `\uXXXX` and `\UXXXXXXXX`.
pub(super) fn raw_unicode(line: &[u8]) -> Result<String, String> {
    let mut units: Vec<u16> = Vec::with_capacity(line.len());
    let mut rest = line;
    while let [first, behind @ ..] = rest {
        let digits = match (first, behind) {
            (b'\\', [b'u', ..]) => behind.get(1..5),
            (b'\\', [b'U', ..]) => behind.get(1..9),
            _ => {
                units.push(u16::from(*first));
                rest = behind;
                continue;
            }
        };
        let digits = digits.ok_or("an escape in text is cut off")?;
        push_utf16(&mut units, hexadecimal(digits)?)?;
        rest = behind.get(1 + digits.len()..).unwrap_or_default();
    }
    Ok(String::from_utf16_lossy(&units))
}

/// A code point, or a half of a surrogate pair, in UTF-16.
fn push_utf16(units: &mut Vec<u16>, code: u32) -> Result<(), String> {
    match (u16::try_from(code), char::from_u32(code)) {
        (Ok(unit), _) => units.push(unit),
        (_, Some(character)) => units.extend_from_slice(character.encode_utf16(&mut [0; 2])),
        (_, None) => return Err(format!("the code point {code:#x} does not exist")),
    }
    Ok(())
}

fn hexadecimal(digits: &[u8]) -> Result<u32, String> {
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err("an escape that is not a hexadecimal number".to_owned());
    }
    u32::from_str_radix(ascii(digits)?, 16).map_err(|error| error.to_string())
}

fn ascii(line: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(line).map_err(|_| "a number that is not text".to_owned())
}
